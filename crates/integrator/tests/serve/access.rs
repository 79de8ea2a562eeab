//! Who may call, and what is shown to whom.

use std::{
    fmt::Write,
    fs,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{Router, http::HeaderMap, routing::get as on_get};
use http::{Request, StatusCode};
use tower::ServiceExt;
use tower_mesh::{
    Body, Config, Endpoint, Instance, MemoryRegistry, Mesh, ServiceName,
    core::BoxError,
    http::{
        credentials::Token,
        server::{BearerTokens, Caller},
    },
};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::support::{mesh, text};

const CANARY: &str = "canary-7f3a";

/// All that is logged, by whomever, with all the fields of events and spans.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    /// Hears all that this thread logs.
    fn begin(&self) -> impl Drop + use<> {
        // With a single subscriber tracing asks only the thread that meets an event first, which may be another test's.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Log::default()));
        LazyLock::force(&SECOND);
        tracing::subscriber::set_default(self.clone())
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().contains(text)
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}: {value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn request(path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn of(config: &str) -> Result<Mesh, String> {
    let config = Config::parse(config).unwrap();
    let mesh = Mesh::builder("orders").config(config).start().await;
    mesh.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

// row 21
#[tokio::test]
async fn who_has_the_configured_token_may_call_and_health_needs_none() {
    let log = Log::default();
    let _logging = log.begin();
    let file = tempfile("token", &format!("{CANARY}\n"));
    let mesh = of(&format!("[server]\ntoken_file = {file:?}\n"))
        .await
        .unwrap();
    let app = Router::new()
        .route("/", on_get(async || "hello"))
        .layer(mesh.server_layer());
    for (path, token, status) in [
        ("/", Some(CANARY), 200),
        ("/", Some("another"), 401),
        ("/", None, 401),
        ("/health/ready", None, 200),
    ] {
        let answer = app.clone().oneshot(request(path, token)).await.unwrap();
        assert_eq!(answer.status(), status, "{path} {token:?}");
        let headers = format!("{:?}", answer.headers());
        assert!(!headers.contains(CANARY) && !text(answer).await.contains(CANARY));
    }
    assert!(log.has("path: \"/\"") && !log.has(CANARY), "{log:?}");
    let printed = format!("{mesh:?} {} {:?}", mesh.status(), mesh.server_layer());
    assert!(!printed.contains(CANARY), "{printed}");
}

#[tokio::test]
async fn a_token_that_cannot_be_had_or_shown_keeps_the_mesh_from_starting() {
    let (empty, two) = (
        tempfile("empty", "\n"),
        tempfile("two", &format!("{CANARY} {CANARY}")),
    );
    for (config, says) in [
        (
            "token_file = \"/nowhere/token\"".to_owned(),
            "`server.token_file`: cannot read /nowhere/token",
        ),
        (
            "token_env = \"TOWER_MESH_NO_SUCH\"".to_owned(),
            "`server.token_env`: the environment has no \"TOWER_MESH_NO_SUCH\"",
        ),
        (
            format!("token_file = {empty:?}"),
            "`server.token_file`: it holds no bearer token",
        ),
        (
            format!("token_file = {two:?}"),
            "`server.token_file`: it holds no bearer token",
        ),
    ] {
        let error = of(&format!("[server]\n{config}\n")).await.unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains(CANARY), "{error}");
    }
}

#[tokio::test]
async fn a_handler_is_told_who_calls() {
    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let callers = BearerTokens::new()
        .allow("storefront", "a-token", [""; 0])
        .allow("reports", "b-token", ["/summary"]);
    let greet = async |request: axum::extract::Request| {
        let caller = request.extensions().get::<Caller>().cloned();
        caller
            .and_then(|caller| caller.name().map(str::to_owned))
            .unwrap_or_default()
    };
    let app = Router::new()
        .route("/", on_get(greet))
        .layer(mesh.server_layer().authorize(callers));
    let answer = app.clone().oneshot(request("/", Some("a-token"))).await;
    assert_eq!(text(answer.unwrap()).await, "storefront");
    let answer = app.oneshot(request("/", Some("b-token"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

/// A server that says what it was shown.
async fn shown(name: &str, registry: &MemoryRegistry, registrar: &Mesh) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let says = |headers: HeaderMap| async move {
        let shown = headers.get("authorization");
        shown.map_or("nothing".to_owned(), |shown| {
            shown.to_str().unwrap().to_owned()
        })
    };
    let refuses = async || StatusCode::UNAUTHORIZED;
    let app = Router::new()
        .route("/", on_get(says))
        .route("/refuses", on_get(refuses));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let instance = Instance::new(ServiceName::new(name).unwrap(), endpoint);
    registrar.register(instance).await.unwrap();
    let _ = registry;
}

// rows 21 (what is printed and logged) and 22 (whom it is shown to)
#[tokio::test]
async fn a_service_is_shown_its_own_token_and_no_other_and_nobody_prints_or_logs_it() {
    let log = Log::default();
    let _logging = log.begin();
    let registry = MemoryRegistry::new();
    let registrar = mesh("registrar", &registry).await;
    for name in ["orders", "stock", "carts"] {
        shown(name, &registry, &registrar).await;
    }
    let of = |token: &'static str| {
        move || async move {
            let token = Token::bearer(token)?.expires_in(Duration::from_secs(3600));
            Ok::<_, BoxError>(token)
        }
    };
    let down = || async { Err::<Token, BoxError>("the giver of tokens is down".into()) };
    let mesh = Mesh::builder("storefront")
        .discovery(registry.clone())
        .registry(registry.clone())
        .credentials("orders", of(CANARY))
        .credentials("carts", of("cart-token"))
        .credentials("gone", down)
        .start()
        .await
        .unwrap();
    for (name, shown) in [
        ("orders", "Bearer canary-7f3a"),
        ("stock", "nothing"),
        ("carts", "Bearer cart-token"),
        ("orders", "Bearer canary-7f3a"),
    ] {
        let answer = mesh.service(name).unwrap().get("/").await.unwrap();
        assert_eq!(text(answer).await, shown, "{name}");
    }
    let refused = mesh
        .service("orders")
        .unwrap()
        .get("/refuses")
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let failed = mesh
        .call::<_, ()>("orders", "Nowhere", ())
        .await
        .unwrap_err();

    shown_nowhere(&registrar, &mesh, &[format!("{failed} {failed:?}")]).await;
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(mesh.tasks(), 0);
    assert!(
        log.has("service: \"orders\"") && !log.has(CANARY),
        "{log:?}"
    );
}

async fn shown_nowhere(registrar: &Mesh, mesh: &Mesh, more: &[String]) {
    let gone = Endpoint::new(([127, 0, 0, 1], 1).into());
    let instance = Instance::new(ServiceName::new("gone").unwrap(), gone);
    registrar.register(instance).await.unwrap();
    let error = mesh.service("gone").unwrap().get("/").await.unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    let told = chain.join(": ");
    assert!(told.contains("there is no token for the service"), "{told}");
    assert!(told.contains("the giver of tokens is down"), "{told}");
    let service = mesh.service("orders").unwrap();
    let explained = mesh.explain("orders").unwrap();
    let printed = format!(
        "{told} {more:?} {mesh:?} {} {service:?} {explained} {:?}",
        mesh.status(),
        mesh.snapshot()
    );
    assert!(!printed.contains(CANARY), "{printed}");
}

/// A file of this test's own, which goes when the system cleans up.
fn tempfile(name: &str, says: &str) -> std::path::PathBuf {
    let file = std::env::temp_dir().join(format!("tower-mesh-{}-{name}", std::process::id()));
    fs::write(&file, says).unwrap();
    file
}
