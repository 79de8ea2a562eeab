//! With the guard of a real attempt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use http_body::Body;
use tower::load::{CompleteOnResponse, TrackCompletion};
use tower_mesh_core::{
    Attempt, Classify, Clock, Finish, GateHandle, Instant, Judge, JudgeKind, ManualClock, Outcome,
    Sampling, Shut, Standing, Ticket, Verdict, Vitals,
};

use super::{poll, read, track};
use crate::{
    CompleteOnBody, HttpClassify,
    script::{Script, Step},
};

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
    (streaming, vitals.load().latency_us().map(f32::round))
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
