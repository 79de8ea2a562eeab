//! The leader of three servers dies.

use std::time::Duration;

use futures_util::StreamExt;
use tower_mesh_consul::Consul;
use tower_mesh_core::{
    Clock, Key, KeyValue, Register, Resolve, Update, Updates, kv::KeyValueErrorKind,
};

use crate::{
    scene::{instance, orders, pass},
    servers::{cluster, leader},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn when_the_leader_dies_those_who_follow_a_service_hear_no_error() {
    let mut servers = cluster().await;
    let dying = leader(&servers).await;
    let mut survivors = servers.iter().enumerate().filter(|(n, _)| *n != dying);
    let [one, other] = [(); 2].map(|()| survivors.next().unwrap().1.http);
    let consul = Consul::new(&format!("127.0.0.1:{one},127.0.0.1:{other}")).unwrap();
    let _before = consul.register(instance(1)).await.unwrap();
    let mut updates = consul.resolve(&orders());
    until(&mut updates, 1).await;

    servers[dying].stop();
    let died = Clock::tokio().now();
    let key = Key::new("a").unwrap();
    let mut failures = 0;
    let elected = async {
        // A write needs a leader.
        while let Err(error) = consul.put(&key, "1".into()).await {
            assert_eq!(error.kind(), KeyValueErrorKind::Unavailable, "{error}");
            failures += 1;
            pass(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = elected => {}
        heard = updates.next() => panic!("nothing has changed, but it reports {heard:?}"),
    }
    println!("written again after {:?}", Clock::tokio().now().since(died));
    assert!(failures > 0, "there was no time without a leader");

    // The same stream goes on.
    let _after = consul.register(instance(2)).await.unwrap();
    until(&mut updates, 2).await;
}

/// Waits for so many endpoints. A server may be a moment behind the leader, but never says an error.
async fn until(updates: &mut Updates, endpoints: usize) {
    loop {
        match updates.next().await.unwrap() {
            Ok(Update::Replace(all)) if all.len() == endpoints => return,
            Ok(_) => {}
            Err(error) => panic!("an election is no error: {error:?}"),
        }
    }
}
