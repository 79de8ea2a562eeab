//! How often it asks.

use std::time::Duration;

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use crate::{
    seen::Seen,
    server::{Reply, Server, address, alias, soa, srv, v4},
};

const ORDERS: &str = "orders.example";

/// How long it waits after an answer like `reply`, which is of this type.
async fn pause(kind: RecordType, reply: Reply) -> Duration {
    let server = Server::start();
    server.says(ORDERS, kind, reply);
    let mut seen = match kind {
        RecordType::SRV => Seen::srv(server.dns()),
        _ => Seen::addresses(server.dns()),
    };
    seen.report().await.unwrap();
    server.has(ORDERS, 5, &[v4(99)]);
    let target = vec![srv(ORDERS, 5, (1, 1, 80), "z.example")];
    server.says(ORDERS, RecordType::SRV, Reply::Records(target, Vec::new()));
    server.has("z.example", 5, &[v4(99)]);
    seen.report().await.unwrap();
    seen.pauses[0]
}

fn within_the_last_fifth(pause: Duration, seconds: u64) {
    let holds = Duration::from_secs(seconds);
    assert!(
        pause >= holds * 4 / 5 && pause <= holds,
        "{pause:?} of {holds:?}"
    );
}

fn holds(ttl: u32) -> Reply {
    Reply::Records(vec![address(ORDERS, ttl, v4(1))], Vec::new())
}

#[tokio::test]
async fn an_answer_is_asked_for_anew_before_it_is_over() {
    within_the_last_fifth(pause(RecordType::A, holds(30)).await, 30);
}

#[tokio::test]
async fn a_ttl_of_zero_is_taken_for_the_least_and_one_of_thirty_years_for_the_most() {
    within_the_last_fifth(pause(RecordType::A, holds(0)).await, 5);
    within_the_last_fifth(pause(RecordType::A, holds(1_000_000_000)).await, 60);
    // RFC 2181: it would be negative.
    within_the_last_fifth(pause(RecordType::A, holds(u32::MAX)).await, 5);
}

#[tokio::test]
async fn the_shortest_of_all_records_counts() {
    let aliased = vec![
        alias(ORDERS, 20, "a.example"),
        address("a.example", 50, v4(1)),
        address("a.example", 40, v4(2)),
    ];
    let pause_of =
        async |kind, answers, additional| pause(kind, Reply::Records(answers, additional)).await;
    within_the_last_fifth(pause_of(RecordType::A, aliased, Vec::new()).await, 20);
    let targets = vec![srv(ORDERS, 50, (1, 1, 80), "a.example")];
    let along = vec![address("a.example", 10, v4(1))];
    within_the_last_fifth(pause_of(RecordType::SRV, targets, along).await, 10);
}

#[tokio::test]
async fn that_nothing_is_there_holds_as_long_as_the_zone_says() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let nothing = |soa| Reply::Nothing(code, soa);
        within_the_last_fifth(pause(RecordType::SRV, nothing(Some(soa(50, 30)))).await, 30);
        within_the_last_fifth(pause(RecordType::SRV, nothing(Some(soa(20, 30)))).await, 20);
        within_the_last_fifth(pause(RecordType::SRV, nothing(None)).await, 5);
    }
}

#[tokio::test]
async fn after_errors_it_waits_longer_each_time_and_an_answer_ends_that() {
    let server = Server::start();
    let failing = || Reply::Fail(ResponseCode::ServFail);
    server.says(ORDERS, RecordType::A, failing());
    let mut seen = Seen::addresses(server.dns());
    for _ in 0..12 {
        seen.error().await;
    }
    let most = |n: u32| Duration::from_millis(250 << n).min(Duration::from_secs(10));
    for (n, pause) in (0..).zip(&seen.pauses) {
        assert!(*pause >= most(n) / 2 && *pause <= most(n), "{n}: {pause:?}");
    }
    server.has(ORDERS, 5, &[v4(1)]);
    assert_eq!(seen.hosts().await, [1]);
    server.says(ORDERS, RecordType::A, failing());
    seen.error().await;
    seen.error().await;
    assert!(*seen.pauses.last().unwrap() <= most(0));
}

#[tokio::test]
async fn the_least_and_the_most_can_be_said() {
    let server = Server::start();
    let (least, most) = (Duration::from_millis(100), Duration::from_millis(200));
    server.has(ORDERS, 0, &[v4(1)]);
    let mut seen = Seen::addresses(server.dns().min_ttl(least).max_ttl(most));
    seen.hosts().await;
    server.has(ORDERS, 30, &[v4(2)]);
    seen.hosts().await;
    server.has(ORDERS, 30, &[v4(3)]);
    seen.hosts().await;
    assert!(seen.pauses[0] <= least && seen.pauses[1] <= most && seen.pauses[1] > least);
}
