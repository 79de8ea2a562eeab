//! Endpoints over TLS: who has to prove what, and that nothing goes through in plain.

// Tests may spawn and unwrap, their helpers too.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod probes;
mod support;

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_mesh_core::{
    BoxError, Class, Classify, Endpoint, Kind, NewService, Refusal, Sent, Verdict,
};
use tower_mesh_http::{Body, HttpClassify, HttpEndpoints, Protocol, Tls, TlsError, TransportError};

use support::{Authority, Server};

fn endpoints() -> HttpEndpoints {
    HttpEndpoints::new(|task| drop(tokio::spawn(task)))
}

fn post() -> Request<Body> {
    Request::post("/").body("payload".into()).unwrap()
}

async fn call(
    endpoints: &HttpEndpoints,
    endpoint: &Endpoint,
) -> Result<(Version, String), BoxError> {
    let response = endpoints.new_service(endpoint).oneshot(post()).await?;
    let version = response.version();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((version, String::from_utf8_lossy(&body).into_owned()))
}

/// Not connected, so not sent, and a failure of the endpoint; what rustls says is in the chain of the cause.
fn told(error: &BoxError) -> rustls::Error {
    let refusal = Refusal::of(&**error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::Connect, Sent::Never)
    );
    let verdict = HttpClassify::new().classify(Err::<&Response<Body>, _>(&**error));
    let Verdict::Done(outcome) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(outcome.class(), Class::Failure);
    let cause = error.downcast_ref::<TransportError>().unwrap().cause();
    let mut chain = std::iter::successors(Some(cause as &dyn std::error::Error), |e| e.source());
    let tls = chain
        .find_map(|error| error.downcast_ref::<TlsError>())
        .unwrap();
    assert_eq!(tls.name(), "orders");
    let told = std::error::Error::source(tls).unwrap();
    told.downcast_ref::<rustls::Error>().unwrap().clone()
}

#[tokio::test]
async fn an_endpoint_proves_the_services_name_whatever_its_address_and_alpn_chooses_the_protocol() {
    let ca = Authority::new();
    let server = Server::start(ca.server("orders")).await;
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    for (protocol, version) in [
        (Protocol::Http1, Version::HTTP_11),
        (Protocol::Http2, Version::HTTP_2),
        (Protocol::Negotiated, Version::HTTP_2),
    ] {
        let orders = endpoints().protocol(protocol).tls(&tls, "orders").unwrap();
        let (spoken, told) = call(&orders, &server.endpoint).await.unwrap();
        assert_eq!(spoken, version, "{protocol:?}");
        let named = format!(
            "sni orders, host orders:{}",
            server.endpoint.address().port()
        );
        assert_eq!(told, named, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_only_http1_is_spoken_to_in_http1() {
    let ca = Authority::new();
    let mut config = ca.server("orders");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Server::start(config).await;
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let orders = endpoints()
        .protocol(Protocol::Negotiated)
        .tls(&tls, "orders")
        .unwrap();
    assert_eq!(
        call(&orders, &server.endpoint).await.unwrap().0,
        Version::HTTP_11
    );
    // Who insists on HTTP/2 gets no connection, rather than something else.
    let orders = orders.protocol(Protocol::Http2);
    let error = call(&orders, &server.endpoint).await.unwrap_err();
    let alert = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(told(&error), rustls::Error::AlertReceived(alert));
}

// row 35
#[tokio::test]
async fn another_name_an_expired_certificate_and_an_unknown_authority_are_each_an_error() {
    use rustls::CertificateError::{ExpiredContext, NotValidForNameContext, UnknownIssuer};
    let ca = Authority::new();
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let orders = endpoints().tls(&tls, "orders").unwrap();
    let of = async |config| {
        let server = Server::start(config).await;
        let error = call(&orders, &server.endpoint).await.unwrap_err();
        assert_eq!(server.requests(), 0, "nothing was sent");
        let rustls::Error::InvalidCertificate(why) = told(&error) else {
            panic!("{error:?}");
        };
        (why, error.to_string())
    };
    let (why, message) = of(ca.server("users")).await;
    assert!(matches!(why, NotValidForNameContext { .. }), "{why:?}");
    assert!(
        message.contains("not valid for name \"orders\""),
        "{message}"
    );
    // Not even the address of the endpoint is a name that counts.
    let (why, _) = of(ca.server("127.0.0.1")).await;
    assert!(matches!(why, NotValidForNameContext { .. }), "{why:?}");
    let (why, message) = of(ca.expired("orders")).await;
    assert!(matches!(why, ExpiredContext { .. }), "{why:?}");
    assert!(message.contains("expired"), "{message}");
    let (why, _) = of(Authority::called("anybody").server("orders")).await;
    assert_eq!(why, UnknownIssuer);
}

// row 35
#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_no_request() {
    let plain = Server::plain().await;
    let ca = Authority::new();
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let orders = endpoints().tls(&tls, "orders").unwrap();
    let error = call(&orders, &plain.endpoint).await.unwrap_err();
    assert!(matches!(told(&error), rustls::Error::InvalidMessage(_)));
    assert_eq!(plain.requests(), 0);
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up_within_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(silent.local_addr().unwrap());
    let ca = Authority::new();
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let orders = endpoints()
        .connect_timeout(std::time::Duration::from_millis(50))
        .tls(&tls, "orders")
        .unwrap();
    let error = call(&orders, &endpoint).await.unwrap_err();
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::Connect, Sent::Never)
    );
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_and_one_that_is_missing_is_an_error() {
    let ca = Authority::new();
    let server = Server::start(ca.server_asking("orders")).await;
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let nobody = endpoints().tls(&tls, "orders").unwrap();
    let error = call(&nobody, &server.endpoint).await.unwrap_err();
    assert_eq!(server.requests(), 0);
    assert!(error.to_string().contains("CertificateRequired"), "{error}");

    let (chain, key) = ca.client("storefront");
    let tls = tls
        .client_certificate(chain.as_bytes(), key.as_bytes())
        .unwrap();
    let storefront = endpoints().tls(&tls, "orders").unwrap();
    call(&storefront, &server.endpoint).await.unwrap();
    let shown = format!("{tls:?} {storefront:?}");
    assert!(shown.contains("client_certificate: true"), "{shown}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn what_is_no_certificate_no_key_or_no_name_is_refused_before_anything_is_called() {
    let ca = Authority::new();
    let tls = Tls::trusting(ca.pem().as_bytes()).unwrap();
    let (chain, _) = ca.client("storefront");
    let (_, others_key) = ca.client("somebody");
    for refused in [
        Tls::trusting(b"").unwrap_err(),
        Tls::trusting(b"no PEM").unwrap_err(),
        Tls::trusting(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap_err(),
        tls.clone()
            .client_certificate(chain.as_bytes(), b"none")
            .unwrap_err(),
        tls.clone()
            .client_certificate(b"", others_key.as_bytes())
            .unwrap_err(),
        tls.clone()
            .client_certificate(chain.as_bytes(), others_key.as_bytes())
            .unwrap_err(),
        endpoints().tls(&tls, "10.0.0.7").unwrap_err(),
        endpoints().tls(&tls, "").unwrap_err(),
    ] {
        assert!(!refused.to_string().contains("PRIVATE"), "{refused}");
    }
}
