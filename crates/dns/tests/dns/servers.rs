//! Servers that cannot answer, and those beside them.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tower_mesh_core::{Clock, ManualClock, Resolve, Updates};
use tower_mesh_dns::{Dns, Records, Transport};

use crate::{
    agent::free_ports,
    scene::{chain, name},
    seen::Seen,
    server::{Reply, Server, v4},
};

const ORDERS: &str = "orders.example";

#[tokio::test]
async fn a_server_that_fails_is_an_error_that_names_it_and_what_was_known_stays() {
    let server = Server::start();
    server.has(ORDERS, 5, &[v4(1)]);
    let mut seen = Seen::addresses(server.dns());
    assert_eq!(seen.hosts().await, [1]);
    for (code, word) in [
        (ResponseCode::ServFail, "Server Failure"),
        (ResponseCode::Refused, "Refused"),
    ] {
        server.says(ORDERS, RecordType::A, Reply::Fail(code));
        let error = seen.error().await;
        for word in [word, "cannot look up orders", &server.address.to_string()] {
            assert!(error.contains(word), "{error}");
        }
    }
}

#[tokio::test]
async fn where_nobody_listens_the_error_says_where_and_over_what() {
    let [port] = free_ports();
    let dns = Dns::new([([127, 0, 0, 1], port).into()]).unwrap();
    let error = Seen::addresses(dns).error().await;
    let place = format!("127.0.0.1:{port} has not answered over TCP");
    assert!(error.contains(&place), "{error}");
}

#[tokio::test]
async fn another_server_answers_for_one_that_cannot_and_is_asked_first_from_then_on() {
    let (bad, good) = (Server::start(), Server::start());
    bad.says(ORDERS, RecordType::A, Reply::Fail(ResponseCode::ServFail));
    good.has(ORDERS, 5, &[v4(1)]);
    let mut seen = Seen::addresses(Dns::new([bad.address, good.address]).unwrap());
    assert_eq!(seen.hosts().await, [1]);
    good.has(ORDERS, 5, &[v4(2)]);
    assert_eq!(seen.hosts().await, [2]);
    assert_eq!(bad.asked().len(), 1);
    good.says(ORDERS, RecordType::A, Reply::Close);
    let error = seen.error().await;
    for server in [bad, good] {
        assert!(error.contains(&server.address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn of_many_servers_three_are_asked_and_the_next_time_others() {
    let bad: Vec<_> = (0..4).map(|_| Server::start()).collect();
    for server in &bad {
        server.says(ORDERS, RecordType::A, Reply::Fail(ResponseCode::Refused));
    }
    let mut seen = Seen::addresses(Dns::new(bad.iter().map(|s| s.address)).unwrap());
    seen.error().await;
    let asked = || bad.iter().map(|s| s.asked().len()).collect::<Vec<_>>();
    assert_eq!(asked(), [1, 1, 1, 0]);
    bad[3].has(ORDERS, 5, &[v4(1)]);
    assert_eq!(seen.hosts().await, [1]);
    assert_eq!(asked(), [1, 1, 1, 1]);
}

/// A clock that is moved by hand, and one question of `dns`.
fn by_hand(dns: Dns) -> (Updates, ManualClock) {
    let (clock, manual) = Clock::manual();
    let records = Records::addresses("{service}.example", 80).unwrap();
    let updates = dns.clock(clock).records(records).resolve(&name("orders"));
    (updates, manual)
}

/// Follows until the server was asked.
async fn until_asked(updates: &mut Updates, server: &Server) {
    tokio::select! {
        biased;
        _ = updates.next() => panic!("it has the rest of its time"),
        () = server.until_asked(1) => {}
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_when_its_time_is_over() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let server = Server::start();
        server.says(ORDERS, RecordType::A, Reply::Silence);
        let (mut updates, manual) = by_hand(server.dns().transport(transport));
        until_asked(&mut updates, &server).await;
        manual.advance(Duration::from_millis(4_999));
        assert!(updates.next().now_or_never().is_none());
        manual.advance(Duration::from_millis(1));
        let error = updates.next().await.unwrap().unwrap_err();
        let error = chain(&error);
        let place = format!("{} has not answered over {transport} in 5s", server.address);
        assert!(error.contains(&place), "{error}");
    }
}

#[tokio::test]
async fn servers_share_the_time_of_a_question() {
    let (silent, good) = (Server::start(), Server::start());
    silent.says(ORDERS, RecordType::A, Reply::Silence);
    good.has(ORDERS, 5, &[v4(1)]);
    let dns = Dns::new([silent.address, good.address]).unwrap();
    // So long that no real time ends it.
    let hour = Duration::from_secs(3_600);
    let (mut updates, manual) = by_hand(dns.time_limit(hour));
    until_asked(&mut updates, &silent).await;
    manual.advance(hour / 2);
    let next = tokio::time::timeout(Duration::from_secs(30), updates.next());
    assert!(next.await.expect("an answer").unwrap().is_ok());
}
