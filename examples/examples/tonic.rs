//! How does a generated tonic client call a service of the mesh? It takes `mesh.grpc(..)` where it took a `Channel`.
//!
//! `cargo run --example tonic`

// An example is a user, who spawns as users do.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::BoxError;
use tower_mesh::{Endpoint, Instance, Mesh, ServiceName};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    print!("{}", run().await?);
    Ok(())
}

async fn run() -> Result<String, BoxError> {
    let mesh = Mesh::builder("storefront").start().await?;
    for _ in 0..2 {
        let instance = Instance::new(ServiceName::new("orders")?, server().await?);
        mesh.register(instance).await?;
    }
    // One that nothing listens at: it costs no call.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await?
        .local_addr()?;
    mesh.register(Instance::new(
        ServiceName::new("orders")?,
        Endpoint::new(gone),
    ))
    .await?;

    // Any generated client; this one comes with tonic.
    let mut orders = HealthClient::new(mesh.grpc("orders")?);
    let mut out = String::new();
    let mut serving = 0;
    for _ in 0..100 {
        let request = HealthCheckRequest {
            service: "orders".to_owned(),
        };
        let answer = orders.check(request).await?.into_inner();
        serving += u32::from(answer.status().as_str_name() == "SERVING");
    }
    writeln!(out, "{serving} of 100 calls answered: serving")?;

    // What the mesh refuses is a status.
    let mut unknown = HealthClient::new(mesh.grpc("nobody")?);
    if let Err(status) = unknown.check(HealthCheckRequest::default()).await {
        writeln!(out, "nobody: {:?}", status.code())?;
    }
    Ok(out)
}

/// A real tonic server, on a port that the system picks.
async fn server() -> Result<Endpoint, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::new(listener.local_addr()?);
    let (health, service) = tonic_health::server::health_reporter();
    health
        .set_service_status("orders", tonic_health::ServingStatus::Serving)
        .await;
    let serve = Server::builder().add_service(service);
    tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn calls_are_answered_and_refusals_are_statuses() {
        let out = super::run().await.unwrap();
        let expected = "100 of 100 calls answered: serving\nnobody: Unavailable\n";
        assert_eq!(out, expected);
    }
}
