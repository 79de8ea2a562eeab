//! The gate and the load under every order of two or three threads.

use std::sync::Arc;

use loom::thread;

use crate::{
    frame,
    gate::{GateHandle, Judge, JudgeKind, Shut, Standing, Ticket},
    load::Sampling,
    outcome::{Finish, Outcome},
    sync::{AtomicBool, AtomicU32, Mutex, Ordering, lock},
    time::{Clock, Instant},
    vitals::Vitals,
};

const NOW: Instant = Instant::from_nanos(1 << 60);

/// A judge that hands out one place, and knows how many are out.
#[derive(Debug)]
struct OnePlace {
    out: AtomicU32,
    ends: AtomicU32,
}

/// What the judge's tickets say, so that they can be told from the gate's own.
const JUDGED: u32 = 99;

impl Judge for OnePlace {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Limited
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        let taken = self
            .out
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
        taken.map_err(|_| Shut::new(JudgeKind::Breaker, None))?;
        Ok(Ticket::new(JUDGED, true))
    }

    fn report(&self, ticket: Ticket, _: Outcome, _: std::time::Duration, _: Instant) {
        self.release(ticket);
    }

    fn release(&self, ticket: Ticket) {
        if ticket.is_probe() {
            self.out.fetch_sub(1, Ordering::AcqRel);
            self.ends.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An endpoint's state with a judge whose hand on the gate is given as well.
fn judged() -> (Arc<Vitals>, Arc<OnePlace>, GateHandle) {
    let vitals = Vitals::detached();
    let judge = Arc::new(OnePlace {
        out: AtomicU32::new(0),
        ends: AtomicU32::new(0),
    });
    let handle = Mutex::new(None);
    vitals.attach(JudgeKind::Breaker, |gate| {
        *lock(&handle) = Some(gate);
        Arc::clone(&judge) as Arc<dyn Judge>
    });
    let handle = lock(&handle).take().expect("the judge was just attached");
    (vitals, judge, handle)
}

#[test]
fn of_two_transitions_that_race_the_later_one_counts() {
    loom::model(|| {
        let (vitals, _, handle) = judged();
        let opens = handle.clone();
        let opening = thread::spawn(move || opens.set_epoch(1, true));
        let closing = thread::spawn(move || handle.set_epoch(2, false));
        // Flag and epoch are one word: whoever is admitted past the judge is so in an epoch in which the gate was open.
        if let Ok(ticket) = vitals.gate().admit(NOW) {
            assert!([0, 2, JUDGED].contains(&ticket.epoch()), "{ticket:?}");
        }
        opening.join().unwrap();
        closing.join().unwrap();
        assert_eq!(vitals.gate().admit(NOW), Ok(Ticket::new(2, false)));
    });
}

#[test]
fn a_transition_undoes_no_drain_and_a_drain_no_transition() {
    loom::model(|| {
        let (vitals, _, handle) = judged();
        let drained = Arc::clone(&vitals);
        let drain = thread::spawn(move || drained.gate().set_draining(true));
        handle.set_epoch(1, true);
        drain.join().unwrap();
        let shut = vitals.gate().admit(NOW).expect_err("it is drained");
        assert_eq!(shut.by(), JudgeKind::Drain);
        vitals.gate().set_draining(false);
        assert_eq!(vitals.gate().admit(NOW), Ok(Ticket::new(JUDGED, true)));
    });
}

#[test]
fn who_knows_of_a_drain_is_not_admitted() {
    loom::model(|| {
        let (vitals, _, _handle) = judged();
        let told = Arc::new(AtomicBool::new(false));
        let (drained, tells) = (Arc::clone(&vitals), Arc::clone(&told));
        let drain = thread::spawn(move || {
            drained.gate().set_draining(true);
            tells.store(true, Ordering::Release);
        });
        let knew = told.load(Ordering::Acquire);
        let admitted = vitals.gate().admit(NOW);
        assert!(!knew || admitted.is_err());
        drain.join().unwrap();
    });
}

#[test]
fn attempts_in_flight_come_back_to_nothing_however_they_end() {
    loom::model(|| {
        let (clock, _handle) = Clock::manual();
        let vitals = Vitals::detached();
        let (one, two) = (Arc::clone(&vitals), Arc::clone(&vitals));
        let clocks = (clock.clone(), clock.clone());
        let finished = thread::spawn(move || {
            let mut attempt = one.attempt(&clocks.0, Sampling::Mean).unwrap();
            attempt.finish(Outcome::success());
            attempt.finish(Outcome::failure());
        });
        let abandoned = thread::spawn(move || {
            let attempt = two.attempt(&clocks.1, Sampling::Mean).unwrap();
            frame::timing_out(|| drop(attempt));
        });
        let load = vitals.load();
        assert!(load.in_flight() <= 2);
        finished.join().unwrap();
        abandoned.join().unwrap();
        assert_eq!(
            (load.in_flight(), load.attempts(), load.failures()),
            (0, 2, 1)
        );
        // Of two samples at once one may be lost, but what is there is whole.
        assert!((0.0..=1.0).contains(&load.success()));
        assert!(load.latency_us().is_none_or(f32::is_finite));
    });
}

#[test]
fn a_place_is_given_back_once_for_each_probe() {
    loom::model(|| {
        let (clock, _handle) = Clock::manual();
        let (vitals, judge, handle) = judged();
        handle.set(true);
        let (other, other_clock) = (Arc::clone(&vitals), clock.clone());
        let dropped = thread::spawn(move || other.attempt(&other_clock, Sampling::Mean).is_ok());
        let finished = match vitals.attempt(&clock, Sampling::Mean) {
            Ok(mut probe) => {
                assert!(probe.is_probe());
                probe.finish(Outcome::success());
                true
            }
            Err(shut) => shut.by() != JudgeKind::Breaker,
        };
        let dropped = dropped.join().unwrap();
        assert!(finished || dropped, "one of them got the place");
        assert_eq!(judge.out.load(Ordering::Acquire), 0);
        let ends = u32::from(finished) + u32::from(dropped);
        assert_eq!(judge.ends.load(Ordering::Relaxed), ends);
        assert_eq!(vitals.load().in_flight(), 0);
    });
}
