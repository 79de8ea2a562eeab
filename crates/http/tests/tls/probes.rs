//! Probes of endpoints that are called over TLS.

use http::uri::PathAndQuery;
use tower_mesh_core::Endpoint;
use tower_mesh_http::{GrpcProbe, HttpEndpoints, HttpProbe, ProbeError, Protocol, Tls};

use crate::{
    endpoints,
    support::{Authority, Server},
};

fn trusting(ca: &Authority) -> HttpEndpoints {
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    endpoints().tls(&tls, "orders").unwrap()
}

fn http(like: &HttpEndpoints) -> HttpProbe {
    HttpProbe::new(PathAndQuery::from_static("/healthz")).over(like)
}

/// What both say.
async fn asked(like: &HttpEndpoints, endpoint: &Endpoint) -> [Result<(), ProbeError>; 2] {
    let grpc = GrpcProbe::new().over(like);
    [http(like).check(endpoint).await, grpc.check(endpoint).await]
}

#[tokio::test]
async fn probes_go_over_the_tls_of_calls_whatever_those_speak() {
    let ca = Authority::new();
    let server = Server::start(ca.server("orders")).await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Negotiated] {
        let orders = trusting(&ca).protocol(protocol);
        for answer in asked(&orders, &server.endpoint).await {
            answer.unwrap();
        }
    }
    assert_eq!(server.requests(), 6);
    // Its port is another one's, and whoever is there has to prove the same.
    let port = server.endpoint.address().port();
    let elsewhere = Endpoint::new(([127, 0, 0, 1], 1).into());
    let probe = http(&trusting(&ca)).port(port);
    probe.check(&elsewhere).await.unwrap();
    let probe = GrpcProbe::new().over(&trusting(&ca)).port(port);
    probe.check(&elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_probe_shows_the_clients_certificate_to_who_asks() {
    let ca = Authority::new();
    let server = Server::start(ca.server_asking("orders")).await;
    for answer in asked(&trusting(&ca), &server.endpoint).await {
        assert!(!answer.unwrap_err().is_definite());
    }
    let (chain, key) = ca.client("storefront");
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let tls = tls.client_certificate(chain.as_bytes(), key.as_bytes());
    let storefront = endpoints().tls(&tls.unwrap(), "orders").unwrap();
    for answer in asked(&storefront, &server.endpoint).await {
        answer.unwrap();
    }
    let shown = format!("{:?}", http(&storefront));
    assert!(
        shown.contains("orders") && !shown.contains("PRIVATE"),
        "{shown}"
    );
}

// row 35
#[tokio::test]
async fn who_does_not_prove_the_name_or_speaks_no_tls_is_not_well_and_is_asked_nothing() {
    let ca = Authority::new();
    let (users, expired) = (ca.server("users"), ca.expired("orders"));
    let others = Authority::called("anybody").server("orders");
    for (server, says) in [
        (Server::start(users).await, "not valid for name \"orders\""),
        (Server::start(expired).await, "expired"),
        (Server::start(others).await, "UnknownIssuer"),
        (Server::plain().await, "no TLS with orders"),
    ] {
        for answer in asked(&trusting(&ca), &server.endpoint).await {
            let error = answer.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            // It has said nothing of itself.
            assert!(!error.is_definite(), "{error}");
        }
        assert_eq!(server.requests(), 0, "{says}");
    }
}
