//! What is logged: transitions, each once.

use std::sync::{Arc, Mutex};

use tower_mesh_core::Endpoint;
use tower_mesh_health::{Components, Criticality, HealthChecker, Report};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{S, World, lock, steady};

/// Keeps level and message of each event of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_mesh_health")
    }

    fn event(&self, event: &Event<'_>) {
        struct Message(String);

        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }

        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        lock(&self.0).push((level, message.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn logged(act: impl FnOnce(&dyn Fn(&[(Level, &str)]))) {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    // With a single subscriber tracing asks only the thread that meets an event first, which may be another test's.
    let _second = tracing::Dispatch::new(Log::default());
    act(&|expected| {
        let is = log.take();
        let is: Vec<_> = is.iter().map(|(level, text)| (*level, &**text)).collect();
        assert_eq!(is, expected);
    });
}

#[test]
fn an_ejection_and_a_return_are_logged_once_each() {
    logged(|said| {
        let mut world = World::new(3, steady());
        world.fail(0, 4);
        said(&[]);
        world.fail(0, 40);
        said(&[(Level::WARN, "endpoint ejected")]);
        world.fail(1, 40);
        world.succeed(1, 40);
        world.pass(29 * S);
        said(&[]);
        world.pass(S);
        said(&[(Level::INFO, "endpoint no longer ejected")]);
        world.pass(1_000 * S);
        said(&[]);
    });
}

#[test]
fn a_check_is_logged_when_it_turns_and_not_while_it_goes_on() {
    logged(|said| {
        let world = World::new(1, steady());
        let well = Arc::new(Mutex::new(true));
        let asked = Arc::clone(&well);
        let (checker, driver) = HealthChecker::builder(move |_: Endpoint| {
            let well = *lock(&asked);
            async move { well.then_some(()).ok_or("refused") }
        })
        .clock(world.clock.clone())
        .build();
        checker.watch(&world.set);
        let mut driver = tokio_test::task::spawn(driver);
        assert!(driver.poll().is_pending());
        let mut pass = |by| crate::pass(&mut driver, &world.time, &world.clock, by);
        pass(100 * S);
        said(&[]);
        *lock(&well) = false;
        pass(100 * S);
        said(&[(Level::WARN, "endpoint unhealthy")]);
        *lock(&well) = true;
        pass(100 * S);
        said(&[(Level::INFO, "endpoint healthy again")]);
    });
}

#[test]
fn a_component_is_logged_when_it_turns() {
    logged(|said| {
        let (components, _driver) = Components::builder().build();
        let cache = components.push("cache", Criticality::Critical).unwrap();
        cache.report(Report::healthy());
        said(&[]);
        cache.report(Report::degraded("slow"));
        cache.report(Report::degraded("slow"));
        said(&[(Level::WARN, "component degraded")]);
        cache.report(Report::unhealthy("down"));
        said(&[(Level::WARN, "component unhealthy")]);
        cache.report(Report::healthy());
        cache.report(Report::healthy());
        said(&[(Level::INFO, "component healthy again")]);
        let queue = components.push("queue", Criticality::Critical).unwrap();
        queue.report(Report::unhealthy("down"));
        said(&[(Level::WARN, "component unhealthy")]);
    });
}
