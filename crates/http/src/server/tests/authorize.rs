//! Who may do what, and what is told of it.

use super::*;
use crate::server::{Access, AuthorizeLayer, BearerTokens, Caller, Denied};

const STOREFRONT: &str = "c2VjcmV0-of.the~storefront+/==";
const REPORTS: &str = "secret-of-the-reports";

fn tokens() -> AuthorizeLayer {
    let callers = BearerTokens::new()
        .allow("storefront", STOREFRONT, [""; 0])
        .allow("reports", REPORTS, ["/orders/summary", "/shop.Reports/"]);
    AuthorizeLayer::new(callers)
}

/// A handler that answers with the name of its caller.
fn greets()
-> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
{
    service_fn(async |request: Request<Body>| {
        let caller = request.extensions().get::<Caller>().and_then(Caller::name);
        let caller = caller.unwrap_or("nobody").to_owned();
        Ok::<_, Infallible>(Response::new(Body::from(caller)))
    })
}

fn asks(path: &str, authorization: &[&str]) -> (http::response::Parts, String) {
    let (layer, _) = layer();
    let shown: Vec<_> = (authorization.iter())
        .map(|value| ("authorization", *value))
        .collect();
    let server = layer.layer(tokens().layer(greets()));
    let (head, _, text) = ask(server, request(path, &shown));
    let counts = layer.counts();
    let refused = u64::from(head.status.is_client_error());
    assert_eq!((counts.refused, counts.answered), (refused, 1 - refused));
    (head, text)
}

#[test]
fn a_caller_is_known_by_its_token_and_may_do_what_it_may() {
    for (path, token, answer) in [
        ("/orders/42", STOREFRONT, (200, "storefront")),
        ("/orders/summary", REPORTS, (200, "reports")),
        ("/shop.Reports/Daily", REPORTS, (200, "reports")),
    ] {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let (head, text) = asks(path, &[&format!("{scheme} {token}")]);
            assert_eq!((head.status.as_u16(), text.as_str()), answer);
        }
    }
    for path in [
        "/orders/42",
        "/orders/summary/",
        "/orders/summary2",
        "/orders",
        "/shop.Reports",
        "/shop.Reports/../shop.Orders/Delete",
        "/shop.ReportsOfOthers/Daily",
    ] {
        let (head, text) = asks(path, &[&format!("Bearer {REPORTS}")]);
        assert_eq!(head.status, StatusCode::FORBIDDEN, "{path}");
        assert!(text.contains(r#""kind":"permission_denied""#), "{text}");
        assert!(!text.contains("reports"), "{text}");
    }
}

// row 33
#[test]
fn what_is_no_token_or_nobodys_is_unauthenticated() {
    let good = format!("Bearer {STOREFRONT}");
    let long = format!("Bearer {}", "x".repeat(100_000));
    for shown in [
        &[][..],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer ="],
        &[STOREFRONT],
        &["Basic c2VjcmV0"],
        &["Bearer nobodys"],
        &["Bearer c2VjcmV0-of.the~storefront+/="],
        &["Bearer c2VjcmV0 of"],
        &["Bearer \u{e9}"],
        &[&long],
        &[&good, &good],
    ] {
        let (head, text) = asks("/orders/42", shown);
        assert_eq!(head.status, StatusCode::UNAUTHORIZED, "{shown:?}");
        assert_eq!(head.headers["www-authenticate"], "Bearer");
        assert!(text.contains(r#""kind":"unauthenticated""#), "{text}");
        assert!(!text.contains("token"), "nothing of why: {text}");
    }
}

#[test]
fn grpc_has_codes_for_both() {
    for (denied, code, kind) in [
        (
            Denied::unauthenticated("SECRET"),
            "16",
            "unauthenticated (id ",
        ),
        (Denied::forbidden("SECRET"), "7", "permission_denied (id "),
    ] {
        let (layer, _) = layer();
        let authorize = move |_: &Access<'_>| Err(denied.clone());
        let server = layer.layer(AuthorizeLayer::new(authorize).layer(untouched()));
        let (head, _, text) = ask(server, request("/shop.Orders/Get", &[GRPC]));
        assert_eq!((head.status.as_u16(), text.as_str()), (200, ""));
        assert_eq!(head.headers["grpc-status"], code);
        let message = head.headers["grpc-message"].to_str().unwrap();
        assert!(message.starts_with(kind), "{message}");
        assert!(
            head.headers
                .values()
                .all(|value| !value.to_str().unwrap().contains("SECRET"))
        );
    }
}

#[test]
fn health_is_not_asked_who_it_is_and_a_panic_lets_nobody_in() {
    let (layer, _) = layer();
    let boom = |_: &Access<'_>| -> Result<Caller, Denied> { panic!("SECRET") };
    let server = layer.layer(AuthorizeLayer::new(boom).layer(untouched()));
    let (head, _, _) = ask(server.clone(), request("/health/live", &[]));
    assert_eq!(head.status, StatusCode::OK);
    let (head, _, _) = ask(server, request("/", &[]));
    assert_eq!(head.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn nobody_poses_as_a_caller_and_without_authorisation_everybody_may() {
    let (layer, _) = layer();
    let anybody = |_: &Access<'_>| Ok(Caller::anonymous());
    let posing = || {
        let mut request = request("/", &[]);
        request.extensions_mut().insert(Caller::new("storefront"));
        request
    };
    let server = layer.layer(AuthorizeLayer::new(anybody).layer(greets()));
    assert_eq!(ask(server, posing()).2, "nobody");
    let open = layer.layer(AuthorizeLayer::off().layer(greets()));
    assert_eq!(ask(open, request("/", &[])).2, "nobody");
}

// row 21
#[test]
fn a_token_is_printed_nowhere() {
    const CANARY: &str = "canary-7f3a";
    let shown = format!("Bearer {CANARY}");
    let (layer, _) = layer();
    let printed = Arc::<std::sync::Mutex<String>>::default();
    let (by_access, by_handler) = (Arc::clone(&printed), Arc::clone(&printed));
    let prints = move |access: &Access<'_>| {
        let bearer = access.bearer();
        *by_access.lock().unwrap() += &format!("{access:?} {bearer:?} {:?}", access.headers());
        match bearer.is_some_and(|bearer| bearer.is(CANARY)) {
            true => Ok(Caller::new("storefront")),
            false => Err(Denied::forbidden("other")),
        }
    };
    let authorize = AuthorizeLayer::new(prints);
    let server = layer.layer(authorize.layer(service_fn(move |request: Request<Body>| {
        *by_handler.lock().unwrap() += &format!("{request:?}");
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    })));
    let (head, _, _) = ask(
        server.clone(),
        request("/", &[("authorization", &shown), ("authorization", "x")]),
    );
    assert_eq!(head.status, StatusCode::FORBIDDEN);
    let (head, _, _) = ask(server.clone(), request("/", &[("authorization", &shown)]));
    assert_eq!(head.status, StatusCode::OK);
    let tokens = BearerTokens::new().allow("storefront", CANARY, [""; 0]);
    let printed = format!(
        "{} {tokens:?} {authorize:?} {layer:?} {server:?}",
        printed.lock().unwrap()
    );
    assert!(!printed.contains(CANARY), "{printed}");
    assert!(printed.contains("storefront") && printed.contains("Sensitive"));
}
