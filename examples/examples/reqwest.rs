//! I have a reqwest client already. How does it call a service of the mesh? And what can the mesh do for it alone?
//!
//! `cargo run --example reqwest`

// An example is a user, who spawns as users do.
#![allow(clippy::disallowed_methods)]

use std::{fmt::Write as _, num::NonZeroUsize, time::Duration};

use axum::{Router, routing::get};
use http::Request;
use http_body_util::BodyExt;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_mesh::{
    Body, Endpoint, Instance, Mesh, ServiceName,
    http::ReqwestClient,
    limit::{BulkheadLayer, DeadlineLayer},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    print!("{}", run().await?);
    Ok(())
}

async fn run() -> Result<String, BoxError> {
    let mesh = Mesh::builder("storefront").start().await?;
    let mut addresses = Vec::new();
    for name in ["one", "two"] {
        let endpoint = server(name).await?;
        addresses.push(endpoint.address());
        let orders = ServiceName::new("orders")?;
        mesh.register(Instance::new(orders, endpoint)).await?;
    }
    // One that nothing listens at: it costs no call.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let gone = Endpoint::new(gone.local_addr()?);
    let orders = ServiceName::new("orders")?;
    mesh.register(Instance::new(orders, gone)).await?;

    // Before: `client.get("http://127.0.0.1:4242/").send()`. Redirects and proxies are not for calls to endpoints.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let mut orders = ServiceBuilder::new()
        .layer(mesh.layer("orders")?)
        .service(ReqwestClient::new(client.clone()));

    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let request = Request::get("/").body(Body::empty())?;
        let response = orders.ready().await?.call(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        seen.insert(String::from_utf8_lossy(&body).into_owned());
    }
    for _ in 0..50 {
        // A request that reqwest has built, with its headers and its body.
        let request = client.post("http://orders/").body("a book").build()?;
        let request = Request::<reqwest::Body>::try_from(request)?.map(Body::new);
        let response = orders.ready().await?.call(request).await?;
        // And a response as reqwest has them.
        let (head, body) = response.into_parts();
        let body = reqwest::Body::from(body.collect().await?.to_bytes());
        let response = reqwest::Response::from(http::Response::from_parts(head, body));
        seen.insert(format!(
            "a {} {}",
            response.status(),
            response.text().await?
        ));
    }
    let mut out = String::new();
    for answer in seen {
        writeln!(out, "{answer}")?;
    }
    let status = &mesh.status().services[0];
    writeln!(out, "{} calls, {} failed", status.calls, status.failed)?;

    // reqwest alone, with layers of the mesh round its connections: it sees connects only, so limits fit.
    let client = reqwest::Client::builder()
        .no_proxy()
        .connector_layer(DeadlineLayer::new(Duration::from_secs(1)))
        .connector_layer(BulkheadLayer::new(NonZeroUsize::MIN))
        .build()?;
    let answer = client.get(format!("http://{}/", addresses[0]));
    writeln!(out, "alone: {}", answer.send().await?.text().await?)?;
    Ok(out)
}

/// A server of the service, on a port that the system picks.
async fn server(name: &'static str) -> Result<Endpoint, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::new(listener.local_addr()?).with_id(name);
    let app = Router::new().route(
        "/",
        get(move || async move { format!("server {name}") }).post(async |body: String| body),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn both_servers_answer_what_reqwest_asks_and_no_call_fails() {
        let out = super::run().await.unwrap();
        assert_eq!(
            out,
            "a 200 OK a book\nserver one\nserver two\n100 calls, 0 failed\nalone: server one\n"
        );
    }
}
