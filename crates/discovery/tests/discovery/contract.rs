//! The contract of every service, for the layer: when the answer is there, and when it comes while the call waits.

use futures_util::{StreamExt, stream};
use tower::Layer;
use tower_mesh_core::{
    Clock, Empties, Resolve, ServiceName, Update, Updates,
    testing::contract::{Contract, Subject},
};
use tower_mesh_discovery::{Discovery, MemoryRegistry};

use crate::script::{endpoint, orders, secs, start};

#[tokio::test(start_paused = true)]
async fn a_service_that_is_found_keeps_the_contract() {
    let registry = MemoryRegistry::new();
    registry.set(&orders(), [endpoint(1)]);
    let discovery = start(Discovery::builder(registry));
    let layer = discovery.layer(&orders());
    layer.endpoints().resolved().await;
    Contract::new(|| "request", || "response")
        .check(|inner| Subject::new(layer.layer(inner)))
        .await
        .expect("it keeps the contract");
}

/// Answers after a second.
struct Slow;

impl Resolve for Slow {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let answer = async {
            Clock::tokio().sleep(secs(1)).await;
            Ok(Update::Replace(vec![endpoint(1)]))
        };
        Box::pin(stream::once(answer).chain(stream::pending()))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "slow"
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_found_while_the_call_waits_keeps_the_contract() {
    Contract::new(|| "request", || "response")
        .check(|inner| {
            let discovery = start(Discovery::builder(Slow));
            Subject::new(discovery.layer(&orders()).layer(inner))
        })
        .await
        .expect("it keeps the contract");
}
