//! A deadline from the first caller to the last server.

use std::time::Duration;

use axum::{Router, http::HeaderMap, routing::get as on_get};
use http::{Request, StatusCode};
use tower_mesh::{
    Body, Endpoint, Instance, MemoryRegistry, Mesh, ServiceName, http::server::detached,
};

use crate::support::{Running, mesh, plain, text};

/// Says what it was told of the time that is left.
async fn stock(registry: &MemoryRegistry) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let told = |headers: HeaderMap| async move {
        headers
            .get("x-request-timeout-ms")
            .map(|left| left.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let app = Router::new().route("/", on_get(told));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let registrar = mesh("stock", registry).await;
    let instance = Instance::new(ServiceName::new("stock").unwrap(), endpoint);
    registrar.register(instance).await.unwrap();
    // For as long as the test runs.
    std::mem::forget(registrar);
}

async fn ask(mesh: Mesh) -> String {
    match mesh.service("stock").unwrap().get("/").await {
        Ok(response) => text(response).await,
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[tokio::test]
async fn what_is_left_of_a_requests_deadline_is_all_that_the_calls_have_which_serve_it() {
    let registry = MemoryRegistry::new();
    stock(&registry).await;
    let orders = mesh("orders", &registry).await;
    let (of_handler, of_detached) = (orders.clone(), orders.clone());
    let app = Router::new()
        .route("/", on_get(move || ask(of_handler)))
        .route("/detached", on_get(move || detached(ask(of_detached))));
    let server = Running::start(orders, app, |serve| serve).await;
    let left = async |path: &str, timeout: Option<&str>| -> String {
        let mut request = Request::get(format!("http://{}{path}", server.address));
        if let Some(timeout) = timeout {
            request = request.header("x-request-timeout-ms", timeout);
        }
        let response = plain()
            .request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await
    };
    let own: u64 = left("/", None).await.parse().unwrap();
    let inherited: u64 = left("/", Some("900")).await.parse().unwrap();
    let longer: u64 = left("/", Some("99999999")).await.parse().unwrap();
    let detached: u64 = left("/detached", Some("900")).await.parse().unwrap();
    assert!(own > 1_000, "the call's own limit: {own}");
    assert!(
        (1..=900).contains(&inherited),
        "less the time already spent: {inherited}"
    );
    assert!(
        longer <= 2_000 + Duration::from_secs(8).as_millis() as u64 && longer > 1_000,
        "never extended: {longer}"
    );
    assert!(detached > 1_000, "{detached}");
}
