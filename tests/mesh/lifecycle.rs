//! A mesh starts in order, undoes what it started when it cannot go on, and ends without leaving anything behind.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_mesh::{
    Component, Instance, Lifecycle, MemoryRegistry, Mesh, Start,
    core::{BoxError, BoxFuture, Resolve, Update},
};

use crate::support::{Server, answer, name, until};

/// Notes what happens to it; one may refuse to start, one may never get done with it.
struct Part {
    name: &'static str,
    start: Answer,
    log: Log,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Starts,
    Fails,
    Hangs,
    Panics,
    /// Starts, and hangs once it has been stopped.
    StartsOnce,
}

type Log = Arc<Mutex<Vec<String>>>;

impl Part {
    fn new(name: &'static str, start: Answer, log: &Log) -> Self {
        Self {
            name,
            start,
            log: Arc::clone(log),
        }
    }

    fn note(&self, what: &str) {
        self.log
            .lock()
            .unwrap()
            .push(format!("{what} {}", self.name));
    }

    fn has_stopped(&self) -> bool {
        let stop = format!("stop {}", self.name);
        self.log.lock().unwrap().contains(&stop)
    }
}

impl Component for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn start(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async {
            match self.start {
                Answer::Starts => self.note("start"),
                Answer::Fails => return Err("no such luck".into()),
                Answer::Hangs => std::future::pending().await,
                Answer::Panics => panic!("a bug in the part"),
                Answer::StartsOnce if self.has_stopped() => std::future::pending().await,
                Answer::StartsOnce => self.note("start"),
            }
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.note("stop") })
    }
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

#[tokio::test]
async fn parts_start_by_stage_whatever_the_order_they_were_given_in_and_stop_in_the_opposite_one() {
    let log = Log::default();
    let mesh = Mesh::builder("shop")
        .component(
            Start::Monitoring,
            Part::new("monitoring", Answer::Starts, &log),
        )
        .component(Start::Health, Part::new("health", Answer::Starts, &log))
        .component(
            Start::Discovery,
            Part::new("discovery", Answer::Starts, &log),
        )
        .component(Start::Breakers, Part::new("breakers", Answer::Starts, &log))
        .start()
        .await
        .unwrap();
    assert_eq!(
        taken(&log),
        [
            "start discovery",
            "start breakers",
            "start health",
            "start monitoring"
        ]
    );
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(
        taken(&log),
        [
            "stop monitoring",
            "stop health",
            "stop breakers",
            "stop discovery"
        ]
    );
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken(&log), [""; 0], "a second shutdown has nothing to do");
}

#[tokio::test]
async fn a_part_that_does_not_start_undoes_those_before_it_and_the_error_names_it() {
    let log = Log::default();
    let error = Mesh::builder("shop")
        .component(Start::Discovery, Part::new("first", Answer::Starts, &log))
        .component(Start::Breakers, Part::new("second", Answer::Starts, &log))
        .component(Start::Health, Part::new("third", Answer::Fails, &log))
        .component(Start::Monitoring, Part::new("fourth", Answer::Starts, &log))
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "third did not start");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "no such luck"
    );
    assert_eq!(
        taken(&log),
        ["start first", "start second", "stop second", "stop first"]
    );
}

#[tokio::test]
async fn a_start_that_is_dropped_half_way_stops_what_it_had_started() {
    let log = Log::default();
    let start = Mesh::builder("shop")
        .component(Start::Discovery, Part::new("first", Answer::Starts, &log))
        .component(Start::Health, Part::new("second", Answer::Hangs, &log))
        .start();
    let start = tokio::spawn(start);
    until("the first part has started", || {
        !log.lock().unwrap().is_empty()
    })
    .await;
    start.abort();
    until("the first part has been stopped", || {
        log.lock().unwrap().len() == 2
    })
    .await;
    assert_eq!(taken(&log), ["start first", "stop first"]);
}

#[tokio::test]
async fn a_mesh_that_is_dropped_without_a_shutdown_stops_its_parts() {
    let log = Log::default();
    let mesh = Mesh::builder("shop")
        .component(Start::Health, Part::new("part", Answer::Starts, &log))
        .start()
        .await
        .unwrap();
    let orders = mesh.service("orders").unwrap();
    drop(mesh);
    tokio::task::yield_now().await;
    assert_eq!(
        taken(&log),
        ["start part"],
        "a client keeps the mesh running"
    );
    drop(orders);
    until("the part has been stopped", || taken(&log) == ["stop part"]).await;
}

