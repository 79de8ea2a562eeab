//! How does an axum app become part of the mesh? Two of them: `shop` answers by asking `orders`.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that uses the mesh takes time and tasks from tokio"
)]

use std::{
    error::Error,
    future::IntoFuture,
    io::{self, Write},
    net::SocketAddr,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::oneshot};
use tower_mesh::{Body, Endpoint, Instance, MemoryRegistry, Mesh, ServiceName};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// An app like any other.
fn orders() -> Router {
    async fn order(Path(id): Path<u32>, headers: HeaderMap) -> String {
        let timed = headers.contains_key("x-request-timeout-ms");
        format!("order {id}: two books; told when to be done: {timed}")
    }
    Router::new().route("/orders/{id}", get(order))
}

/// An app that calls another. The call has what is left of the time of the request that it serves.
fn shop(mesh: &Mesh) -> Router {
    async fn page(State(mesh): State<Mesh>) -> std::result::Result<String, StatusCode> {
        let orders = mesh
            .service("orders")
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        match orders.get("/orders/42").await {
            Ok(response) => text(response.into_body())
                .await
                .map_err(|_| StatusCode::BAD_GATEWAY),
            Err(error) if error.is_deadline_exceeded() => Err(StatusCode::GATEWAY_TIMEOUT),
            Err(_) => Err(StatusCode::BAD_GATEWAY),
        }
    }
    async fn boom() -> &'static str {
        panic!("with a secret in it")
    }
    Router::new()
        .route("/", get(page))
        .route("/boom", get(boom))
        .with_state(mesh.clone())
}

/// A process, as far as the mesh is concerned: it serves `app` as `name` until it is told to end.
async fn start(
    mesh: &Mesh,
    app: Router,
    end: oneshot::Receiver<()>,
) -> Result<(SocketAddr, impl Future<Output = Result<()>> + Send + use<>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let instance = Instance::new(
        ServiceName::new(mesh.name().as_str())?,
        Endpoint::new(address),
    );

    // All that it takes. Unless said, SIGTERM and ctrl-c end it, and callers have 5 s to hear of it.
    let app = app.layer(mesh.server_layer());
    let serve = mesh.serve(listener, app).register(instance);

    let serve = serve
        .propagation(std::time::Duration::ZERO)
        .until(async move {
            let _ = end.await;
        });
    Ok((address, async move { Ok(serve.into_future().await?) }))
}

async fn text<B>(body: B) -> std::result::Result<String, B::Error>
where
    B: http_body::Body,
{
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn run(out: &mut impl Write) -> Result<()> {
    // Each would be a process of its own and find the others in Consul.
    let registry = MemoryRegistry::new();
    let join = |name: &str| {
        let mesh = Mesh::builder(name).discovery(registry.clone());
        mesh.registry(registry.clone()).start()
    };
    let (orders_mesh, shop_mesh) = (join("orders").await?, join("shop").await?);
    let (end_orders, end) = oneshot::channel();
    let (_, serve) = start(&orders_mesh, orders(), end).await?;
    let orders_ended = tokio::spawn(serve);
    let (end_shop, end) = oneshot::channel();
    let (address, serve) = start(&shop_mesh, shop(&shop_mesh), end).await?;
    let shop_ended = tokio::spawn(serve);

    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Body>();
    for (path, timeout) in [
        ("/", None),
        ("/", Some("0")),
        ("/", Some("soon")),
        ("/boom", None),
        ("/health/live", None),
        ("/health/ready", None),
    ] {
        let mut request = http::Request::get(format!("http://{address}{path}"));
        if let Some(timeout) = timeout {
            request = request.header("x-request-timeout-ms", timeout);
        }
        let response = client.request(request.body(Body::empty())?).await?;
        let status = response.status().as_u16();
        let text = text(response.into_body()).await?;
        // The last member of a problem is an id, which the log has, too.
        let text = text.split(r#","id""#).next().unwrap_or_default();
        writeln!(
            out,
            "{path} within {}: {status} {text}",
            timeout.unwrap_or("any time")
        )?;
    }

    drop((end_shop, end_orders));
    shop_ended.await??;
    orders_ended.await??;
    writeln!(
        out,
        "still running: {} tasks",
        shop_mesh.tasks() + orders_mesh.tasks()
    )?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    run(&mut io::stdout()).await
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn it_says_what_its_servers_answer() {
        let mut out = Vec::new();
        super::run(&mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        let said = r#"
/ within any time: 200 order 42: two books; told when to be done: true
/ within 0: 504 {"type":"about:blank","title":"Gateway Timeout","status":504,"kind":"deadline_exceeded"
/ within soon: 400 {"type":"about:blank","title":"Bad Request","status":400,"kind":"invalid_timeout"
/boom within any time: 500 {"type":"about:blank","title":"Internal Server Error","status":500,"kind":"internal"
/health/live within any time: 200 {"live":true}
/health/ready within any time: 200 {"ready":true}
still running: 0 tasks
"#;
        assert_eq!(out.trim(), said.trim());
    }
}
