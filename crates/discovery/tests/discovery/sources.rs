//! What becomes of it when the source fails, ends, panics or talks nonsense.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use tower_mesh_core::{
    Clock, Empties, Resolution, Resolve, ResolveError, Rng, ServiceName, Update, Updates,
};
use tower_mesh_discovery::{Discovery, Static};

use crate::script::{
    Say, Script, endpoint, moment, name, orders, pass, ports, secs, start, status_of,
};

/// Scenario 28, and flaw W5: one discovery error is fatal for ever through tower's `Balance` and `Buffer`.
#[tokio::test(start_paused = true)]
async fn w5_ten_minutes_of_errors_change_nothing_but_the_status() {
    let script = Script::suspect();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    endpoints.resolved().await;
    // Quiet is not failing.
    pass(secs(10)).await;
    assert_eq!(status_of(&discovery, &orders()).failing_for, None);
    for _ in 0..60 {
        script.say(&orders(), Say::Fail("500 internal server error"));
        pass(secs(10)).await;
        assert_eq!(ports(&endpoints), [1, 2]);
    }
    let status = status_of(&discovery, &orders());
    assert_eq!(status.age.map(|age| age.as_secs()), Some(610));
    assert_eq!(status.failing_for.map(|age| age.as_secs()), Some(600));
    assert_eq!(
        status.last_error.as_deref(),
        Some("500 internal server error")
    );
    assert_eq!(
        (status.source, status.revision, status.endpoints),
        ("script", 1, 2)
    );
    pass(secs(1)).await;
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    moment().await;
    let status = status_of(&discovery, &orders());
    assert_eq!(
        (status.age.map(|age| age.as_secs()), status.last_error),
        (Some(0), None)
    );
    assert_eq!(status.failing_for, None);
    assert_eq!(status.revision, 1, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_is_asked_again_after_one_second_to_thirty() {
    let script = Script::otherwise(|| Some(Say::End));
    script.replace(&orders(), &[endpoint(1)]);
    script.say(&orders(), Say::End);
    let discovery = start(Discovery::builder(script.clone()).rng(Rng::seeded(1)));
    let endpoints = discovery.endpoints(&orders());
    endpoints.resolved().await;
    let lookups = || script.lookups(&orders());
    pass(Duration::from_millis(990)).await;
    assert_eq!(lookups(), 1);
    pass(Duration::from_millis(1_100)).await;
    assert_eq!(lookups(), 2);
    pass(secs(600)).await;
    assert!((20..=45).contains(&lookups()), "{} look-ups", lookups());
    assert_eq!(ports(&endpoints), [1]);
    let error = status_of(&discovery, &orders()).last_error;
    assert_eq!(error.as_deref(), Some("the source ended without an answer"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_fails_for_that_service_alone() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let (bad, good) = (
        discovery.endpoints(&orders()),
        discovery.endpoints(&name("users")),
    );
    script.replace(&orders(), &[endpoint(1)]);
    script.replace(&name("users"), &[endpoint(2)]);
    moment().await;
    for say in [Say::Panic, Say::PanicAtOnce] {
        script.say(&orders(), say);
    }
    moment().await;
    let error = status_of(&discovery, &orders()).last_error.unwrap();
    assert_eq!(
        &*error,
        "the source panicked: the registry's client has a bug"
    );
    assert_eq!(ports(&bad), [1]);
    pass(secs(3)).await;
    let error = status_of(&discovery, &orders()).last_error.unwrap();
    assert_eq!(&*error, "the source panicked: no stream for you");
    // Other services, old and new, do not notice; and this one recovers.
    script.replace(&name("users"), &[endpoint(3)]);
    script.replace(&name("new"), &[endpoint(4)]);
    script.replace(&orders(), &[endpoint(5)]);
    let new = discovery.endpoints(&name("new"));
    pass(secs(10)).await;
    assert_eq!([ports(&bad), ports(&good), ports(&new)], [[5], [3], [4]]);
    assert_eq!(status_of(&discovery, &orders()).last_error, None);
}

#[tokio::test(start_paused = true)]
async fn refresh_looks_up_again_and_serves_what_is_known_meanwhile() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &[endpoint(1)]);
    endpoints.resolved().await;
    discovery.refresh(&orders());
    moment().await;
    assert_eq!((script.lookups(&orders()), script.open()), (2, 1));
    assert_eq!(ports(&endpoints), [1]);
    // The second has brought nothing yet: it is fresh enough for everybody.
    for _ in 0..1_000 {
        discovery.refresh(&orders());
        tokio::task::yield_now().await;
    }
    assert_eq!(script.lookups(&orders()), 2);
    script.replace(&orders(), &[endpoint(2)]);
    assert_eq!(endpoints.changed(1).await.revision(), 2);
    assert_eq!(ports(&endpoints), [2]);
    discovery.refresh(&name("nobody-asked"));
    assert_eq!(script.lookups(&name("nobody-asked")), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_does_not_wait_for_the_backoff() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    script.say(&orders(), Say::End);
    moment().await;
    script.replace(&orders(), &[endpoint(1)]);
    discovery.refresh(&orders());
    moment().await;
    assert_eq!(ports(&endpoints), [1]);
}

/// Errors without end, each at once.
struct Spins(Arc<AtomicUsize>);

impl Resolve for Spins {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let polls = Arc::clone(&self.0);
        Box::pin(stream::repeat_with(move || {
            polls.fetch_add(1, Ordering::Relaxed);
            Err(ResolveError::new("x".repeat(100_000)).caused_by("a cause"))
        }))
    }

    fn empties(&self) -> Empties {
        Empties::Suspect
    }

    fn name(&self) -> &'static str {
        "spins"
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_without_waiting_does_not_spin_the_driver() {
    let polls = Arc::new(AtomicUsize::new(0));
    let discovery = start(Discovery::builder(Spins(Arc::clone(&polls))));
    let endpoints = discovery.endpoints(&orders());
    pass(secs(10)).await;
    let polls = polls.load(Ordering::Relaxed);
    assert!((50..=101).contains(&polls), "{polls} polls in 10 s");
    assert_eq!(endpoints.current().resolution(), Resolution::Pending);
    let error = status_of(&discovery, &orders()).last_error.unwrap();
    assert!(
        error.len() < 400,
        "the text of an error is bounded: {}",
        error.len()
    );
}

/// Updates without end, each at once: others still get their turn.
struct Talks;

impl Resolve for Talks {
    fn resolve(&self, service: &ServiceName) -> Updates {
        if service.as_str() != "talks" {
            return Static::new()
                .service(service, [endpoint(1)])
                .resolve(service);
        }
        let mut port = 0;
        Box::pin(stream::repeat_with(move || {
            port = port % 1_000 + 1;
            Ok(Update::Replace(vec![endpoint(port)]))
        }))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "talks"
    }
}

#[tokio::test]
async fn a_source_that_never_stops_talking_leaves_time_for_others() {
    let discovery = start(Discovery::builder(Talks));
    let talks = discovery.endpoints(&name("talks"));
    let orders = discovery.endpoints(&orders());
    assert_eq!(orders.resolved().await, Resolution::Found);
    talks.changed(100).await;
    discovery.shutdown();
}

#[tokio::test(start_paused = true)]
async fn a_combination_of_sources_is_a_source() {
    // Several sources in order of preference are a `Resolve` like any other; shared ones are, too.
    let shared: Arc<dyn Resolve> = Arc::new(Static::new().service(orders(), [endpoint(1)]));
    let discovery = start(Discovery::builder(shared).clock(Clock::tokio()));
    let endpoints = discovery.endpoints(&orders());
    endpoints.resolved().await;
    assert_eq!(ports(&endpoints), [1]);
}
