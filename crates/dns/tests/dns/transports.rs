//! Over UDP and over TCP.

use hickory_resolver::proto::rr::RecordType;
use tower_mesh_dns::Transport;

use crate::{
    seen::Seen,
    server::{Over, Reply, Server, address, v4},
};

const ORDERS: &str = "orders.example";

fn of(hosts: impl IntoIterator<Item = u16>) -> Reply {
    let records = hosts.into_iter().map(|host| address(ORDERS, 5, v4(host)));
    Reply::Records(records.collect(), Vec::new())
}

async fn ways(server: &Server, transport: Transport) -> (Vec<u16>, Vec<Over>) {
    let mut seen = Seen::addresses(server.dns().transport(transport));
    let hosts = seen.hosts().await;
    (
        hosts,
        server.asked().iter().map(|(over, ..)| *over).collect(),
    )
}

#[tokio::test]
async fn it_asks_over_tcp_unless_told_otherwise() {
    let server = Server::start();
    server.says(ORDERS, RecordType::A, of([1]));
    let (_, asked) = ways(&server, Transport::default()).await;
    assert_eq!(asked, [Over::Tcp]);
    let server = Server::start();
    server.says(ORDERS, RecordType::A, of([1]));
    let (_, asked) = ways(&server, Transport::Udp).await;
    assert_eq!(asked, [Over::Udp]);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let server = Server::start();
    let whole = Reply::Truncated(Box::new(of(1..=500)));
    server.says(ORDERS, RecordType::A, whole);
    let (hosts, asked) = ways(&server, Transport::Udp).await;
    assert_eq!(hosts.len(), 500);
    assert_eq!(asked, [Over::Udp, Over::Tcp]);
}

#[tokio::test]
async fn an_answer_that_is_truncated_over_tcp_too_is_an_error() {
    let server = Server::start();
    server.says(ORDERS, RecordType::A, Reply::AlwaysTruncated);
    for transport in [Transport::Udp, Transport::Tcp] {
        let error = Seen::addresses(server.dns().transport(transport))
            .error()
            .await;
        assert!(error.contains("truncated"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_with_another_id_is_not_listened_to() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let server = Server::start();
        let forged = vec![address(ORDERS, 5, v4(66))];
        let reply = Reply::Forged(forged, Box::new(of([1])));
        server.says(ORDERS, RecordType::A, reply);
        let (hosts, _) = ways(&server, transport).await;
        assert_eq!(hosts, [1], "{transport:?}");
    }
}
