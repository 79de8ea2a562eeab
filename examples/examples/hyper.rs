//! I have a hyper client already. How does it become a client of a service, wherever that runs?
//!
//! `cargo run --example hyper`

// An example is a user, who spawns as users do.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;

use axum::{Router, routing::get};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_mesh::{Body, Endpoint, Instance, Mesh, ServiceName};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    print!("{}", run().await?);
    Ok(())
}

async fn run() -> Result<String, BoxError> {
    let mesh = Mesh::builder("storefront").start().await?;
    for name in ["one", "two"] {
        mesh.register(Instance::new(
            ServiceName::new("orders")?,
            server(name).await?,
        ))
        .await?;
    }

    // Before: `client.call(Request::get("http://127.0.0.1:4242/")...)`.
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let mut orders = ServiceBuilder::new()
        .layer(mesh.layer("orders")?)
        .service(client);

    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let request = Request::get("/").body(Body::empty())?;
        let response = orders.ready().await?.call(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        seen.insert(String::from_utf8_lossy(&body).into_owned());
    }
    let mut out = String::new();
    for answer in seen {
        writeln!(out, "{answer}")?;
    }
    let status = &mesh.status().services[0];
    writeln!(out, "{} calls, {} failed", status.calls, status.failed)?;
    Ok(out)
}

/// A server of the service, on a port that the system picks.
async fn server(name: &'static str) -> Result<Endpoint, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::new(listener.local_addr()?).with_id(name);
    let app = Router::new().route("/", get(move || async move { format!("server {name}") }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn both_servers_answer_and_no_call_fails() {
        let out = super::run().await.unwrap();
        assert_eq!(out, "server one\nserver two\n100 calls, 0 failed\n");
    }
}
