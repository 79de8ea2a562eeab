//! Calls through the mesh, over real sockets.

use std::{num::NonZeroU32, time::Duration};

use axum::{body::Body as AxumBody, response::Response};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_mesh::{
    Body, Config, Endpoint, MemoryRegistry, Mesh, MeshService, Policy, discovery::Static,
};

use crate::support::{Server, answer, dead_endpoint, name, until};

/// A mesh whose service `orders` has these endpoints.
pub async fn mesh(endpoints: Vec<Endpoint>, policy: Policy) -> Mesh {
    Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), endpoints))
        .defaults(policy)
        .start()
        .await
        .unwrap()
}

async fn text<B>(response: http::Response<B>) -> (u16, String)
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn post(body: &'static str) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri("/")
        .body(Body::from(body))
        .unwrap()
}

// row 22
#[tokio::test]
async fn a_redirect_is_the_callers_to_follow_and_takes_its_credentials_nowhere() {
    let elsewhere = Server::answering(200, "let in").await;
    let location = format!("http://{}/", elsewhere.endpoint().address());
    let server = Server::start(move |_: axum::extract::Request| {
        let mut moved = answer(307, "");
        let location = location.parse().unwrap();
        moved.headers_mut().insert("location", location);
        async { moved }
    })
    .await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let request = Request::get("/").header("authorization", "Bearer ours");
    let request = request.body(Body::empty()).unwrap();
    let response = mesh.service("orders").unwrap().send(request).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!((server.hits(), elsewhere.hits()), (1, 0));
}

#[tokio::test]
async fn a_call_reaches_an_endpoint_with_its_path_and_brings_back_the_answer() {
    let server = Server::start(|request: axum::extract::Request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Response::new(AxumBody::from(format!("{} {host}", request.uri())))
    })
    .await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let response = mesh
        .service("orders")
        .unwrap()
        .get("/orders/42?full=1")
        .await
        .unwrap();
    assert_eq!(
        text(response).await,
        (
            200,
            format!("/orders/42?full=1 {}", server.endpoint().address())
        )
    );
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_call_not_even_one_that_is_not_idempotent() {
    // scenario 9, first half: what was surely not sent is tried elsewhere.
    let alive = Server::answering(200, "alive").await;
    let mesh = mesh(
        vec![dead_endpoint().await, alive.endpoint()],
        Policy::default(),
    )
    .await;
    let orders = mesh.service("orders").unwrap();
    for _ in 0..50 {
        let response = orders.send(post("once")).await.unwrap();
        assert_eq!(text(response).await, (200, "alive".to_owned()));
    }
    assert_eq!(alive.hits(), 50);
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_twice_and_what_is_goes_to_another_endpoint() {
    // scenario 9, second half.
    let (bad, good) = (
        Server::answering(500, "bad").await,
        Server::answering(200, "good").await,
    );
    let mesh = mesh(vec![bad.endpoint(), good.endpoint()], Policy::default()).await;
    let orders = mesh.service("orders").unwrap();
    let mut failed = 0;
    for _ in 0..40 {
        let (status, _) = text(orders.send(post("once")).await.unwrap()).await;
        failed += u64::from(status == 500);
    }
    assert_eq!(
        (bad.hits(), good.hits()),
        (failed, 40 - failed),
        "each call was sent once"
    );
    assert!(failed > 0, "the bad endpoint was never tried");

    let before = bad.hits();
    for _ in 0..20 {
        let response = orders.get("/").await.unwrap();
        assert_eq!(text(response).await, (200, "good".to_owned()));
    }
    assert!(bad.hits() - before <= 20);
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_left_alone() {
    let (bad, good) = (
        Server::answering(500, "bad").await,
        Server::answering(200, "good").await,
    );
    let mesh = mesh(vec![bad.endpoint(), good.endpoint()], Policy::default()).await;
    let orders = mesh.service("orders").unwrap();
    for _ in 0..300 {
        let _ = text(orders.send(post("once")).await.unwrap()).await;
    }
    assert!(
        bad.hits() < 60,
        "{} of 300 went to the endpoint that always fails",
        bad.hits()
    );
}

#[tokio::test]
async fn a_hanging_endpoint_costs_an_attempt_not_the_call() {
    let (hangs, good) = (
        Server::hanging().await,
        Server::answering(200, "good").await,
    );
    let mut policy = Policy::default();
    policy.retry.per_try_timeout = Some(Duration::from_millis(50));
    let mesh = mesh(vec![hangs.endpoint(), good.endpoint()], policy).await;
    let orders = mesh.service("orders").unwrap();
    for _ in 0..20 {
        let response = orders.get("/").await.unwrap();
        assert_eq!(text(response).await, (200, "good".to_owned()));
    }
}

#[tokio::test]
async fn a_users_own_client_becomes_a_client_of_the_mesh_by_a_layer() {
    let server = Server::answering(200, "mine").await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Body>();
    let mine = tower::ServiceBuilder::new()
        .layer(mesh.layer("orders").unwrap())
        .service(client);
    assert_eq!(
        text(mine.get("/").await.unwrap()).await,
        (200, "mine".to_owned())
    );
}

#[tokio::test]
async fn operations_are_called_by_name_with_json() {
    let server = Server::start(|request: axum::extract::Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1024).await.unwrap();
        let said: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let told =
            json!({ "method": parts.method.as_str(), "path": parts.uri.path(), "said": said });
        match parts.uri.path() {
            "/Refused" => answer(403, "no"),
            "/Empty" => answer(204, ""),
            _ => Response::new(AxumBody::from(told.to_string())),
        }
    })
    .await;
    let config = format!(
        "discovery = {{ kind = \"static\", endpoints.orders = [{{ address = \"{}\" }}] }}\n\
         services.orders.operations.GetOrder = {{ method = \"GET\", path = \"/orders/current\", timeout = \"5s\" }}",
        server.endpoint().address()
    );
    let mesh = Mesh::builder("shop")
        .config(Config::parse(&config).unwrap())
        .start()
        .await
        .unwrap();

    let told: Value = mesh
        .call("orders", "Place", json!({ "id": 7 }))
        .await
        .unwrap();
    assert_eq!(
        told,
        json!({ "method": "POST", "path": "/Place", "said": { "id": 7 } })
    );
    let told: Value = mesh.call("orders", "GetOrder", ()).await.unwrap();
    assert_eq!(
        told,
        json!({ "method": "GET", "path": "/orders/current", "said": null })
    );
    let () = mesh.call("orders", "Empty", ()).await.unwrap();

    let refused = mesh
        .call::<_, Value>("orders", "Refused", ())
        .await
        .unwrap_err();
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(403));
    let steering = mesh
        .call::<_, Value>("orders", "../admin", ())
        .await
        .unwrap_err();
    assert!(
        steering.to_string().contains("is no operation"),
        "{steering}"
    );
}

