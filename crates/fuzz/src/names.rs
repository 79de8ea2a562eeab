//! Names and addresses that somebody else has chosen.

use std::str;

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
