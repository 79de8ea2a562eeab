//! The layers of the mesh by hand, called with numbers, without discovery.

use std::process::ExitCode;

use tower::ServiceBuilder;
use tower_mesh_bench::{Layers, Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let layers = Layers::new(setup).await;
        let stack = ServiceBuilder::new()
            .layer(layers.deadline())
            .layer(layers.bulkhead())
            .layer(layers.retry().joined())
            .layer(layers.balance())
            .service(layers.connect());
        Ok(Numbers(stack))
    })
}
