//! How the parts of a process are, together.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use tokio_test::task::{Spawn, spawn};
use tower_mesh_core::{BoxError, Clock, ManualClock, Ratio};
use tower_mesh_health::{
    Components, ComponentsBuilder, ComponentsDriver, Criticality, Report, Status, Trend,
};

use crate::{NONE, S, lock};

use Criticality::{Critical, Optional};
use Status::{Degraded, Healthy, Unhealthy};

struct World {
    clock: Clock,
    time: ManualClock,
    components: Components,
    driver: Spawn<ComponentsDriver>,
}

impl World {
    fn new(set: impl FnOnce(ComponentsBuilder) -> ComponentsBuilder) -> Self {
        let (clock, time) = Clock::manual();
        let (components, driver) = set(Components::builder().clock(clock.clone())).build();
        let mut driver = spawn(driver);
        assert!(driver.poll().is_pending());
        Self {
            clock,
            time,
            components,
            driver,
        }
    }

    fn pass(&mut self, by: std::time::Duration) {
        crate::pass(&mut self.driver, &self.time, &self.clock, by);
    }

    fn status(&self, name: &str) -> Status {
        self.one(name).status
    }

    fn one(&self, name: &str) -> tower_mesh_health::ComponentSnapshot {
        let all = self.components.snapshot().components;
        all.into_iter()
            .find(|one| &*one.name == name)
            .expect("it is there")
    }
}

#[test]
fn the_critical_decide_and_the_optional_degrade_at_worst() {
    let world = World::new(|builder| builder);
    assert!(world.components.ready(), "there is nothing to wait for");
    let registry = world.components.push("registry", Critical).unwrap();
    let cache = world.components.push("cache", Optional).unwrap();
    for (of_registry, of_cache, together) in [
        (Report::healthy(), Report::healthy(), Healthy),
        (Report::healthy(), Report::degraded("slow"), Degraded),
        (Report::healthy(), Report::unhealthy("down"), Degraded),
        (Report::degraded("slow"), Report::healthy(), Degraded),
        (Report::unhealthy("down"), Report::healthy(), Unhealthy),
    ] {
        registry.report(of_registry);
        cache.report(of_cache);
        assert_eq!(world.components.status(), together);
        assert_eq!(world.components.ready(), together != Unhealthy);
        let snapshot = world.components.snapshot();
        assert_eq!(
            (snapshot.status, snapshot.ready),
            (together, together != Unhealthy)
        );
    }
}

#[test]
fn what_has_said_nothing_yet_is_not_believed_to_work() {
    let world = World::new(|builder| builder);
    let registry = world.components.push("registry", Critical).unwrap();
    assert!(!world.components.ready());
    assert_eq!(world.one("registry").age, None);
    registry.report(Report::healthy());
    assert!(world.components.ready());
    let _cache = world.components.push("cache", Optional).unwrap();
    assert_eq!(world.components.status(), Degraded);
}

#[test]
fn a_component_shows_its_age_its_trend_and_its_last_error() {
    let mut world = World::new(|builder| builder);
    let cache = world.components.push("cache", Optional).unwrap();
    for _ in 0..4 {
        cache.report(Report::unhealthy(&"x".repeat(10_000)));
    }
    world.pass(5 * S);
    for _ in 0..4 {
        cache.report(Report::healthy());
    }
    world.pass(2 * S);
    let cache = world.one("cache");
    assert_eq!((cache.status, cache.trend), (Healthy, Trend::Improving));
    assert_eq!((cache.age, cache.since), (Some(2 * S), 2 * S));
    let error = cache.last_error.expect("it has failed");
    assert!(error.len() < 300, "{}", error.len());
    assert_eq!(cache.last_error_age, Some(7 * S));
}

