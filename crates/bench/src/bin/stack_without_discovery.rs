//! The layers of the mesh by hand, over HTTP, without the wait for discovery.

use std::process::ExitCode;

use tower::ServiceBuilder;
use tower_mesh_bench::{Layers, Requests, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let layers = Layers::new(setup).await;
        let stack = ServiceBuilder::new()
            .layer(layers.deadline())
            .layer(layers.http_bulkhead())
            .layer(layers.http_retry().joined())
            .layer(layers.http_balance())
            .service(layers.connect());
        Ok(Requests(stack))
    })
}
