//! The bulkhead alone, over a plain service.

use std::process::ExitCode;

use tower::Layer;
use tower_mesh_bench::{Layers, Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let layers = Layers::new(setup).await;
        Ok(Numbers(layers.bulkhead().layer(layers.inner())))
    })
}
