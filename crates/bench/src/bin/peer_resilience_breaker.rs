//! tower-resilience: a breaker.

use std::process::ExitCode;

use tower::Layer;
use tower_mesh_bench::{Numbers, main as case};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

fn main() -> ExitCode {
    case(async |setup| {
        let layer = CircuitBreakerLayer::builder().build()?;
        Ok(Numbers(layer.layer(setup.inner)))
    })
}
