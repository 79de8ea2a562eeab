//! How drivers begin and end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use tokio_test::task::spawn;
use tower_mesh_core::{Endpoint, NewLayer};
use tower_mesh_health::{Components, Criticality, HealthChecker, OutlierLayer};

use crate::{S, World, steady};

#[test]
fn nobody_is_ejected_before_the_driver_is_polled() {
    let mut world = World::asleep(3, steady());
    world.fail(0, 50);
    assert_eq!(world.ejected(), []);
    assert!(world.driver.poll().is_pending());
    world.fail(0, 1);
    assert_eq!(world.ejected(), [0], "the row goes on");
}

#[test]
fn when_the_driver_is_dropped_everybody_takes_calls_and_nobody_is_ejected_any_more() {
    let mut world = World::new(4, steady());
    world.fail(0, 5);
    world.fail(1, 5);
    let (_, driver) = OutlierLayer::builder(&world.set).build();
    drop(std::mem::replace(&mut world.driver, spawn(driver)));
    assert!(world.all.iter().all(|e| e.vitals().gate().is_open()));
    world.fail(2, 50);
    assert_eq!(world.ejected(), []);
}

#[test]
fn the_driver_ends_with_the_last_handle_and_all_come_back() {
    let mut world = World::new(3, steady());
    world.fail(0, 5);
    let handle = world.outliers().clone();
    let (other, _) = OutlierLayer::builder(&world.set).build();
    drop(std::mem::replace(&mut world.layer, other));
    world.pass(S);
    drop(handle);
    assert!(world.driver.is_woken());
    assert_eq!(world.driver.poll(), Poll::Ready(()));
    assert!(world.all[0].vitals().gate().is_open());
}

#[test]
fn a_layer_that_is_made_anew_takes_over_from_one_that_has_gone() {
    let mut world = World::new(3, steady());
    let old = world.layer.clone();
    let (layer, driver) = OutlierLayer::builder(&world.set)
        .policy(steady().eject_for(7 * S))
        .clock(world.clock.clone())
        .build();
    for endpoint in &world.all {
        layer.layer_for(endpoint);
    }
    world.fail(0, 5);
    assert_eq!(world.remaining(0), Some(30 * S), "the old one lives");
    drop((old, std::mem::replace(&mut world.layer, layer)));
    assert!(world.driver.poll().is_ready());
    world.driver = spawn(driver);
    assert!(world.driver.poll().is_pending());
    for endpoint in &world.all {
        world.layer.layer_for(endpoint);
    }
    world.fail(1, 5);
    assert_eq!(world.remaining(1), Some(7 * S));
}

#[test]
fn an_evaluation_attaches_judges_where_no_layer_was_made() {
    let mut world = World::new(0, steady());
    world.publish((1..=3).map(crate::endpoint).collect());
    world.fail(0, 5);
    assert_eq!(world.ejected(), [], "nobody has heard of it");
    world.pass(10 * S);
    world.fail(0, 5);
    assert_eq!(world.ejected(), [0]);
}

#[test]
fn an_idle_driver_wakes_once_in_an_interval_and_never_itself() {
    let mut world = World::new(3, steady());
    assert!(!world.driver.is_woken());
    let timers = world.time.timers_registered();
    for _ in 0..10 {
        world.time.advance(10 * S);
        assert!(world.driver.is_woken());
        assert!(world.driver.poll().is_pending());
        assert!(!world.driver.is_woken());
    }
    assert_eq!(world.time.timers_registered() - timers, 10);
    let timers = world.time.timers_registered();
    world.pass(100 * S);
    assert_eq!(world.time.timers_registered() - timers, 10);
    world.interval(&[0]);
    assert!(
        !world.driver.is_woken(),
        "an ejection of its own is no news to it"
    );
}

#[test]
fn turns_that_were_missed_are_not_made_up_for() {
    let mut world = World::new(3, steady());
    world.time.advance(1_000 * S);
    let reads = world.time.reads();
    assert!(world.driver.poll().is_pending());
    assert!(world.time.reads() - reads < 10, "one turn, not a hundred");
    let evaluated = world.snapshot().evaluated;
    assert_eq!(evaluated, Some(world.clock.now()));
    world.pass(9 * S);
    assert_eq!(world.snapshot().evaluated, evaluated);
    world.pass(S);
    assert!(world.snapshot().evaluated > evaluated);
}

#[test]
fn who_panics_while_an_ejection_is_logged_harms_nobody() {
    struct Panics;

    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("tower_mesh_health")
        }

        fn event(&self, _: &tracing::Event<'_>) {
            panic!("a bug in the subscriber");
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let mut world = World::new(4, steady());
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    tracing::subscriber::with_default(Panics, || {
        let _ = catch_unwind(AssertUnwindSafe(|| world.fail(0, 5)));
    });
    assert_eq!(world.ejected(), [0]);
    world.fail(1, 5);
    assert_eq!(world.ejected(), [0, 1]);
    world.pass(30 * S);
    assert_eq!(world.ejected(), []);
}

#[test]
fn futures_can_be_spawned_and_handles_shared() {
    fn can<T: Send + 'static>(_: &T) {}
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}

    let world = World::new(1, steady());
    let (layer, driver) = OutlierLayer::builder(&world.set).build();
    can(&driver);
    shared(&layer);
    shared(layer.handle());
    let (checker, driver) =
        HealthChecker::builder(|_: Endpoint| async { Ok::<_, std::io::Error>(()) }).build();
    can(&driver);
    shared(&checker);
    let (components, driver) = Components::builder().build();
    can(&driver);
    shared(&components);
    can(&components.push("cache", Criticality::Optional));
}
