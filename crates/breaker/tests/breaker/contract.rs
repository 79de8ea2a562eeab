//! Tower's contract, by the suite that every service of the mesh has to pass.

use std::{num::NonZeroU32, time::Duration};

use tower::Layer;
use tower_mesh_breaker::{BreakerLayer, Window};
use tower_mesh_core::{
    Clock,
    testing::contract::{Contract, Subject, Tally},
};

use crate::after;

/// Counts everything and never opens: the suite wants to be served after each failure.
fn counting() -> tower_mesh_breaker::Policy {
    after(0)
        .failure_rate(tower_mesh_core::Ratio::ONE)
        .min_calls(NonZeroU32::MAX)
        .window(Window::over(Duration::from_secs(24 * 3_600)))
}

// invariants I2, I9, I10
#[tokio::test(start_paused = true)]
async fn a_breaker_keeps_towers_contract_and_counts_each_call_once() {
    let (clock, time) = Clock::manual();
    Contract::new(|| "request", || "response")
        .on_clock(time)
        .check(|inner| {
            let layer = BreakerLayer::new(counting()).clock(clock.clone());
            let (at_rest, counted) = (layer.handle().clone(), layer.handle().clone());
            Subject::new(layer.layer(inner))
                .at_rest(move || match at_rest.snapshot().probes_out {
                    0 => Ok(()),
                    out => Err(format!("{out} probes are out")),
                })
                .tally(move || {
                    let tally = counted.snapshot().failures.expect("there is a rule");
                    Tally {
                        successes: (tally.calls - tally.against).into(),
                        failures: tally.against.into(),
                    }
                })
        })
        .await
        .expect("it keeps the contract");
}