#[tokio::test]
async fn everything_is_checked_before_anything_starts() {
    let log = Log::default();
    let begin = |service: &str| {
        Mesh::builder(service).component(Start::Discovery, Part::new("part", Answer::Starts, &log))
    };
    let mut policy = tower_mesh::Policy::default();
    policy.timeout = Duration::ZERO;
    for (builder, says) in [
        (begin("a/b"), "a name is invalid"),
        (
            begin("a").policy("b c", Default::default()),
            "a name is invalid",
        ),
        (begin("a").policy("b", policy), "a policy is invalid"),
        (
            begin("a").connect_timeout(Duration::ZERO),
            "connect_timeout must be above zero",
        ),
        (
            Mesh::from_file("/does/not/exist.toml"),
            "the configuration is invalid",
        ),
    ] {
        let error = builder.start().await.unwrap_err();
        assert_eq!(error.to_string(), says);
        if let Some(source) = std::error::Error::source(&error)
            && says == "a policy is invalid"
        {
            assert!(source.to_string().contains("`services.b.timeout`"));
        }
    }
    assert_eq!(taken(&log), [""; 0]);
}

#[tokio::test]
async fn a_shutdown_refuses_deregisters_waits_for_calls_and_leaves_nothing_running() {
    let registry = MemoryRegistry::new();
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            answer(200, "done")
        }
    })
    .await;
    let mesh = Mesh::builder("shop")
        .discovery(registry.clone())
        .registry(registry.clone())
        .start()
        .await
        .unwrap();
    let instance =
        Instance::new(name("orders"), server.endpoint()).with_ttl(Duration::from_secs(60));
    mesh.register(instance).await.unwrap();
    let orders = mesh.service("orders").unwrap();
    let call = tokio::spawn({
        let orders = orders.clone();
        async move { orders.get("/").await }
    });
    until("the call has reached the server", || server.hits() == 1).await;

    let shutdown = tokio::spawn({
        let mesh = mesh.clone();
        async move { mesh.shutdown(Duration::from_secs(30)).await }
    });
    until("the mesh drains", || {
        mesh.lifecycle() == Lifecycle::Draining
    })
    .await;
    let refused = orders.get("/").await.unwrap_err();
    assert!(
        refused.is_shutting_down() && !refused.maybe_sent(),
        "{refused}"
    );
    assert!(mesh.service("others").unwrap_err().is_shutting_down());
    let mut updates = registry.resolve(&name("orders"));
    let gone = futures_util::StreamExt::next(&mut updates)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(&gone, Update::Replace(endpoints) if endpoints.is_empty())
            || matches!(gone, Update::Absent),
        "deregistered while the call is still in flight: {gone:?}"
    );
    assert!(!shutdown.is_finished());

    release.send(true).unwrap();
    let response = call
        .await
        .unwrap()
        .expect("the call in flight ends as it would have");
    assert_eq!(response.status(), 200);
    drop(response);
    shutdown.await.unwrap().unwrap();
    assert_eq!((mesh.lifecycle(), mesh.tasks()), (Lifecycle::Stopped, 0));
    assert!(orders.get("/").await.unwrap_err().is_shutting_down());
}

