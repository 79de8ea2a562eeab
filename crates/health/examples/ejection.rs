//! How an endpoint that fails is left alone, and for how long: `cargo run -p tower-mesh-health --example ejection`.
//!
//! Ten endpoints, calls in turn, an hour on a clock that is moved by hand. Three of them are dead for a while.

use std::{collections::BTreeSet, future::Future, pin::pin, task::Context, time::Duration};

use tower_mesh_core::{
    Clock, Endpoint, Endpoints, Finish, NewLayer, Outcome, Sampling, ServiceName,
};
use tower_mesh_health::OutlierLayer;

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (clock, time) = Clock::manual();
    let all: Vec<_> = (1..=10)
        .map(|port| Endpoint::new(([10, 0, 0, 7], port).into()))
        .collect();
    let endpoints = Endpoints::fixed(ServiceName::new("orders")?, all.clone());
    let (layer, driver) = OutlierLayer::builder(&endpoints)
        .clock(clock.clone())
        .build();
    for endpoint in &all {
        layer.layer_for(endpoint);
    }
    // A program spawns it.
    let mut driver = pin!(driver);
    let mut cx = Context::from_waker(std::task::Waker::noop());

    let (mut failed, mut was_out) = (0, BTreeSet::new());
    println!("three of ten are dead from 60 s to 600 s\n\n  time  what happens");
    for now in 0..3_600 {
        assert!(driver.as_mut().poll(&mut cx).is_pending());
        let snapshot = layer.handle().snapshot();
        let out: BTreeSet<_> = snapshot.ejected.iter().map(|e| e.id.clone()).collect();
        for ejection in snapshot.ejected.iter().filter(|e| !was_out.contains(&e.id)) {
            let lasts = ejection.until.since(ejection.since);
            let (id, times, reason) = (&ejection.id, ejection.times, ejection.reason);
            println!("{now:4} s  {id} ejected for {lasts:.0?}, {times} in a row: {reason}");
        }
        for id in was_out.difference(&out) {
            println!("{now:4} s  {id} is back");
        }
        was_out = out;
        for (index, endpoint) in all.iter().enumerate() {
            let is_dead = index < 3 && (60..600).contains(&now);
            let Ok(mut attempt) = endpoint.vitals().attempt(&clock, Sampling::Mean) else {
                continue; // A balancer goes elsewhere.
            };
            failed += u32::from(is_dead);
            attempt.finish(match is_dead {
                true => Outcome::failure(),
                false => Outcome::success(),
            });
        }
        time.advance(SECOND);
    }
    println!("\n{failed} calls failed; without ejection 1620 would have");
    Ok(())
}
