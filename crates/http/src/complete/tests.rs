use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use proptest::prelude::*;
use tower::load::CompleteOnResponse;
use tower_mesh_core::{
    Attempt, Class, Classify, Clock, GateHandle, Instant, Judge, JudgeKind, ManualClock, Sampling,
    Shut, Standing, Ticket, Vitals,
};

use super::*;
use crate::{
    HttpClassify,
    script::{Script, Step, grpc_status},
};

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

fn poll<B: Body + Unpin>(body: &mut B) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
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

/// A half-open gate with one place.
#[derive(Debug, Default)]
struct OnePlace {
    taken: AtomicBool,
    reported: AtomicBool,
}

impl Judge for OnePlace {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Limited
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        if self.taken.swap(true, Ordering::Relaxed) {
            Err(Shut::new(JudgeKind::Breaker, None))
        } else {
            Ok(Ticket::new(0, true))
        }
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {
        self.reported.store(true, Ordering::Relaxed);
        self.taken.store(false, Ordering::Relaxed);
    }

    fn release(&self, _: Ticket) {
        self.taken.store(false, Ordering::Relaxed);
    }
}

fn manual() -> (Clock, ManualClock, Arc<Vitals>) {
    let (clock, hands) = Clock::manual();
    (clock, hands, Vitals::detached())
}

fn attempt(vitals: &Arc<Vitals>, clock: &Clock) -> Result<Attempt, Shut> {
    vitals.attempt(clock, Sampling::Mean)
}

// scenario 25
#[test]
fn a_probe_whose_body_is_dropped_after_the_head_gives_its_place_back_and_says_nothing() {
    let (clock, _, vitals) = manual();
    let judge = Arc::new(OnePlace::default());
    let attached = Arc::clone(&judge);
    vitals.attach(JudgeKind::Breaker, |gate: GateHandle| {
        gate.set(true);
        attached
    });

    let probe = attempt(&vitals, &clock).unwrap();
    assert!(probe.is_probe());
    let response = Response::new(Script::new([Step::Data("a"), Step::Data("b")]));
    let mut body = track(response, probe);
    assert!(poll(&mut body).is_ready());
    assert!(attempt(&vitals, &clock).is_err(), "the place is taken");

    drop(body);
    assert!(!judge.reported.load(Ordering::Relaxed));
    assert!(attempt(&vitals, &clock).is_ok(), "the place is free");
}

/// Calls an endpoint whose head comes after 10 ms and whose body takes 90 ms more, and gives how many calls were in
/// flight while the body streamed, and what latency was seen.
fn slow_body<C, R>(completion: C) -> (u32, Option<f32>)
where
    C: TrackCompletion<Attempt, Response<Script>, Output = Response<R>>,
    R: Body<Data = bytes::Bytes> + Unpin,
{
    let (clock, hands, vitals) = manual();
    let mut attempt = attempt(&vitals, &clock).unwrap();
    hands.advance(Duration::from_millis(10));
    let response = Response::new(Script::new([Step::Data("a"), Step::Data("b")]));
    if let Verdict::Done(outcome) = HttpClassify::new().classify(Ok(&response)) {
        attempt.finish(outcome);
    }
    let mut body = completion.track_completion(attempt, response).into_body();
    assert!(poll(&mut body).is_ready());
    let streaming = vitals.load().in_flight();
    hands.advance(Duration::from_millis(90));
    read(&mut body);
    assert_eq!(vitals.load().in_flight(), 0);
    (streaming, vitals.load().latency_us())
}

// flaws W10, T28: the peer is tower's own completion.
#[test]
fn load_and_latency_last_to_the_end_of_the_body_where_towers_end_at_the_head() {
    assert_eq!(slow_body(CompleteOnBody::new()), (1, Some(100_000.0)));
    assert_eq!(slow_body(CompleteOnResponse::default()), (0, None));
}

#[test]
fn an_attempt_finished_at_the_head_stays_so_and_is_in_flight_while_the_body_streams() {
    let (clock, _, vitals) = manual();
    let mut attempt = attempt(&vitals, &clock).unwrap();
    let mut response = Response::new(Script::new([Step::Data("sorry")]));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let Verdict::Done(outcome) = HttpClassify::new().classify(Ok(&response)) else {
        panic!("503 is known at the head");
    };
    attempt.finish(outcome);
    let mut body = track(response, attempt);
    assert_eq!(vitals.load().in_flight(), 1);
    assert_eq!(read(&mut body), "sorry");
    assert_eq!(
        (vitals.load().in_flight(), vitals.load().failures()),
        (0, 1)
    );
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Data("x")),
        2 => Just(Step::Pending),
        1 => prop::sample::select(&["0", "3", "8", "14", "x"][..])
            .prop_map(|code| Step::Trailers(grpc_status(code))),
        1 => Just(Step::Error),
        1 => Just(Step::Panic),
    ]
}

/// What a guard has to see when `polls` polls are made of these steps.
fn expected(steps: &[Step], tells_end: bool, grpc: bool, polls: usize) -> Vec<Event> {
    let at_end = |code: Option<&str>| match (grpc, code) {
        (false, _) | (true, Some("0" | "3")) => Class::Success,
        (true, Some("8")) => Class::Overload,
        (true, _) => Class::Failure,
    };
    let over = |seen: usize| tells_end && seen == steps.len();
    let end = if over(0) {
        Some(at_end(None))
    } else {
        (0..polls).find_map(|i| match steps.get(i) {
            None => Some(at_end(None)),
            Some(Step::Trailers(trailers)) => Some(at_end(trailers["grpc-status"].to_str().ok())),
            Some(Step::Error | Step::Panic) => Some(Class::Failure),
            Some(Step::Data(_)) => over(i + 1).then(|| at_end(None)),
            Some(Step::Pending) => None,
        })
    };
    end.map(Finished).into_iter().chain([Released]).collect()
}

proptest! {
    // invariant I9
    #[test]
    fn whatever_a_body_does_and_wherever_it_is_dropped_the_guard_is_finished_at_most_once_and_released_once(
        steps in prop::collection::vec(step(), 0..6),
        tells_end: bool,
        is_grpc: bool,
        polls in 0usize..9,
    ) {
        let log = Log::default();
        let mut script = Script::new(steps.clone());
        if tells_end {
            script = script.telling_its_end();
        }
        let response = if is_grpc { grpc(script) } else { Response::new(script) };
        let mut body = track(response, log.guard());
        for _ in 0..polls {
            let _ = catch_unwind(AssertUnwindSafe(|| poll(&mut body).is_ready()));
        }
        drop(body);
        prop_assert_eq!(log.events(), expected(&steps, tells_end, is_grpc, polls));
    }
}
