//! What do callers notice when a server ends? Two servers under load, one of which is told to end: nothing.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that uses the mesh takes time and tasks from tokio"
)]

use std::{
    error::Error,
    future::IntoFuture,
    io::{self, Write},
    time::Duration,
};

use axum::{Router, routing::post};
use http::Request;
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time};
use tower_mesh::{Body, Endpoint, Instance, MemoryRegistry, Mesh, MeshService, ServiceName};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Takes a while, and must not be done twice: the mesh sends it again only if it surely was not sent.
async fn order() -> &'static str {
    time::sleep(Duration::from_millis(50)).await;
    "two books"
}

async fn call(orders: MeshService) -> Result<()> {
    let response = orders
        .send(Request::post("/orders").body(Body::empty())?)
        .await?;
    let status = response.status();
    response.into_body().collect().await?;
    match status.is_success() {
        true => Ok(()),
        false => Err(status.to_string().into()),
    }
}

async fn ready(mesh: &Mesh) -> Result<String> {
    let layer = mesh.server_layer();
    let asked = Request::get("/health/ready").body(Body::empty())?;
    let answer = tower::ServiceExt::oneshot(Router::<()>::new().layer(layer), asked).await?;
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await?.to_bytes();
    Ok(format!("{status} {}", String::from_utf8_lossy(&text)))
}

async fn run(out: &mut impl Write) -> Result<()> {
    let registry = MemoryRegistry::new();
    let join = |name: &str| {
        let mesh = Mesh::builder(name).discovery(registry.clone());
        mesh.registry(registry.clone()).start()
    };
    let mut servers = Vec::new();
    for _ in 0..2 {
        let mesh = join("orders").await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Endpoint::new(listener.local_addr()?);
        let app = Router::new()
            .route("/orders", post(order))
            .layer(mesh.server_layer());
        let (end, told) = oneshot::channel::<()>();
        let serve = mesh
            .serve(listener, app)
            .register(Instance::new(ServiceName::new("orders")?, endpoint))
            // In a cluster it is 5 s, unless said; the registry here tells its watchers at once, but a busy machine may take a
            // while until they come to hear of it.
            .propagation(Duration::from_secs(1))
            // In a process of its own: nothing, for SIGTERM and ctrl-c.
            .until(async { drop(told.await) });
        servers.push((mesh, end, tokio::spawn(serve.into_future())));
    }

    let shop = join("shop").await?;
    let orders = shop.service("orders")?;
    let (first, end, ended) = servers.swap_remove(0);
    writeln!(out, "ready: {}", ready(&first).await?)?;

    let (mut calls, mut end) = (JoinSet::new(), Some(end));
    let mut every = time::interval(Duration::from_millis(5));
    for n in 0..400 {
        every.tick().await;
        calls.spawn(call(orders.clone()));
        if n == 50 {
            // What SIGTERM does.
            drop(end.take());
            while first.ready() {
                time::sleep(Duration::from_millis(1)).await;
            }
            writeln!(out, "told to end: {}", ready(&first).await?)?;
        }
    }
    let results = calls.join_all().await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    writeln!(out, "{} calls, {failed} failed", results.len())?;
    ended.await??;
    writeln!(out, "ended, with {} tasks left", first.tasks())?;
    for (mesh, end, ended) in servers {
        drop(end);
        ended.await??;
        writeln!(out, "the other, too, with {} tasks left", mesh.tasks())?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    run(&mut io::stdout()).await
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_call_fails_while_a_server_ends() {
        let mut out = Vec::new();
        super::run(&mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        let said = r#"
ready: 200 {"ready":true}
told to end: 503 {"ready":false,"reasons":["draining"]}
400 calls, 0 failed
ended, with 0 tasks left
the other, too, with 0 tasks left
"#;
        assert_eq!(out.trim(), said.trim());
    }
}