#[tokio::test]
async fn a_shutdown_ends_at_its_limit_with_the_calls_that_had_to_be_cut_off() {
    let registry = MemoryRegistry::new();
    let server = Server::hanging().await;
    let mesh = Mesh::builder("shop")
        .discovery(registry.clone())
        .registry(registry)
        .start()
        .await
        .unwrap();
    mesh.register(Instance::new(name("orders"), server.endpoint()))
        .await
        .unwrap();
    let orders = mesh.service("orders").unwrap();
    let call = tokio::spawn(async move { orders.get("/").await });
    until("the call has reached the server", || server.hits() == 1).await;

    let error = mesh.shutdown(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!((error.cut_off(), error.still_running()), (1, 0), "{error}");
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is_shutting_down(), "{error}");
    assert_eq!(mesh.tasks(), 0);
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_half_way_can_be_taken_up_again() {
    let registry = MemoryRegistry::new();
    let server = Server::hanging().await;
    let mesh = Mesh::builder("shop")
        .discovery(registry.clone())
        .registry(registry)
        .start()
        .await
        .unwrap();
    mesh.register(Instance::new(name("orders"), server.endpoint()))
        .await
        .unwrap();
    let orders = mesh.service("orders").unwrap();
    let call = tokio::spawn(async move { orders.get("/").await });
    until("the call has reached the server", || server.hits() == 1).await;

    let given_up = tokio::time::timeout(
        Duration::from_millis(20),
        mesh.shutdown(Duration::from_secs(60)),
    )
    .await;
    assert!(given_up.is_err());
    assert_eq!(mesh.lifecycle(), Lifecycle::Draining);
    call.abort();
    mesh.shutdown(Duration::from_secs(60)).await.unwrap();
    assert_eq!((mesh.lifecycle(), mesh.tasks()), (Lifecycle::Stopped, 0));
}

#[tokio::test]
async fn a_call_in_flight_keeps_the_mesh_running_and_a_body_outlives_it() {
    let registry = MemoryRegistry::new();
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let mut released = released.clone();
        async move {
            let late = futures_util::stream::once(async move {
                released.wait_for(|released| *released).await.unwrap();
                Ok::<_, std::convert::Infallible>("late")
            });
            axum::response::Response::new(axum::body::Body::from_stream(late))
        }
    })
    .await;
    let instance = Instance::new(name("orders"), server.endpoint());
    let _registered = tower_mesh::core::Register::register(&registry, instance)
        .await
        .unwrap();
    // Nothing but the future of the call is held while the registry has not even answered.
    let mesh = Mesh::builder("shop")
        .discovery(registry)
        .start()
        .await
        .unwrap();
    let call = tower::ServiceExt::oneshot(
        mesh.service("orders").unwrap(),
        http::Request::new(tower_mesh::Body::empty()),
    );
    drop(mesh);
    let response = call.await.expect("the call ends as it would have");
    // Now not even that, and the body is still to come.
    release.send(true).unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "late");
}

async fn with_parts(log: &Log) -> Mesh {
    Mesh::builder("shop")
        .component(Start::Health, Part::new("a", Answer::Starts, log))
        .component(Start::Health, Part::new("b", Answer::Starts, log))
        .start()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_part_is_replaced_in_its_place_the_old_one_first_stopped() {
    let log = Log::default();
    let mesh = with_parts(&log).await;
    let part = Part::new("a", Answer::Starts, &log);
    mesh.replace(part, Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken(&log), ["start a", "start b", "stop a", "start a"]);
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken(&log), ["stop b", "stop a"]);
    let late = Part::new("a", Answer::Starts, &log);
    let refused = mesh.replace(late, Duration::from_secs(1)).await;
    assert_eq!(refused.unwrap_err().to_string(), "the mesh has ended");
    assert_eq!(taken(&log), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_cannot_be_replaced_runs_again() {
    let log = Log::default();
    let mesh = with_parts(&log).await;
    for (answer, says, also) in [
        (Answer::Fails, "the new a did not start", None),
        (Answer::Panics, "the new a did not start", None),
        (
            Answer::Hangs,
            "the new a had not started after 1s",
            Some("stop a"),
        ),
    ] {
        taken(&log);
        let part = Part::new("a", answer, &log);
        let error = mesh
            .replace(part, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), says);
        let steps: Vec<_> = ["stop a"]
            .into_iter()
            .chain(also)
            .chain(["start a"])
            .collect();
        assert_eq!(taken(&log), steps);
    }
    let stranger = Part::new("c", Answer::Starts, &log);
    let error = mesh.replace(stranger, Duration::from_secs(1)).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "no part is called c, but a, b"
    );
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_not_replaced_and_hangs_when_it_is_to_run_again_is_waited_for_no_longer() {
    let log = Log::default();
    let mesh = Mesh::builder("shop")
        .component(Start::Health, Part::new("a", Answer::StartsOnce, &log))
        .start()
        .await
        .unwrap();
    let part = Part::new("a", Answer::Fails, &log);
    let error = mesh.replace(part, Duration::from_secs(1)).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the new a did not start, and the old one did not start again: it had not started after 1s"
    );
    assert_eq!(taken(&log), ["start a", "stop a", "stop a"]);
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken(&log), [""; 0], "it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_replacement_whose_caller_has_gone_goes_on() {
    let log = Log::default();
    let mesh = with_parts(&log).await;
    let part = Part::new("a", Answer::Starts, &log);
    let replacing = mesh.replace(part, Duration::from_secs(1));
    let polled = tokio::time::timeout(Duration::ZERO, replacing).await;
    drop(polled);
    until("it is replaced", || {
        taken(&log).ends_with(&["start a".to_owned()])
    })
    .await;
}
