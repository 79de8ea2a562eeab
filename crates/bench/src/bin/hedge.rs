//! Hedges alone, over a plain service that answers in time: what a call costs that could be hedged.

use std::{process::ExitCode, time::Duration};

use tower::{BoxError, Layer, Service};
use tower_mesh::core::Clock;
use tower_mesh_bench::{Layers, Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let layers = Layers::new(setup).await;
        let mut hedge = layers.hedge().layer(layers.inner());
        learn(&mut hedge).await?;
        Ok(Numbers(hedge))
    })
}

/// Until it is known how long calls take nothing is kept of them.
async fn learn(hedge: &mut impl Service<u64, Error = BoxError>) -> Result<(), BoxError> {
    for _ in 0..3 {
        for request in 0..200 {
            hedge.call(request).await?;
        }
        Clock::tokio().sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}
