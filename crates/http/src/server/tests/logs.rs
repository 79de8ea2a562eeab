//! What a server writes into the log.

use std::sync::Mutex;

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::with_default,
};

use super::*;

/// Keeps what is written from `info` on, fields and all, and spans as they are made.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self, with: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let lines = lines.iter().filter(|line| line.contains(with));
        lines.cloned().collect()
    }

    fn write(&self, what: &str, write: impl FnOnce(&mut Line)) {
        let mut line = Line(what.to_owned());
        write(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.write(span.metadata().name(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, record: &Record<'_>) {
        self.write("record", |line| record.record(line));
    }

    fn event(&self, event: &Event<'_>) {
        self.write("event", |line| event.record(line));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

// row 25
#[test]
fn a_flood_of_errors_is_ten_lines_a_second_and_says_how_many_there_were() {
    let (layer, hand) = layer();
    let log = Log::default();
    with_default(log.clone(), || {
        for _ in 0..1_000 {
            ask(layer.layer(failing(|| "no".into())), request("/", &[]));
        }
        assert_eq!(log.lines("failed").len(), 10);
        hand.advance(Duration::from_secs(1));
        ask(layer.layer(failing(|| "no".into())), request("/", &[]));
    });
    let lines = log.lines("failed");
    assert_eq!(lines.len(), 11);
    assert!(lines[10].contains("not_logged_before=990"), "{}", lines[10]);
    assert_eq!(layer.counts().failed, 1_001, "counted all the same");
}

#[test]
fn what_is_refused_is_not_logged_at_all() {
    let (layer, _) = layer();
    let log = Log::default();
    with_default(log.clone(), || {
        let overloaded = || Refusal::local(Kind::Overloaded).into();
        ask(layer.layer(failing(overloaded)), request("/", &[]));
        let denied = || crate::server::Denied::forbidden("no").into();
        ask(layer.layer(failing(denied)), request("/", &[]));
        let expired = [("x-request-timeout-ms", "0")];
        ask(layer.layer(untouched()), request("/", &expired));
    });
    assert_eq!(log.lines("event"), [""; 0]);
}

#[test]
fn a_request_has_a_span_with_its_trace_and_its_attempt() {
    let (layer, _) = layer();
    let log = Log::default();
    with_default(log.clone(), || {
        let headers = [("traceparent", PARENT), ("x-mesh-attempt", "3")];
        ask(
            layer.layer(failing(|| "no".into())),
            request("/orders/42", &headers),
        );
    });
    assert_eq!(
        log.lines("serve")[0],
        "serve method=GET path=\"/orders/42\""
    );
    let trace = log.lines("trace_id");
    assert_eq!(trace, ["record trace_id=4bf92f3577b34da6a3ce929d0e0e4736"]);
    assert_eq!(
        log.lines("parent_id"),
        ["record parent_id=00f067aa0ba902b7"]
    );
    assert_eq!(log.lines("attempt"), ["record attempt=3"]);
}
