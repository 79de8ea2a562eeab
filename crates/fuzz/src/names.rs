//! Names and addresses that somebody else has chosen.

use std::{net::IpAddr, str};

use http::{Request, Uri};
use tower::{Layer, Service};
use tower_mesh_core::{Endpoint, Key, ServiceName};
use tower_mesh_http::{AddressLayer, Body};

/// Names of services and keys of a store: one that is taken steers no URL that it stands in.
pub fn name(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match ServiceName::new(text) {
        Ok(name) => {
            let url: Uri = format!("http://{name}/path")
                .parse()
                .expect("a name is a host");
            assert_eq!(url.host(), Some(text));
            assert_eq!((url.port(), url.path(), url.query()), (None, "/path", None));
            let url: Uri = format!("/v1/health/service/{name}")
                .parse()
                .expect("a name is a segment");
            assert_eq!(url.path().rsplit('/').next(), Some(text));
        }
        Err(error) => assert!(error.to_string().len() < 1_000, "bounded, whatever came"),
    }
    match Key::new(text) {
        Ok(key) => {
            let url: Uri = format!("/v1/kv/{key}").parse().expect("a key is a path");
            assert_eq!(
                (url.path(), url.query()),
                (&*format!("/v1/kv/{text}"), None)
            );
            assert!(
                key.segments()
                    .all(|segment| !matches!(segment, "" | "." | ".."))
            );
        }
        Err(error) => assert!(error.to_string().len() < 1_000, "bounded, whatever came"),
    }
}

/// The URL of a request, as text: it goes to the endpoint that was picked, wherever it says, and asks it for the same.
pub fn address(input: &[u8]) {
    let Ok(uri) = Uri::try_from(input) else {
        return;
    };
    let endpoint = Endpoint::new(([10, 0, 0, 7], 8080).into());
    let mut sent = None;
    let client = tower::service_fn(|request: Request<Body>| {
        sent = Some(request.uri().clone());
        std::future::ready(Ok::<_, tower::BoxError>(()))
    });
    let mut request = Request::new(Body::empty());
    uri.clone_into(request.uri_mut());
    // What it was refused with is an error of its future, and nothing was sent.
    drop(AddressLayer::new(&endpoint).layer(client).call(request));
    let Some(sent) = sent else {
        return;
    };
    let authority = sent.authority().map(|authority| authority.as_str());
    assert_eq!(authority, Some("10.0.0.7:8080"), "{uri} became {sent}");
    let asked = uri.path_and_query().map_or("/", |asked| asked.as_str());
    assert!(
        sent.path_and_query().is_some_and(|path| *path == *asked),
        "{uri} became {sent}"
    );
}

/// The URL of a request, as text, where its authority says who is called: it names one service in one way, and never an
/// address; nor does what lets all hosts of a domain through let an address or another domain through.
pub fn authority(input: &[u8]) {
    let Ok(uri) = Uri::try_from(input) else {
        return;
    };
    let text = uri.authority().map_or("", |authority| authority.as_str());
    let host = uri.host().unwrap_or_default();
    match tower_mesh::testing::service_of(&uri) {
        Ok(name) => {
            assert_eq!(name.as_str(), host, "{uri}");
            let default = match uri.scheme_str() {
                Some("http") => ":80",
                Some("https") => ":443",
                _ => panic!("{uri} is called as {name}"),
            };
            let port = text.strip_prefix(host);
            assert!(port == Some("") || port == Some(default), "{uri}");
            assert!(!is_address(host), "{uri}");
            assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()), "{uri}");
        }
        Err(why) => {
            assert!(why.len() < 300, "bounded, whatever came: {why}");
            if let Some((secret, _)) = text.rsplit_once('@') {
                assert!(secret.len() < 12 || !why.contains(secret), "{why}");
            }
        }
    }
    for (said, domain) in [("*", "."), ("*.example.com", ".example.com")] {
        if tower_mesh::testing::passes(said, &uri) {
            assert!(host.to_ascii_lowercase().contains(domain), "{uri}");
            assert!(!is_address(host) && !text.contains('@'), "{uri}");
        }
    }
}

/// By what std and WHATWG say, each by itself.
fn is_address(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let last = host.rsplit('.').next().unwrap_or_default();
    let digits = |text: &str, radix| text.chars().all(|digit| digit.is_digit(radix));
    let number = match last.strip_prefix("0x").or(last.strip_prefix("0X")) {
        Some(hex) => digits(hex, 16),
        None => !last.is_empty() && digits(last, 10),
    };
    number || bare.parse::<IpAddr>().is_ok()
}
