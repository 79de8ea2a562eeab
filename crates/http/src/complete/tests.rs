mod attempt;
mod model;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    task::Waker,
};

use http::{HeaderValue, header::CONTENT_TYPE};
use tower_mesh_core::Class;

use super::*;
use crate::script::{Script, Step, grpc_status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Finished(Class),
    Released,
}
use Event::{Finished, Released};

/// A guard that writes down what becomes of it.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Event>>>);

impl Log {
    fn events(&self) -> Vec<Event> {
        self.0.borrow().clone()
    }

    fn guard(&self) -> Guard {
        Guard(self.clone())
    }
}

struct Guard(Log);

impl Finish for Guard {
    fn finish(&mut self, outcome: Outcome) {
        self.0.0.borrow_mut().push(Finished(outcome.class()));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.borrow_mut().push(Released);
    }
}

const SUCCESS: [Event; 2] = [Finished(Class::Success), Released];
const FAILURE: [Event; 2] = [Finished(Class::Failure), Released];

fn grpc(script: Script) -> Response<Script> {
    let mut response = Response::new(script);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/grpc+proto"),
    );
    response
}

fn track<B: Body, G: Finish>(response: Response<B>, guard: G) -> TrackedBody<B, G> {
    CompleteOnBody::new()
        .track_completion(guard, response)
        .into_body()
}

fn plain(steps: impl IntoIterator<Item = Step>, log: &Log) -> TrackedBody<Script, Guard> {
    track(Response::new(Script::new(steps)), log.guard())
}

type Next<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

fn poll<B: Body + Unpin>(body: &mut B) -> Next<B> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// Polls it to its end and gives the data.
fn read<B>(body: &mut B) -> String
where
    B: Body<Data = bytes::Bytes> + Unpin,
{
    let mut read = String::new();
    loop {
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    read.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
            Poll::Ready(None | Some(Err(_))) => return read,
            Poll::Pending => {}
        }
    }
}

#[test]
fn a_body_that_ends_is_a_success_and_the_guard_is_held_until_then() {
    let log = Log::default();
    let mut body = plain([Step::Data("a"), Step::Pending, Step::Data("b")], &log);
    for _ in 0..3 {
        assert!(!matches!(poll(&mut body), Poll::Ready(None)));
        assert_eq!(log.events(), []);
    }
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
    assert_eq!(log.events(), SUCCESS, "before the body is dropped");
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
    drop(body);
    assert_eq!(log.events(), SUCCESS);
}

#[test]
fn the_end_counts_with_the_last_frame_that_tells_it_since_many_never_poll_again() {
    let log = Log::default();
    let script = Script::new([Step::Data("a"), Step::Data("b")]).telling_its_end();
    let mut body = track(Response::new(script), log.guard());
    assert!(poll(&mut body).is_ready());
    assert_eq!(log.events(), []);
    assert!(poll(&mut body).is_ready());
    assert_eq!(log.events(), SUCCESS);
}

#[test]
fn a_body_that_has_ended_at_the_head_holds_nothing() {
    let log = Log::default();
    let body = track(
        Response::new(Script::new([]).telling_its_end()),
        log.guard(),
    );
    assert_eq!(log.events(), SUCCESS);
    assert!(body.is_end_stream());
}

#[test]
fn a_body_that_breaks_is_a_failure_and_its_error_goes_to_the_reader() {
    let log = Log::default();
    let mut body = plain([Step::Data("a"), Step::Error], &log);
    assert!(poll(&mut body).is_ready());
    let Poll::Ready(Some(Err(error))) = poll(&mut body) else {
        panic!("no error");
    };
    assert!(
        error.is::<std::io::Error>(),
        "what is not hyper's passes unchanged"
    );
    assert_eq!(log.events(), FAILURE);
}

// row 14
#[test]
fn a_body_dropped_at_any_frame_before_its_end_is_no_verdict_and_gives_back_what_it_held() {
    let steps = [
        Step::Data("a"),
        Step::Pending,
        Step::Data("b"),
        Step::Data("c"),
    ];
    for polls in 0..=steps.len() {
        let log = Log::default();
        let mut body = plain(steps.clone(), &log);
        for _ in 0..polls {
            let _ = poll(&mut body);
        }
        assert_eq!(log.events(), [], "after {polls} polls");
        drop(body);
        assert_eq!(log.events(), [Released], "after {polls} polls");
    }
}

#[test]
fn a_body_that_panics_is_a_failure() {
    let log = Log::default();
    let mut body = plain([Step::Data("a"), Step::Panic], &log);
    assert!(poll(&mut body).is_ready());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut body))).is_err());
    assert_eq!(log.events(), FAILURE);
    drop(body);
    assert_eq!(log.events(), FAILURE);
}

// scenario 11
#[test]
fn a_grpc_status_in_the_trailers_decides_and_the_body_passes_unchanged() {
    for (code, class) in [
        ("0", Class::Success),
        ("5", Class::Success),
        ("14", Class::Failure),
        ("8", Class::Overload),
    ] {
        let log = Log::default();
        let script = Script::new([Step::Data("frame"), Step::Trailers(grpc_status(code))]);
        let mut body = track(grpc(script), log.guard());
        let Poll::Ready(Some(Ok(data))) = poll(&mut body) else {
            panic!("no data");
        };
        assert_eq!(data.into_data().unwrap(), "frame");
        assert_eq!(log.events(), []);
        let Poll::Ready(Some(Ok(trailers))) = poll(&mut body) else {
            panic!("no trailers");
        };
        assert_eq!(trailers.into_trailers().unwrap(), grpc_status(code));
        assert_eq!(log.events(), [Finished(class), Released], "{code}");
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }
}

#[test]
fn grpc_that_ends_without_a_status_is_a_failure() {
    let log = Log::default();
    let mut body = track(grpc(Script::new([Step::Data("frame")])), log.guard());
    read(&mut body);
    assert_eq!(log.events(), FAILURE);
}

// row 15
#[test]
fn nothing_is_read_ahead_or_held_back() {
    let log = Log::default();
    let endless = (0..10_000).map(|_| Step::Data("x"));
    let mut body = plain(endless.chain([Step::Panic]), &log);
    for _ in 0..10_000 {
        assert!(poll(&mut body).is_ready());
    }
    assert_eq!(log.events(), []);
}

#[test]
fn the_attempt_ends_before_the_permit_of_the_call_around_it() {
    let (attempt, permit) = (Log::default(), Log::default());
    let response = CompleteOnBody::new().track_completion(
        attempt.guard(),
        grpc(Script::new([
            Step::Data("a"),
            Step::Trailers(grpc_status("14")),
        ])),
    );
    let mut body = track(response, permit.guard());
    assert!(poll(&mut body).is_ready());
    assert_eq!((attempt.events(), permit.events()), (vec![], vec![]));
    assert!(poll(&mut body).is_ready());
    assert_eq!(attempt.events(), FAILURE);
    assert_eq!(permit.events(), FAILURE);

    let (attempt, permit) = (Log::default(), Log::default());
    let inner = plain([Step::Data("a"), Step::Error], &attempt);
    let body = track(Response::new(inner), permit.guard());
    drop(body);
    assert_eq!(attempt.events(), [Released]);
    assert_eq!(permit.events(), [Released]);
}
