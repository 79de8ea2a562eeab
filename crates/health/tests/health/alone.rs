//! A service on its own.

use std::{
    future::pending,
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::FutureExt;
use tokio_test::task::{Spawn, spawn};
use tower::{Layer, Service, service_fn};
use tower_mesh_core::{
    BoxError, Classify, ClassifyErrors, Clock, Kind, ManualClock, Ratio, Refusal,
    testing::contract::{Contract, Subject, Tally},
};
use tower_mesh_health::{
    CheckPolicy, HealthLayer, HealthLayerBuilder, HealthLayerDriver, OutlierPolicy,
    ServiceUnhealthy,
};

use crate::{NONE, S, orders, steady};

#[derive(Clone, Copy)]
enum Ask {
    Succeed,
    Fail,
    Panic,
    Hang,
}

async fn answer(ask: Ask) -> Result<&'static str, io::Error> {
    match ask {
        Ask::Succeed => Ok("done"),
        Ask::Fail => Err(io::Error::other("down")),
        Ask::Panic => panic!("a bug in the service"),
        Ask::Hang => pending().await,
    }
}

struct World {
    clock: Clock,
    time: ManualClock,
    layer: HealthLayer,
    driver: Spawn<HealthLayerDriver>,
}

impl World {
    fn new(set: impl FnOnce(HealthLayerBuilder) -> HealthLayerBuilder) -> Self {
        let (clock, time) = Clock::manual();
        let builder = HealthLayer::builder(&orders())
            .policy(steady())
            .clock(clock.clone());
        let (layer, driver) = set(builder).build();
        let mut driver = spawn(driver);
        assert!(driver.poll().is_pending());
        Self {
            clock,
            time,
            layer,
            driver,
        }
    }

    fn ask(&self, ask: Ask) -> Result<&'static str, BoxError> {
        let mut service = self.layer.layer(service_fn(answer));
        service.call(ask).now_or_never().expect("it ends at once")
    }

    fn pass(&mut self, by: std::time::Duration) {
        crate::pass(&mut self.driver, &self.time, &self.clock, by);
    }
}

#[test]
fn after_five_failures_in_a_row_calls_are_refused_until_its_time_is_over() {
    let mut world = World::new(|builder| builder);
    for _ in 0..5 {
        assert!(world.ask(Ask::Fail).unwrap_err().is::<io::Error>());
    }
    assert!(!world.layer.is_healthy());
    let error = world.ask(Ask::Succeed).unwrap_err();
    let refusal = Refusal::of(&*error).expect("it is a refusal");
    assert_eq!(
        (refusal.kind(), refusal.is_local()),
        (Kind::NoEndpoint, true)
    );
    assert_eq!(
        error.to_string(),
        "no endpoint available: orders has been failing and is left alone for a while (retry after 30.0s)"
    );
    let unhealthy: &ServiceUnhealthy = error.downcast_ref().expect("it says so");
    assert_eq!(unhealthy.retry_after(), Some(30 * S));
    assert_eq!(world.layer.handle().snapshot().ejected.len(), 1);
    world.pass(30 * S);
    assert_eq!(world.ask(Ask::Succeed).expect("it is admitted"), "done");
    assert!(world.layer.is_healthy());
}

#[test]
fn one_layer_value_is_one_judgement_and_a_panic_a_failure() {
    let world = World::new(|builder| builder);
    let (service, other) = (service_fn(answer), world.layer.clone());
    for _ in 0..5 {
        let mut service = other.layer(service);
        let call = std::panic::AssertUnwindSafe(service.call(Ask::Panic));
        assert!(
            call.catch_unwind()
                .now_or_never()
                .expect("at once")
                .is_err()
        );
    }
    assert!(world.ask(Ask::Succeed).is_err());
}

#[test]
fn a_caller_who_goes_away_says_nothing() {
    let world = World::new(|builder| builder);
    let mut service = world.layer.layer(service_fn(answer));
    for _ in 0..20 {
        assert!(service.call(Ask::Hang).now_or_never().is_none());
    }
    assert!(world.layer.is_healthy());
}

