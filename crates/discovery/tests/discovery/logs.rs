//! What is logged: transitions, each once.

use std::sync::{Arc, Mutex};

use tower_mesh_core::Update;
use tower_mesh_discovery::Discovery;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::script::{Say, Script, endpoint, moment, orders, pass, secs, start};

/// Keeps level and message of each event of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_mesh_discovery")
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
        self.0.lock().unwrap().push((level, message.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Row 25 of the hostile inputs: whatever goes on for long is said when it begins and when it ends.
#[tokio::test(start_paused = true)]
async fn only_transitions_are_logged_and_each_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    // With a single subscriber tracing asks only the thread that meets an event first, which may be another test's.
    let _second = tracing::Dispatch::new(Log::default());
    let logged = |expected: &[(Level, &str)]| {
        let is = log.take();
        let is: Vec<_> = is.iter().map(|(level, text)| (*level, &**text)).collect();
        assert_eq!(is, expected);
    };
    let script = Script::suspect();
    let discovery = start(Discovery::builder(script.clone()));
    let _endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &[endpoint(1), endpoint(1), endpoint(2)]);
    moment().await;
    let duplicate = "endpoints were dropped, \"127.0.0.1:1\" for example: \
                     its id or its address is named again later in the update";
    logged(&[(Level::WARN, duplicate), (Level::INFO, "found")]);

    for _ in 0..100 {
        script.replace(&orders(), &[endpoint(1), endpoint(1), endpoint(2)]);
    }
    moment().await;
    logged(&[]);

    for _ in 0..100 {
        script.say(&orders(), Say::Fail("no leader"));
    }
    pass(secs(60)).await;
    logged(&[(Level::WARN, "discovery fails, what was known stays")]);

    for _ in 0..100 {
        script.replace(&orders(), &[]);
    }
    pass(secs(10)).await;
    logged(&[
        (
            Level::WARN,
            "an answer loses most endpoints, the old ones are kept for now",
        ),
        (Level::INFO, "discovery answers again"),
    ]);
    pass(secs(60)).await;
    logged(&[
        (
            Level::WARN,
            "the lost endpoints stay away, they are dropped",
        ),
        (Level::WARN, "no endpoint is left"),
    ]);
    script.say(&orders(), Say::Update(Update::Absent));
    moment().await;
    logged(&[(Level::INFO, "no such service")]);
}
