//! An axum server and a client of hyper.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, routing::get};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower_mesh_http::{
    Body,
    server::{Inherited, ServerLayer},
};

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn ask(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let mut request = Request::get(format!("http://{to}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client()
        .request(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn left() -> String {
    format!("{:?}", Inherited::left_here())
}

async fn boom() -> &'static str {
    panic!("SECRET")
}

struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn hang(State(gone): State<Arc<AtomicBool>>) {
    let _gone = Gone(gone);
    pending().await
}

fn router(gone: Arc<AtomicBool>, layer: ServerLayer) -> Router {
    Router::new()
        .route("/left", get(left))
        .route("/boom", get(boom))
        .route("/hang", get(hang))
        .with_state(gone)
        .layer(layer)
}

#[tokio::test]
async fn axum_serves_under_the_layer_each_request_within_its_deadline() {
    let (gone, layer) = (Arc::default(), ServerLayer::new());
    let server = serve(router(Arc::clone(&gone), layer.clone())).await;

    assert_eq!(text(ask(server, "/left", &[]).await).await, "None");
    let left = text(ask(server, "/left", &[("x-request-timeout-ms", "60000")]).await).await;
    assert!(
        left.starts_with("Some(59.9") || left == "Some(60s)",
        "{left}"
    );
    assert_eq!(
        ask(server, "/nowhere", &[]).await.status(),
        StatusCode::NOT_FOUND
    );

    let late = ask(server, "/hang", &[("x-request-timeout-ms", "20")]).await;
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(gone.load(Ordering::SeqCst), "nobody works for nobody");

    let panicked = ask(server, "/boom", &[]).await;
    assert_eq!(panicked.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!text(panicked).await.contains("SECRET"));

    for path in ["/health/live", "/health/ready"] {
        assert_eq!(
            ask(server, path, &[]).await.status(),
            StatusCode::OK,
            "{path}"
        );
    }
    let counts = layer.counts();
    assert_eq!((counts.requests, counts.answered, counts.failed), (5, 3, 2));
}

// rows 10 and 33: header injection, oversized metadata, absurd deadlines
#[tokio::test]
async fn hostile_headers_meet_a_clear_refusal_and_the_server_lives() {
    let server = serve(router(Arc::default(), ServerLayer::new())).await;
    for absurd in [
        "-1",
        "1000000000000000000",
        "NaN",
        "5;q=1",
        "5%0d%0aset-cookie: a=b",
    ] {
        let response = ask(server, "/left", &[("x-request-timeout-ms", absurd)]).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{absurd}");
        assert!(!response.headers().contains_key("set-cookie"));
        let text = text(response).await;
        assert!(
            text.contains("invalid_timeout") && !text.contains(absurd),
            "{text}"
        );
    }
    let huge = "9".repeat(100_000);
    let response = ask(server, "/left", &[("x-request-timeout-ms", &huge)]).await;
    assert!(response.status().is_client_error());
    let far = ask(server, "/left", &[("x-request-timeout-ms", "99999999")]).await;
    assert_eq!(far.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_sender_who_goes_away_takes_the_handler_along() {
    let (gone, layer) = (Arc::<AtomicBool>::default(), ServerLayer::new());
    let server = serve(router(Arc::clone(&gone), layer.clone())).await;
    let asking = tokio::spawn(async move { ask(server, "/hang", &[]).await.status() });
    while layer.counts().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    while layer.counts().abandoned == 0 {
        tokio::task::yield_now().await;
    }
    assert!(gone.load(Ordering::SeqCst));
    assert_eq!(layer.counts().in_flight, 0);
}
