//! What is left when nobody follows any more.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{StreamExt, future::join_all};
use hickory_resolver::proto::rr::RecordType;
use tower_mesh_core::{Clock, Resolve};
use tower_mesh_dns::Records;

use crate::{
    scene::name,
    server::{Reply, Server, v4},
};

/// Waits until no connection is open, and fails rather than wait for ever.
async fn closed(server: &Server) {
    for _ in 0..6_000 {
        if server.state.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        Clock::tokio().sleep(Duration::from_millis(10)).await;
    }
    panic!("a connection was left open");
}

#[tokio::test]
async fn it_spawns_nothing_and_keeps_no_connection() {
    let server = Server::start();
    server.has("orders.example", 60, &[v4(1)]);
    let records = Records::addresses("{service}.example", 80).unwrap();
    let dns = server.dns().records(records);
    let mut updates = dns.resolve(&name("orders"));
    assert!(updates.next().await.unwrap().is_ok());
    let alive = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert_eq!(alive, 0, "the server's are on its own thread");
    closed(&server).await;
}

#[tokio::test]
async fn who_lets_go_of_a_question_closes_its_connection() {
    let server = Server::start();
    server.says("orders.example", RecordType::A, Reply::Silence);
    let records = Records::addresses("{service}.example", 80).unwrap();
    let dns = server.dns().records(records);
    // Two with the same question, of whom the first goes.
    let (mut one, mut two) = (dns.resolve(&name("orders")), dns.resolve(&name("orders")));
    tokio::select! {
        biased;
        _ = one.next() => panic!("nobody answers"),
        _ = two.next() => panic!("nobody answers"),
        () = server.until_asked(1) => {}
    }
    assert!(server.state.open.load(Ordering::SeqCst) >= 1);
    drop(one);
    server.has("orders.example", 60, &[v4(1)]);
    drop(two);
    closed(&server).await;
    let mut again = dns.resolve(&name("orders"));
    assert!(again.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_thousand_services_are_asked_for_a_few_at_a_time() {
    let server = Server::start();
    let records = Records::addresses("{service}.example", 80).unwrap();
    let dns = server.dns().records(records);
    let services: Vec<_> = (0..1_000).map(|n| name(&format!("s{n}"))).collect();
    for service in &services {
        server.has(&format!("{service}.example"), 60, &[v4(1)]);
    }
    let all = services.iter().map(|service| {
        let mut updates = dns.resolve(service);
        async move { updates.next().await.unwrap().is_ok() }
    });
    assert!(join_all(all).await.into_iter().all(|ok| ok));
    let most = server.state.most_open.load(Ordering::SeqCst);
    // Those that have just been closed may still count.
    assert!(most <= 128, "{most} at a time");
}