#[tokio::test]
async fn what_is_registered_is_called_and_what_is_deregistered_is_not() {
    let registry = MemoryRegistry::new();
    let (one, two) = (
        Server::answering(200, "one").await,
        Server::answering(200, "two").await,
    );
    let mesh = Mesh::builder("shop")
        .discovery(registry.clone())
        .registry(registry.clone())
        .start()
        .await
        .unwrap();
    mesh.register(tower_mesh::Instance::new(name("orders"), one.endpoint()))
        .await
        .unwrap();
    let guard = tower_mesh::core::Register::register(
        &registry,
        tower_mesh::Instance::new(name("orders"), two.endpoint()),
    )
    .await
    .unwrap();
    let orders = mesh.service("orders").unwrap();
    let both = |orders: &MeshService| orders.endpoints().current().endpoints().len() == 2;
    until("both are known", || both(&orders)).await;
    for _ in 0..40 {
        orders.get("/").await.unwrap();
    }
    assert!(one.hits() > 0 && two.hits() > 0);

    guard.deregister().await.unwrap();
    until("one is known", || !both(&orders)).await;
    let before = two.hits();
    for _ in 0..40 {
        orders.get("/").await.unwrap();
    }
    assert_eq!(two.hits(), before);
}

#[tokio::test]
async fn a_client_may_have_a_shorter_time_over_the_same_state() {
    let server = Server::hanging().await;
    let mut policy = Policy::default();
    policy.retry.attempts = NonZeroU32::MIN;
    let mesh = mesh(vec![server.endpoint()], policy).await;
    let orders = mesh
        .service("orders")
        .unwrap()
        .with_timeout(Duration::from_millis(30));
    let error = orders.get("/").await.unwrap_err();
    assert!(error.is_deadline_exceeded(), "{error}");
    let status = mesh.status();
    assert_eq!(
        (
            status.services[0].calls,
            status.services[0].endpoints[0].failures
        ),
        (1, 1),
        "{status}"
    );
}
