//! tower's contract: cancelled, dropped, cloned, or over a handler that panics.

use std::time::Duration;

use http::{Request, Response};
use tower::Layer;
use tower_mesh_core::{
    Clock,
    testing::contract::{Contract, Subject, Tally},
};
use tower_mesh_http::{Body, server::ServerLayer};

fn request() -> Request<Body> {
    Request::get("/")
        .header("x-request-timeout-ms", "1000")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_server_keeps_the_contract_of_a_tower_service() {
    let (clock, hand) = Clock::manual();
    Contract::new(request, || Response::new(Body::empty()))
        .on_clock(hand)
        .ends_within(Duration::from_secs(1))
        .check(|inner| {
            let layer = ServerLayer::new().clock(clock.clone());
            let (rest, tally) = (layer.clone(), layer.clone());
            Subject::new(layer.layer(inner))
                .at_rest(move || match rest.counts().in_flight {
                    0 => Ok(()),
                    n => Err(format!("{n} requests are in flight")),
                })
                .tally(move || Tally {
                    successes: tally.counts().answered,
                    failures: tally.counts().failed,
                })
        })
        .await
        .unwrap();
}
