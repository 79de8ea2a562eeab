//! What answers mean.

use futures_util::StreamExt;
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tower_mesh_core::Resolve;
use tower_mesh_dns::{Dns, Family, Records, Transport};

use crate::{
    scene::{chain, name},
    seen::Seen,
    server::{Reply, Server, address, alias, fqdn, srv, v4},
};

const ORDERS: &str = "orders.example";

#[tokio::test]
async fn addresses_come_with_the_port_that_was_said_and_in_no_order() {
    let server = Server::start();
    server.has(ORDERS, 5, &[v4(2), v4(1)]);
    let mut seen = Seen::addresses(server.dns());
    let told = seen.report().await.unwrap().unwrap();
    let one = ("10.0.0.1:80".to_owned(), 0, 1);
    assert_eq!(told, [one, ("10.0.0.2:80".to_owned(), 0, 1)]);
    // Turned round it is no news, one more is.
    server.has(ORDERS, 5, &[v4(1), v4(2)]);
    let before = server.asked().len();
    let turned = async {
        server.until_asked(before + 1).await;
        server.has(ORDERS, 5, &[v4(3), v4(2), v4(1)]);
    };
    let (hosts, ()) = tokio::join!(seen.hosts(), turned);
    assert_eq!(hosts, [1, 2, 3]);
}

#[tokio::test]
async fn srv_records_say_port_priority_and_weight_and_bring_their_addresses_along() {
    let server = Server::start();
    let records = vec![
        srv(ORDERS, 5, (20, 1, 8002), "b.example"),
        srv(ORDERS, 5, (10, 7, 8001), "a.example"),
        srv(ORDERS, 5, (10, 0, 8003), "a.example"),
    ];
    let additional = vec![
        address("a.example", 5, v4(1)),
        address("b.example", 5, v4(2)),
        // Of nobody that was named.
        address("c.example", 5, v4(3)),
    ];
    let reply = Reply::Records(records, additional);
    server.says(ORDERS, RecordType::SRV, reply);
    let told = Seen::srv(server.dns()).report().await.unwrap().unwrap();
    let expected = [
        ("10.0.0.1:8001".to_owned(), 0, 7),
        ("10.0.0.1:8003".to_owned(), 0, 0),
        ("10.0.0.2:8002".to_owned(), 1, 1),
    ];
    assert_eq!(told, expected);
    assert_eq!(server.asked().len(), 1, "{:?}", server.asked());
}

#[tokio::test]
async fn targets_whose_addresses_did_not_come_along_are_asked_for() {
    let server = Server::start();
    let records = vec![
        srv(ORDERS, 5, (1, 1, 80), "a.example"),
        srv(ORDERS, 5, (1, 1, 80), "b.example"),
        // One that is gone takes nobody with it; "." says that there is none.
        srv(ORDERS, 5, (1, 1, 80), "gone.example"),
        srv(ORDERS, 5, (1, 1, 80), "."),
    ];
    let additional = vec![address("a.example", 5, v4(1))];
    server.says(ORDERS, RecordType::SRV, Reply::Records(records, additional));
    server.has("b.example", 5, &[v4(2)]);
    let mut seen = Seen::srv(server.dns());
    assert_eq!(seen.hosts().await, [1, 2]);
    // One that cannot be asked for leaves all as they were.
    let broken = Reply::Fail(ResponseCode::ServFail);
    server.says("b.example", RecordType::A, broken);
    let error = seen.error().await;
    assert!(error.contains("Server Failure"), "{error}");
}

#[tokio::test]
async fn a_target_of_the_root_says_that_the_service_is_not_here() {
    let server = Server::start();
    let none = vec![srv(ORDERS, 5, (0, 0, 80), ".")];
    server.says(ORDERS, RecordType::SRV, Reply::Records(none, Vec::new()));
    // Somebody has put an address there: it is nobody's of the service, and nobody asks for it.
    server.has(".", 5, &[v4(9)]);
    let told = Seen::srv(server.dns()).report().await.unwrap();
    assert_eq!(told, Some(Vec::new()));
    let asked = server.asked();
    let kinds: Vec<_> = asked.iter().map(|(_, _, kind)| *kind).collect();
    assert_eq!(kinds, [RecordType::SRV]);
}

#[tokio::test]
async fn a_name_without_such_records_is_empty_and_a_name_that_is_none_is_absent() {
    let server = Server::start();
    let other = vec![srv(ORDERS, 5, (1, 1, 80), "a.example")];
    server.says(ORDERS, RecordType::SRV, Reply::Records(other, Vec::new()));
    let mut seen = Seen::addresses(server.dns());
    assert_eq!(seen.report().await.unwrap(), Some(Vec::new()));
    server.forgets(ORDERS);
    assert_eq!(seen.report().await.unwrap(), None);
    server.has(ORDERS, 5, &[v4(1)]);
    assert_eq!(seen.hosts().await, [1]);
}

#[tokio::test]
async fn a_record_that_disappears_is_reported_and_so_is_the_last_one() {
    let server = Server::start();
    server.has(ORDERS, 5, &[v4(1), v4(2)]);
    let mut seen = Seen::addresses(server.dns());
    assert_eq!(seen.hosts().await, [1, 2]);
    server.has(ORDERS, 5, &[v4(2)]);
    assert_eq!(seen.hosts().await, [2]);
    server.forgets(ORDERS);
    assert_eq!(seen.report().await.unwrap(), None);
}

