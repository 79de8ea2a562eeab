//! Every order of two threads over the shipped atomics.

use std::{sync::Arc, time::Duration};

use loom::{
    model,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
};
use tower_mesh_core::{
    Instant, Judge, JudgeKind, Outcome, Ratio, Rng, Shut, Standing, Ticket, Vitals,
};

use crate::{
    circuit::Circuit,
    epoch::Dated,
    phase::State,
    policy::{Policy, nanos},
    settings::Settings,
    transition::{Change, Reason},
    window::{Buckets, LastCalls, Tally},
};

const NOW: Instant = Instant::from_nanos(1 << 60);
const S: Duration = Duration::from_secs(1);

/// The circuit behind a real gate.
#[derive(Debug)]
struct Judging(Arc<Circuit>);

impl Judge for Judging {
    fn standing(&self, now: Instant) -> Standing {
        self.0.standing(now)
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Shut> {
        let free = self.0.admit_free();
        free.map_or_else(|| self.0.admit_limited(now).0, Ok)
    }

    fn report(&self, ticket: Ticket, outcome: Outcome, latency: Duration, now: Instant) {
        self.0.report(ticket, outcome, nanos(latency), now);
    }

    fn release(&self, ticket: Ticket) {
        self.0.release(ticket);
    }

    fn admit_in_panic(&self, now: Instant) -> Result<Ticket, Shut> {
        self.0.admit_in_panic(now).0
    }
}

/// One failure opens it for a second, one probe at a time closes it.
fn touchy() -> Policy {
    Policy::default()
        .consecutive_failures(std::num::NonZeroU32::MIN)
        .failure_rate(None)
        .jitter(Ratio::ZERO)
}

fn circuit(policy: Policy) -> (Arc<Circuit>, Arc<Vitals>) {
    let vitals = Vitals::detached();
    let mut circuit = None;
    vitals.attach(JudgeKind::Breaker, |gate| {
        let settings = Settings {
            rng: Rng::seeded(1),
            ..Settings::new(policy)
        };
        let made = Arc::new(Circuit::new(Arc::new(settings), Some(gate), NOW));
        circuit = Some(Arc::clone(&made));
        Arc::new(Judging(made))
    });
    (circuit.expect("a new gate has no judge"), vitals)
}

fn failure(circuit: &Circuit, ticket: Ticket, now: Instant) -> Option<Change> {
    circuit.report(ticket, Outcome::failure(), 0, now)
}

fn success(circuit: &Circuit, ticket: Ticket, now: Instant) -> Option<Change> {
    circuit.report(ticket, Outcome::success(), 0, now)
}

/// A breaker that has opened at `NOW`, and the ticket of a call that began before.
fn opened() -> (Arc<Circuit>, Arc<Vitals>, Ticket) {
    let (circuit, vitals) = circuit(touchy());
    let before = vitals.gate().admit(NOW).expect("it is closed");
    failure(&circuit, before, NOW).expect("one failure opens it");
    (circuit, vitals, before)
}

/// The gate says what the phase says, and under its epoch.
fn assert_gate_agrees(circuit: &Circuit, vitals: &Vitals) {
    let phase = circuit.phase();
    let is_open = !phase.state.limits();
    assert_eq!(vitals.gate().is_open(), is_open, "{phase:?}");
    if is_open {
        let ticket = vitals.gate().admit(NOW).expect("it is open");
        assert_eq!(ticket, Ticket::new(phase.epoch, false));
    }
}

#[test]
fn two_failures_at_once_open_it_once() {
    model(|| {
        let (circuit, vitals) = circuit(touchy());
        let ticket = vitals.gate().admit(NOW).expect("it is closed");
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || failure(&circuit, ticket, NOW).is_some())
        };
        let here = failure(&circuit, ticket, NOW).is_some();
        let there = other.join().expect("no panic");
        assert!(here != there);
        assert_eq!(
            (circuit.phase().state, circuit.phase().openings),
            (State::Open, 1)
        );
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn never_more_probes_are_out_than_may_be_and_none_is_at_rest() {
    model(|| {
        let (circuit, vitals, _) = opened();
        let out = Arc::new(AtomicU32::new(0));
        let probe = {
            let (circuit, out) = (Arc::clone(&circuit), Arc::clone(&out));
            move |vitals: &Vitals, is_abandoned: bool| {
                let Ok(ticket) = vitals.gate().admit(NOW + S) else {
                    return;
                };
                if ticket.is_probe() {
                    assert_eq!(out.fetch_add(1, SeqCst), 0, "two probes at once");
                    out.fetch_sub(1, SeqCst);
                }
                if is_abandoned {
                    circuit.release(ticket);
                } else {
                    success(&circuit, ticket, NOW + S);
                }
            }
        };
        let other = {
            let (vitals, probe) = (Arc::clone(&vitals), probe.clone());
            thread::spawn(move || probe(&vitals, true))
        };
        probe(&vitals, false);
        other.join().expect("no panic");
        assert_eq!(circuit.phase().out, 0);
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn of_two_in_a_panic_one_gets_the_place_out_of_turn() {
    model(|| {
        let (circuit, vitals, _) = opened();
        let ask = |vitals: &Vitals| vitals.gate().admit_in_panic(NOW);
        let other = {
            let vitals = Arc::clone(&vitals);
            thread::spawn(move || ask(&vitals))
        };
        let (here, there) = (ask(&vitals), other.join().expect("no panic"));
        assert!(here.is_ok() != there.is_ok());
        assert_eq!(circuit.phase().out, 1);
        let probe = here.or(there).expect("one of them");
        assert!(probe.is_probe());
        success(&circuit, probe, NOW);
        assert_eq!(circuit.phase().state, State::Closed);
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn a_place_out_of_turn_and_one_in_turn_are_one_place() {
    model(|| {
        let (circuit, vitals, _) = opened();
        let other = {
            let vitals = Arc::clone(&vitals);
            thread::spawn(move || vitals.gate().admit_in_panic(NOW + S))
        };
        let here = vitals.gate().admit(NOW + S);
        let there = other.join().expect("no panic");
        assert!(here.is_ok() != there.is_ok());
        let probe = here.or(there).expect("one of them");
        failure(&circuit, probe, NOW + S);
        let phase = circuit.phase();
        assert_eq!((phase.state, phase.failed), (State::Open, 1));
        assert!((1..=2).contains(&phase.openings));
        let shut = vitals.gate().admit_in_panic(NOW + S).expect_err("not yet");
        assert!(shut.until() > Some(NOW + S));
    });
}

#[test]
fn who_asks_in_a_panic_while_calls_open_it_finds_it_closed_open_or_on_probation() {
    model(|| {
        let (circuit, vitals) = circuit(touchy());
        let before = vitals.gate().admit(NOW).expect("it is closed");
        let opening = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || failure(&circuit, before, NOW))
        };
        let ticket = vitals.gate().admit_in_panic(NOW);
        opening.join().expect("no panic");
        let phase = circuit.phase();
        match ticket {
            Ok(ticket) if ticket.is_probe() => assert_eq!(
                (phase.state, phase.out, phase.epoch),
                (State::HalfOpen, 1, ticket.epoch())
            ),
            // It was closed, or not dated yet.
            _ => assert_eq!(phase.state, State::Open),
        }
        assert_gate_agrees(&circuit, &vitals);
    });
}

/// Half-open with `out` probes under way, two at once of three.
fn half_open(out: usize) -> (Arc<Circuit>, Arc<Vitals>, Vec<Ticket>) {
    let number = |n: u8| std::num::NonZeroU8::new(n).expect("it is not zero");
    let (circuit, vitals) = circuit(touchy().probes(number(3)).probes_at_once(number(2)));
    let ticket = vitals.gate().admit(NOW).expect("it is closed");
    failure(&circuit, ticket, NOW);
    let admit = || vitals.gate().admit(NOW + S).expect("a place is free");
    let mut tickets = vec![admit(), admit()];
    for ticket in tickets.drain(out..) {
        circuit.release(ticket);
    }
    (circuit, vitals, tickets)
}

#[test]
fn the_last_free_place_is_given_to_one() {
    model(|| {
        // The one probe is out for so long that its lease is over: who takes the free place renews it.
        let (circuit, vitals, _) = half_open(1);
        let later = NOW + 40 * S;
        let other = {
            let vitals = Arc::clone(&vitals);
            thread::spawn(move || vitals.gate().admit(later).is_ok())
        };
        let here = vitals.gate().admit(later).is_ok();
        let there = other.join().expect("no panic");
        assert!(here != there);
        assert_eq!(circuit.phase().out, 2);
    });
}

#[test]
fn places_that_come_back_at_once_are_all_free() {
    model(|| {
        let (circuit, _, tickets) = half_open(2);
        let (one, two) = (tickets[0], tickets[1]);
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.release(one))
        };
        success(&circuit, two, NOW + S);
        other.join().expect("no panic");
        assert_eq!((circuit.phase().out, circuit.phase().done), (0, 1));
    });
}

#[test]
fn a_stale_failure_does_not_reopen_what_a_probe_closes() {
    model(|| {
        let (circuit, vitals, before) = opened();
        let probe = vitals.gate().admit(NOW + S).expect("its time is over");
        let stale = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || failure(&circuit, before, NOW + S))
        };
        success(&circuit, probe, NOW + S).expect("one probe closes it");
        assert_eq!(stale.join().expect("no panic"), None);
        let phase = circuit.phase();
        assert_eq!((phase.state, circuit.run(phase)), (State::Closed, 0));
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn a_stale_success_does_not_close_what_a_probe_reopens() {
    model(|| {
        let (circuit, vitals, before) = opened();
        let probe = vitals.gate().admit(NOW + S).expect("its time is over");
        let stale = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || success(&circuit, before, NOW + S))
        };
        failure(&circuit, probe, NOW + S).expect("a failed probe opens it");
        assert_eq!(stale.join().expect("no panic"), None);
        assert_eq!(circuit.phase().state, State::Open);
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn a_lost_probe_is_replaced_once_and_no_longer_counts() {
    model(|| {
        let (circuit, vitals, _) = opened();
        let lost = vitals.gate().admit(NOW + S).expect("its time is over");
        let later = NOW + 40 * S;
        let other = {
            let vitals = Arc::clone(&vitals);
            thread::spawn(move || vitals.gate().admit(later).is_ok())
        };
        let here = vitals.gate().admit(later).is_ok();
        let there = other.join().expect("no panic");
        assert!(here != there);
        assert_eq!(failure(&circuit, lost, later), None);
        circuit.release(lost);
        assert_eq!(
            (circuit.phase().state, circuit.phase().out),
            (State::HalfOpen, 1)
        );
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn whatever_transitions_race_the_gate_says_what_the_last_one_said() {
    model(|| {
        let (circuit, vitals) = circuit(touchy());
        let ticket = vitals.gate().admit(NOW).expect("it is closed");
        let trip = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || failure(&circuit, ticket, NOW))
        };
        let force = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.force(State::ForcedClosed, NOW, Reason::Forced))
        };
        trip.join().expect("no panic");
        force.join().expect("no panic");
        assert_eq!(circuit.phase().state, State::ForcedClosed);
        assert_gate_agrees(&circuit, &vitals);
    });
}

#[test]
fn who_comes_late_to_note_a_time_finds_that_of_the_next_epoch() {
    model(|| {
        let date = Arc::new(Dated::new(0, NOW));
        let late = {
            let date = Arc::clone(&date);
            thread::spawn(move || date.set(1, NOW + S))
        };
        date.set(2, NOW);
        late.join().expect("no panic");
        assert_eq!((date.get(1), date.get(2)), (None, Some(NOW)));
    });
}

#[test]
fn a_rotating_bucket_holds_calls_of_one_time_only() {
    model(|| {
        let window = Arc::new(Buckets::new(10 * S));
        window.record(true, 0, NOW);
        let late = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.record(true, 0, NOW))
        };
        let stale = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.record(false, 0, NOW + 10 * S))
        };
        window.record(false, 0, NOW + 10 * S);
        late.join().expect("no panic");
        stale.join().expect("no panic");
        let Tally { calls, against, .. } = window.tally(0, NOW + 10 * S);
        assert_eq!((calls, against), (2, 0));
    });
}

#[test]
fn an_old_epoch_never_shows_in_a_new_ones_window() {
    model(|| {
        let (buckets, ring) = (
            Arc::new(Buckets::new(10 * S)),
            Arc::new(LastCalls::new(std::num::NonZeroU16::MIN.saturating_add(2))),
        );
        let old = {
            let (buckets, ring) = (Arc::clone(&buckets), Arc::clone(&ring));
            thread::spawn(move || {
                buckets.record(true, 0, NOW);
                ring.record(true, 0);
                ring.record(true, 0);
            })
        };
        buckets.record(false, 1, NOW);
        ring.record(false, 1);
        old.join().expect("no panic");
        for tally in [buckets.tally(1, NOW), ring.tally(1)] {
            assert_eq!((tally.calls, tally.against), (1, 0));
        }
    });
}

#[test]
fn a_ring_never_holds_more_than_its_size_and_loses_no_bit() {
    model(|| {
        let ring = Arc::new(LastCalls::new(std::num::NonZeroU16::MIN.saturating_add(1)));
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.record(true, 0);
                ring.record(true, 0);
            })
        };
        ring.record(true, 0);
        other.join().expect("no panic");
        let tally = ring.tally(0);
        assert_eq!((tally.calls, tally.against), (2, 2));
    });
}