#[test]
fn a_check_that_fails_has_calls_refused_and_one_that_succeeds_lets_them_through() {
    let well = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&well);
    let mut world = World::new(|builder| {
        let policy = CheckPolicy::default()
            .first_within(NONE)
            .jitter(Ratio::ZERO);
        builder.check_policy(policy).check(move || {
            let well = asked.load(Relaxed);
            async move { well.then_some(()).ok_or("refused") }
        })
    });
    assert!(world.ask(Ask::Succeed).is_ok());
    well.store(false, Relaxed);
    world.pass(30 * S);
    let error = world.ask(Ask::Succeed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no endpoint available: orders fails its health checks"
    );
    let checked = world.layer.checked().expect("there is a check");
    assert_eq!(checked.last_error.as_deref(), Some("refused"));
    well.store(true, Relaxed);
    world.pass(10 * S);
    assert!(world.ask(Ask::Succeed).is_ok());
    // And it lets it come back that its calls have shut out.
    for _ in 0..5 {
        let _ = world.ask(Ask::Fail);
    }
    assert!(world.ask(Ask::Succeed).is_err());
    world.pass(10 * S);
    assert!(world.ask(Ask::Succeed).is_ok());
}

#[test]
fn the_driver_ends_with_the_last_layer_and_service_and_nothing_is_refused_without_it() {
    let world = World::new(|builder| builder.check(|| async { Err::<(), _>("down") }));
    for _ in 0..5 {
        let _ = world.ask(Ask::Fail);
    }
    let mut service = world.layer.layer(service_fn(answer));
    let World {
        layer, mut driver, ..
    } = world;
    drop(layer);
    assert!(driver.poll().is_pending(), "a service is left");
    assert!(
        service
            .call(Ask::Succeed)
            .now_or_never()
            .expect("at once")
            .is_err()
    );
    let last = service.clone();
    drop(service);
    drop(last);
    assert!(driver.is_woken());
    assert!(driver.poll().is_ready());

    let world = World::new(|builder| builder);
    for _ in 0..5 {
        let _ = world.ask(Ask::Fail);
    }
    let mut service = world.layer.layer(service_fn(answer));
    drop(world.driver);
    assert!(
        service
            .call(Ask::Succeed)
            .now_or_never()
            .expect("at once")
            .is_ok()
    );
}

#[test]
fn a_healthy_call_allocates_nothing() {
    let world = World::new(|builder| builder);
    let mut service = world.layer.layer(service_fn(answer));
    let _ = service.call(Ask::Succeed).now_or_never();
    let cost = allocation_counter::measure(|| {
        for _ in 0..100 {
            let _ = service.call(Ask::Succeed).now_or_never();
        }
    });
    assert_eq!(cost.count_total, 0);
}

/// Counts and refuses nothing: the suite wants to be served after each failure.
fn counting() -> OutlierPolicy {
    steady()
        .consecutive_failures(NonZeroU32::MAX)
        .failure_percentage(None)
}

// invariants I1, I9, I10
#[tokio::test(start_paused = true)]
async fn the_service_keeps_towers_contract_and_counts_each_call_once() {
    let (clock, time) = Clock::manual();
    Contract::new(|| "request", || "response")
        .on_clock(time)
        .check(|inner| {
            let (layer, driver) = HealthLayer::builder(&orders())
                .policy(counting())
                .clock(clock.clone())
                .build();
            drop(driver);
            let succeeded = Arc::new(AtomicU64::new(0));
            let successes = Arc::clone(&succeeded);
            let (at_rest, counted) = (layer.clone(), layer.clone());
            let layer = layer.classify(move |answer: Result<&_, &_>| {
                successes.fetch_add(u64::from(answer.is_ok()), Relaxed);
                ClassifyErrors::default().classify(answer)
            });
            Subject::new(layer.layer(inner))
                .at_rest(move || match at_rest.load().in_flight() {
                    0 => Ok(()),
                    calls => Err(format!("{calls} calls are in flight")),
                })
                .tally(move || Tally {
                    successes: succeeded.load(Relaxed),
                    failures: counted.load().failures(),
                })
        })
        .await
        .expect("it keeps the contract");
}