#[tokio::test]
async fn addresses_of_ipv6_stand_in_where_there_are_none_of_ipv4() {
    let server = Server::start();
    let v6 = "fd00::1".parse().unwrap();
    let told = async |family: Family| {
        let mut seen = Seen::addresses(server.dns().family(family));
        let told = seen.report().await.unwrap().unwrap();
        let addresses = told.into_iter().map(|(address, ..)| address);
        addresses.collect::<Vec<_>>().join(" ")
    };
    server.has(ORDERS, 5, &[v6]);
    assert_eq!(told(Family::V4First).await, "[fd00::1]:80");
    assert_eq!(told(Family::V4).await, "");
    server.has(ORDERS, 5, &[v4(1), v6]);
    assert_eq!(told(Family::V4First).await, "10.0.0.1:80");
    assert_eq!(told(Family::V6).await, "[fd00::1]:80");
    assert_eq!(told(Family::Both).await, "10.0.0.1:80 [fd00::1]:80");
}

#[tokio::test]
async fn aliases_are_followed_within_an_answer_and_beyond_it_but_not_in_circles() {
    let server = Server::start();
    let within = vec![
        alias(ORDERS, 5, "b.example"),
        alias("b.example", 5, "c.example"),
        address("c.example", 5, v4(1)),
    ];
    server.says(ORDERS, RecordType::A, Reply::Records(within, Vec::new()));
    let mut seen = Seen::addresses(server.dns());
    assert_eq!(seen.hosts().await, [1]);
    let first = vec![alias(ORDERS, 5, "d.example")];
    server.says(ORDERS, RecordType::A, Reply::Records(first, Vec::new()));
    server.has("d.example", 5, &[v4(2)]);
    assert_eq!(seen.hosts().await, [2]);
    let circle = vec![alias(ORDERS, 5, ORDERS)];
    server.says(ORDERS, RecordType::A, Reply::Records(circle, Vec::new()));
    let error = seen.error().await;
    assert!(error.contains("in a circle"), "{error}");
    let target = vec![
        alias(ORDERS, 5, "e.example"),
        srv("e.example", 5, (1, 1, 80), "d.example"),
    ];
    server.says(ORDERS, RecordType::SRV, Reply::Records(target, Vec::new()));
    assert_eq!(Seen::srv(server.dns()).hosts().await, [2]);
}

#[tokio::test]
async fn an_answer_about_another_name_is_an_error_not_an_empty_one() {
    let server = Server::start();
    let other = vec![address("other.example", 5, v4(1))];
    server.says(ORDERS, RecordType::A, Reply::Records(other, Vec::new()));
    let error = Seen::addresses(server.dns()).error().await;
    assert!(error.contains("says nothing of orders.example"), "{error}");
}

#[tokio::test]
async fn what_is_no_message_is_an_error_and_what_was_known_stays() {
    let server = Server::start();
    server.has(ORDERS, 5, &[v4(1)]);
    let mut seen = Seen::addresses(server.dns().transport(Transport::Udp));
    assert_eq!(seen.hosts().await, [1]);
    server.says(ORDERS, RecordType::A, Reply::Garbage(vec![0xc0; 500]));
    let error = seen.error().await;
    assert!(error.starts_with("cannot look up orders"), "{error}");
    server.has(ORDERS, 5, &[v4(1)]);
    assert_eq!(seen.hosts().await, [1], "told anew after an error");
}

/// More than a message holds: 10 targets of 1,000 addresses.
#[tokio::test]
async fn ten_thousand_endpoints_are_taken_and_one_more_than_is_allowed_is_refused() {
    let server = Server::start();
    let target = |n: u16| format!("t{n}.example");
    let records = (0..10).map(|n| srv(ORDERS, 60, (1, 1, 80), &target(n)));
    let records = Reply::Records(records.collect(), Vec::new());
    server.says(ORDERS, RecordType::SRV, records);
    for n in 0..10 {
        let all: Vec<_> = (0..1_000).map(|i| v4(1 + n * 1_000 + i)).collect();
        server.has(&target(n), 60, &all);
    }
    assert_eq!(Seen::srv(server.dns()).hosts().await.len(), 10_000);
    let error = Seen::srv(server.dns().max_endpoints(9_999)).error().await;
    assert!(error.contains("more than the 9999"), "{error}");
    let many = (0..11).map(|n| v4(1 + n)).collect::<Vec<_>>();
    server.has(ORDERS, 60, &many);
    let error = Seen::addresses(server.dns().max_endpoints(10))
        .error()
        .await;
    assert!(error.contains("more than the 10"), "{error}");
}

#[tokio::test]
async fn a_service_may_have_records_of_its_own_and_one_without_any_is_absent() {
    let server = Server::start();
    server.has("elsewhere.test", 5, &[v4(9)]);
    let own = Records::addresses("elsewhere.test.", 443).unwrap();
    let all = Records::srv("{service}.example").unwrap();
    let dns = server
        .dns()
        .records(all)
        .service(name("orders"), own.clone());
    let told = Seen::start(dns).report().await.unwrap().unwrap();
    assert_eq!(told[0].0, "10.0.0.9:443");
    let only_billing = server.dns().service(name("billing"), own);
    assert_eq!(Seen::start(only_billing).report().await.unwrap(), None);
    let all = Records::srv("{service}.example").unwrap();
    let long = server.dns().records(all).resolve(&name(&"a".repeat(64)));
    let error = long.into_future().await.0.unwrap().unwrap_err();
    assert!(chain(&error).contains("is no name of DNS"), "{error}");
    assert!(
        server
            .asked()
            .iter()
            .all(|(_, asked, _)| *asked == fqdn("elsewhere.test").to_string())
    );
}

#[test]
fn without_a_server_there_is_nobody_to_ask() {
    assert!(Dns::new([]).is_err());
    let error = Dns::new(["10.0.0.1:0".parse().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("write 53"), "{error}");
}