#[test]
fn a_component_that_is_asked_is_asked_at_once_and_again() {
    let mut world = World::new(|builder| builder);
    let answer = Arc::new(Mutex::new(Ok(Report::healthy())));
    let asked = Arc::clone(&answer);
    let _registry = world.components.check("registry", Critical, move || {
        let answer = lock(&asked).clone();
        async move { answer.map_err(|error: &str| BoxError::from(error)) }
    });
    world.pass(NONE);
    assert!(world.components.ready());
    *lock(&answer) = Ok(Report::degraded("no leader"));
    world.pass(11 * S);
    assert_eq!(world.status("registry"), Degraded);
    *lock(&answer) = Err("no answer");
    world.pass(11 * S);
    assert_eq!(world.status("registry"), Unhealthy);
    assert_eq!(
        world.one("registry").last_error.as_deref(),
        Some("no answer")
    );
}

#[test]
fn a_check_that_panics_or_hangs_is_unhealthy_and_holds_up_no_other() {
    let mut world = World::new(|builder| builder.time_limit(3 * S));
    let panics = world.components.check("panics", Optional, || async {
        panic!("a bug in the check");
        #[allow(unreachable_code)]
        Ok::<(), BoxError>(())
    });
    let hangs = world
        .components
        .check("hangs", Optional, pending::<Result<(), BoxError>>);
    let well = world
        .components
        .check("well", Critical, || async { Ok::<(), BoxError>(()) });
    world.pass(3 * S);
    assert_eq!(world.status("well"), Healthy);
    assert_eq!(
        world.one("panics").last_error.as_deref(),
        Some("the check panicked")
    );
    assert_eq!(
        world.one("hangs").last_error.as_deref(),
        Some("no answer within 3s")
    );
    assert!(world.components.ready());
    drop((panics, hangs, well));
    assert_eq!(world.components.snapshot().components.len(), 0);
}

#[test]
fn a_component_that_is_dropped_is_gone_and_so_is_its_check() {
    let mut world = World::new(|builder| builder);
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let hangs = world.components.check("hangs", Critical, move || {
        let _holds = Arc::clone(&holds);
        async move {
            let _holds = _holds;
            pending::<Result<(), BoxError>>().await
        }
    });
    world.pass(NONE);
    assert_eq!(Arc::strong_count(&held), 3, "the check, and one under way");
    drop(hangs);
    world.pass(NONE);
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(world.components.ready());
}

#[test]
fn names_are_unique_and_components_bounded() {
    let world = World::new(|builder| builder.capacity(2));
    let _one = world.components.push("one", Critical).unwrap();
    let again = world.components.push("one", Optional).unwrap_err();
    assert_eq!(
        again.to_string(),
        "component one: there is one of this name"
    );
    let two = world.components.push("two", Optional).unwrap();
    let full = world.components.push("three", Optional).unwrap_err();
    assert_eq!(
        full.to_string(),
        "component three: there are 2 already (capacity)"
    );
    drop(two);
    assert!(world.components.push("three", Optional).is_ok());
}

#[test]
fn the_driver_ends_with_the_last_handle_and_what_is_known_stays() {
    let world = World::new(|builder| builder.interval(S));
    let one = world.components.push("one", Critical).unwrap();
    one.report(Report::healthy());
    let World {
        components,
        mut driver,
        ..
    } = world;
    let again = components.clone();
    drop(components);
    assert!(driver.poll().is_pending());
    assert!(again.ready());
    drop(again);
    assert!(driver.is_woken());
    assert!(driver.poll().is_ready());
    one.report(Report::healthy());
}

#[test]
fn no_jitter_is_needed_for_components_and_some_is_there() {
    let mut world = World::new(|builder| builder);
    let times = Arc::new(Mutex::new(Vec::new()));
    let (noted, clock) = (Arc::clone(&times), world.clock.clone());
    let _one = world.components.check("one", Optional, move || {
        lock(&noted).push(clock.now());
        async { Ok::<(), BoxError>(()) }
    });
    world.pass(100 * S);
    let times = lock(&times);
    let gaps: Vec<_> = times
        .windows(2)
        .map(|pair| pair[1].since(pair[0]))
        .collect();
    let most = (10 * S).mul_f64(1.0 + Ratio::percent(10).get());
    assert!(
        gaps.iter().all(|gap| (10 * S..=most).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.len() >= 8);
}
