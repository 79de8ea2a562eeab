//! The load: so many calls a second, whether or not earlier ones have been answered.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use crate::{args::Args, record::Record, ways::Way};

/// Sends the same calls at the same moments both ways, and returns when all have ended.
pub(crate) async fn send(args: Args, mesh: (impl Way, &Record), round_robin: (impl Way, &Record)) {
    let mut calls = JoinSet::new();
    // One tick that comes late does not put off the next.
    let mut ticks = time::interval(Duration::from_secs(1) / args.rate);
    for id in 0..args.calls() {
        let due = ticks.tick().await;
        calls.spawn(call(id, due, mesh.0.clone(), mesh.1.clone()));
        calls.spawn(call(id, due, round_robin.0.clone(), round_robin.1.clone()));
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

/// Latency counts from when the call was due: a load that falls behind must not look like fast servers.
async fn call(id: u32, due: Instant, way: impl Way, record: Record) {
    let answer = way.fetch(format!("/orders/{id}")).await;
    record.add(answer, due.elapsed());
}
