//! More endpoints are out than can be true.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_balance::{Balance, BalanceLayer, NoEndpoint, Strategy};
use tower_mesh_breaker::{BreakerLayer, Policy, State};
use tower_mesh_core::{
    AtEndpoint, BoxError, Clock, Finish, GateHandle, Instant, Judge, JudgeKind, ManualClock,
    NewLayer, Outcome, Ratio, Rng, Sampling, Shut, Standing, Ticket,
};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::fleet::{Backend, Does, Fleet};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// Opens at the first failure, for a second, and hands out one place.
fn touchy() -> Policy {
    Policy::default()
        .consecutive_failures(std::num::NonZeroU32::MIN)
        .failure_rate(None)
        .jitter(Ratio::ZERO)
}

/// A fleet whose endpoints have breakers, under a clock that stands still.
struct Guarded {
    fleet: Fleet,
    breakers: BreakerLayer,
    time: ManualClock,
}

impl Guarded {
    fn new(size: u16, policy: Policy) -> Self {
        let (clock, time) = Clock::manual();
        let mut fleet = Fleet::new(1..=size);
        fleet.clock = clock.clone();
        let breakers = BreakerLayer::new(policy).clock(clock).rng(Rng::seeded(3));
        for endpoint in fleet.endpoints.current().endpoints() {
            breakers.layer_for(endpoint);
        }
        Self {
            fleet,
            breakers,
            time,
        }
    }

    fn ports(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.fleet.endpoints.current().endpoints().len() as u16
    }

    /// The client takes these for dead, be it wrong or right.
    fn open(&self, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            let vitals = self.fleet.at(port).vitals().clone();
            let attempt = vitals.attempt(&self.fleet.clock, Sampling::Mean);
            attempt.unwrap().finish(Outcome::failure());
            assert_eq!(self.state(port), State::Open);
        }
    }

    fn all(&self, does: Does) {
        self.ports().for_each(|port| self.fleet.let_it(port, does));
    }

    fn state(&self, port: u16) -> State {
        self.breakers.breaker(&self.fleet.at(port)).unwrap().state()
    }

    fn are_all(&self, state: State) -> bool {
        self.ports().all(|port| self.state(port) == state)
    }

    fn sent(&self) -> usize {
        self.ports().map(|port| self.fleet.calls(port)).sum()
    }
}

fn call<S: Service<(), Response = u16, Error = BoxError>>(
    balance: &mut S,
) -> Result<u16, BoxError> {
    assert_ready!(task::spawn(balance.call(())).poll())
}

fn refusal(result: Result<u16, BoxError>) -> NoEndpoint {
    *result.unwrap_err().downcast().expect("nobody was called")
}

// scenario S9: a client that is starved of CPU opens every breaker of a healthy fleet.
#[test]
fn when_all_breakers_of_a_healthy_fleet_have_opened_no_call_is_refused() {
    for size in [1, 2, 3, 10, 100] {
        let guarded = Guarded::new(size, touchy());
        guarded.open(guarded.ports());
        let layer = guarded.fleet.layer();
        let mut balance = layer.layer(guarded.fleet.connect());
        assert!(layer.is_panicking());
        for nth in 0..100 {
            assert!(call(&mut balance).is_ok(), "call {nth} of {size}");
        }
        assert!(!layer.is_panicking());
        // Half of them are trusted, so the others wait for their turn.
        guarded.time.advance(S);
        for _ in 0..100 * size {
            call(&mut balance).unwrap();
        }
        assert!(guarded.are_all(State::Closed), "{size}");
    }
}

#[test]
fn a_dead_fleet_has_as_many_probes_under_way_as_its_breakers_have_places() {
    for (size, places) in [(1, 1), (2, 1), (3, 1), (10, 1), (3, 2), (10, 2)] {
        let probes = NonZeroU8::new(places).unwrap();
        let guarded = Guarded::new(size, touchy().probes(probes).probes_at_once(probes));
        guarded.open(guarded.ports());
        guarded.all(Does::Hang);
        let mut balance = guarded.fleet.balance();
        let cap = usize::from(size) * usize::from(places);
        let mut under_way: Vec<_> = (0..cap).map(|_| task::spawn(balance.call(()))).collect();
        under_way
            .iter_mut()
            .for_each(|call| assert_pending!(call.poll()));
        for _ in 0..1_000 {
            assert_eq!(refusal(call(&mut balance)).known(), usize::from(size));
        }
        assert_eq!(guarded.sent(), cap);
        for port in guarded.ports() {
            assert_eq!(guarded.fleet.calls(port), usize::from(places));
        }
        assert_eq!(guarded.fleet.in_flight() as usize, cap);
        // Who goes away gives the place back.
        under_way.pop();
        assert_pending!(task::spawn(balance.call(())).poll());
    }
}

#[test]
fn a_dead_fleet_that_fails_at_once_gets_a_trickle_and_all_others_are_told_when_to_come_back() {
    for size in [1, 2, 3, 10] {
        let guarded = Guarded::new(size, touchy());
        guarded.open(guarded.ports());
        guarded.all(Does::Fail);
        let mut balance = guarded.fleet.balance();
        let mut due: Option<Duration> = None;
        for _ in 0..60_000 {
            guarded.time.advance(MS);
            due = due.map(|due| due.saturating_sub(MS));
            let error = call(&mut balance).unwrap_err();
            if AtEndpoint::of(&*error).is_some() {
                assert!(due.is_none_or(|due| due < MS), "{due:?} too early");
                due = None;
                continue;
            }
            let wait = refusal(Err(error)).retry_after().unwrap();
            assert!(wait > Duration::ZERO && wait <= S);
            assert!(
                due.is_none_or(|due| due.abs_diff(wait) < MS),
                "{due:?} {wait:?}"
            );
            due = Some(wait);
        }
        let each = guarded.sent() / usize::from(size);
        assert!((60..=68).contains(&each), "{each} in a minute, of {size}");
    }
}

#[test]
fn the_refusal_names_the_earliest_time_at_which_one_is_probed() {
    let guarded = Guarded::new(3, touchy());
    guarded.all(Does::Fail);
    guarded.open(guarded.ports());
    // Each has failed its probes for minutes, and is open for a minute.
    for _ in 0..7 {
        guarded.time.advance(60 * S);
        for port in guarded.ports() {
            let vitals = guarded.fleet.at(port).vitals().clone();
            let probe = vitals.attempt(&guarded.fleet.clock, Sampling::Mean);
            probe.unwrap().finish(Outcome::failure());
        }
    }
    let mut balance = guarded.fleet.balance();
    let mut refused = || refusal(call(&mut balance)).retry_after().unwrap();
    assert!(refused().abs_diff(S) < MS);
    guarded.time.advance(600 * MS);
    assert!(refused().abs_diff(400 * MS) < MS);
    guarded.time.advance(400 * MS);

    // Now at different times.
    for _ in 0..3 {
        assert!(AtEndpoint::of(&*call(&mut balance).unwrap_err()).is_some());
        guarded.time.advance(200 * MS);
    }
    for wait in [400 * MS, 200 * MS, 200 * MS] {
        let refused = refusal(call(&mut balance)).retry_after().unwrap();
        assert!(refused.abs_diff(wait) < MS, "{refused:?}");
        guarded.time.advance(refused);
        assert!(AtEndpoint::of(&*call(&mut balance).unwrap_err()).is_some());
    }
}

#[test]
fn after_an_outage_of_all_none_is_out_for_longer_than_it_was_at_first() {
    let guarded = Guarded::new(10, touchy());
    guarded.open(guarded.ports());
    guarded.all(Does::Fail);
    let mut balance = guarded.fleet.balance();
    for _ in 0..60_000 {
        guarded.time.advance(MS);
        assert!(call(&mut balance).is_err());
    }
    guarded.all(Does::Answer);
    // The first open time; once half are back, their own turn of the others, and a draw that finds them.
    for _ in 0..2_100 {
        guarded.time.advance(MS);
        let _ = call(&mut balance);
    }
    assert!(guarded.are_all(State::Closed));
}

// scenario S9: a probe of the dead is a call that the living might have answered.
#[test]
fn while_one_of_ten_lives_the_dead_cost_few_calls_and_are_found_when_they_are_back() {
    let guarded = Guarded::new(10, touchy());
    guarded.open(guarded.ports());
    guarded.all(Does::Fail);
    let mut balance = guarded.fleet.balance();
    let mut answered = |calls: usize| {
        let calls = (0..calls).filter(|_| {
            guarded.time.advance(50 * MS);
            call(&mut balance).is_ok()
        });
        calls.count()
    };
    assert_eq!(answered(1_200), 0);
    guarded.fleet.let_it(4, Does::Answer);
    answered(40);
    let answered_by_one = answered(1_200);
    assert!(answered_by_one > 1_080, "{answered_by_one} of 1,200");

    guarded.all(Does::Answer);
    answered(600);
    let back = guarded
        .ports()
        .filter(|port| guarded.state(*port) == State::Closed);
    assert!(back.count() >= 5, "within half a minute");
}

#[test]
fn while_some_take_calls_what_calls_alone_have_opened_is_probed_at_once() {
    let guarded = Guarded::new(10, touchy());
    guarded.open(1..=6);
    let mut balance = guarded.fleet.balance();
    for _ in 0..30 {
        call(&mut balance).unwrap();
    }
    let back = (1..=6).filter(|port| guarded.state(*port) == State::Closed);
    assert!(back.count() > 0);
}

#[test]
fn a_call_that_those_who_are_in_refuse_may_still_be_a_probe_of_the_dead() {
    let guarded = Guarded::new(3, touchy().ramp_up(60 * S));
    guarded.open(1..=3);
    guarded.all(Does::Fail);
    let mut balance = guarded.fleet.balance();
    (0..3).for_each(|_| drop(call(&mut balance).unwrap_err()));
    guarded.fleet.let_it(1, Does::Answer);
    while guarded.state(1) != State::Ramping {
        guarded.time.advance(MS);
        let _ = call(&mut balance);
    }
    // It takes a tenth of the calls.
    let mut reached = 0;
    for _ in 0..20 {
        guarded.time.advance(S);
        reached += usize::from(match call(&mut balance) {
            Ok(_) => true,
            Err(error) => AtEndpoint::of(&*error).is_some(),
        });
    }
    assert_eq!(reached, 20);
}

/// The share of calls that succeed for a client that a stall makes fail `stalled` of each `every` milliseconds.
fn succeeds(settings: fn(BalanceLayer) -> BalanceLayer, stalled: u32, every: u32) -> f64 {
    let five = std::num::NonZeroU32::new(5);
    let guarded = Guarded::new(10, Policy::default().consecutive_failures(five));
    let mut balance = settings(guarded.fleet.layer()).layer(guarded.fleet.connect());
    let mut succeeded = 0;
    for ms in 0..60_000 {
        match ms % every {
            0 => guarded.all(Does::Fail),
            over if over == stalled => guarded.all(Does::Answer),
            _ => {}
        }
        succeeded += u32::from(call(&mut balance).is_ok());
        guarded.time.advance(MS);
    }
    f64::from(succeeded) / 60_000.0
}

// scenario S9: it is the client that is at fault, so no endpoint is better than another.
#[test]
fn breakers_cost_a_client_that_stalls_little_more_than_its_stalls() {
    for (stalled, every) in [(100, 500), (400, 2_000), (2_000, 10_000)] {
        let share = succeeds(|layer| layer, stalled, every);
        let without = succeeds(
            |layer| layer.max_out(Ratio::ONE).min_healthy(0),
            stalled,
            every,
        );
        assert!(share > 0.7, "{stalled} of {every} ms: {share}");
        assert!(without < 0.6, "{stalled} of {every} ms: {without}");
    }
}

#[test]
fn three_dead_of_ten_are_no_reason_to_panic() {
    let guarded = Guarded::new(10, touchy());
    guarded.open(1..=3);
    let layer = guarded.fleet.layer();
    let mut balance = layer.layer(guarded.fleet.connect());
    for _ in 0..1_000 {
        assert!(call(&mut balance).unwrap() > 3);
    }
    assert!(!layer.is_panicking());
    assert!((1..=3).all(|port| guarded.state(port) == State::Open));
}

/// Finds an endpoint unfit, for reasons of its own.
#[derive(Debug)]
struct Unfit(JudgeKind);

impl Judge for Unfit {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Shut(Shut::new(self.0, None))
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        Err(Shut::new(self.0, None))
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

    fn release(&self, _: Ticket) {}
}

fn unfit(fleet: &Fleet, port: u16, kind: JudgeKind) -> GateHandle {
    let mut hand = None;
    fleet.at(port).vitals().attach(kind, |gate| {
        gate.set(true);
        hand = Some(gate);
        Arc::new(Unfit(kind))
    });
    hand.expect("it had none")
}

fn shares(balance: &mut Balance<Backend>, size: usize, calls: usize) -> Vec<usize> {
    let mut shares = vec![0; size];
    for _ in 0..calls {
        shares[usize::from(call(balance).unwrap()) - 1] += 1;
    }
    shares
}

// scenario 14
#[test]
fn with_six_of_ten_unhealthy_or_ejected_all_ten_are_called_alike_with_five_only_the_others() {
    let fleet = Fleet::new(1..=10);
    let layer = fleet.layer().strategy(Strategy::RoundRobin);
    let mut balance = layer.layer(fleet.connect());
    for port in 1..=5 {
        let kind = [JudgeKind::Health, JudgeKind::Outlier][usize::from(port) % 2];
        unfit(&fleet, port, kind);
    }
    assert!(!layer.is_panicking());
    let others = shares(&mut balance, 10, 1_000);
    assert_eq!(others[..5], [0; 5]);

    let sixth = unfit(&fleet, 6, JudgeKind::Health);
    assert!(layer.is_panicking());
    assert_eq!(shares(&mut balance, 10, 1_000), [100; 10]);

    sixth.set(false);
    assert_eq!(shares(&mut balance, 10, 1_000)[..5], [0; 5]);
}

#[test]
fn in_a_panic_who_is_unhealthy_is_called_whatever_the_strategy() {
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::LeastInFlight,
        Strategy::Weighted,
    ] {
        for size in [1, 2, 3, 10, 100] {
            let fleet = Guarded::new(size, touchy()).fleet;
            (1..=size).for_each(|port| drop(unfit(&fleet, port, JudgeKind::Health)));
            let mut balance = fleet.layer().strategy(strategy).layer(fleet.connect());
            let size = usize::from(size);
            let shares = shares(&mut balance, size, 100 * size);
            assert!(
                shares.iter().all(|share| *share > 10),
                "{strategy:?}: {shares:?}"
            );
        }
    }
}

#[test]
fn unhealthy_ejected_and_open_count_together_and_an_endpoint_that_is_all_of_it_once() {
    let guarded = Guarded::new(10, touchy());
    let layer = guarded.fleet.layer();
    unfit(&guarded.fleet, 1, JudgeKind::Health);
    unfit(&guarded.fleet, 2, JudgeKind::Health);
    unfit(&guarded.fleet, 2, JudgeKind::Outlier);
    unfit(&guarded.fleet, 3, JudgeKind::Outlier);
    guarded.open(4..=5);
    assert!(!layer.is_panicking());
    unfit(&guarded.fleet, 5, JudgeKind::Health);
    assert!(!layer.is_panicking());
    guarded.open([6]);
    assert!(layer.is_panicking());
    // One that is unhealthy and open gets what the breaker gives, the unhealthy one as much as the healthy.
    guarded.all(Does::Hang);
    let mut balance = layer.layer(guarded.fleet.connect());
    let mut calls: Vec<_> = (0..200).map(|_| task::spawn(balance.call(()))).collect();
    calls
        .iter_mut()
        .for_each(|call| assert_pending!(call.poll()));
    assert!((4..=6).all(|port| guarded.fleet.calls(port) == 1));
    assert!((1..=3).all(|port| guarded.fleet.calls(port) > 15));
}

#[test]
fn who_drains_or_is_forced_open_gets_no_call_in_a_panic_and_is_not_counted() {
    let guarded = Guarded::new(10, touchy());
    let layer = guarded.fleet.layer();
    let mut balance = layer.layer(guarded.fleet.connect());
    for port in 1..=3 {
        guarded.fleet.at(port).vitals().gate().set_draining(true);
        let breaker = guarded.breakers.breaker(&guarded.fleet.at(port + 3));
        breaker.unwrap().force_open();
    }
    assert!(!layer.is_panicking(), "six of ten, on purpose");
    guarded.open(7..=8);
    assert!(!layer.is_panicking(), "two of four");
    guarded.open([9]);
    assert!(layer.is_panicking());
    for _ in 0..1_000 {
        assert!(call(&mut balance).unwrap() > 6);
    }
    guarded.fleet.at(10).vitals().gate().set_draining(true);
    for port in 7..=9 {
        guarded.fleet.at(port).vitals().gate().set_draining(true);
    }
    assert_eq!(refusal(call(&mut balance)).known(), 10);
    assert!(!layer.is_panicking(), "nobody is left to count");
}

#[test]
fn how_many_may_be_out_is_a_setting() {
    let panics = |layer: fn(BalanceLayer) -> BalanceLayer, open: u16| {
        let guarded = Guarded::new(4, touchy());
        guarded.open(1..=open);
        layer(guarded.fleet.layer()).is_panicking()
    };
    let all: fn(BalanceLayer) -> BalanceLayer = |layer| layer.max_out(Ratio::ONE);
    assert_eq!([3, 4].map(|open| panics(all, open)), [false, true]);
    let quarter = |layer: BalanceLayer| layer.max_out(Ratio::percent(25));
    assert_eq!([1, 2].map(|open| panics(quarter, open)), [false, true]);
    let three = |layer: BalanceLayer| layer.min_healthy(3);
    assert_eq!([1, 2].map(|open| panics(three, open)), [false, true]);
    let many = |layer: BalanceLayer| layer.min_healthy(100);
    assert_eq!([0, 1].map(|open| panics(many, open)), [false, true]);
    let never = |layer: BalanceLayer| layer.max_out(Ratio::ONE).min_healthy(0);
    assert!(!panics(never, 4));
}

#[test]
fn without_a_panic_nobody_is_called_before_the_open_time_is_over() {
    let guarded = Guarded::new(3, touchy());
    guarded.open(guarded.ports());
    let layer = guarded.fleet.layer().max_out(Ratio::ONE).min_healthy(0);
    let mut balance = layer.layer(guarded.fleet.connect());
    let wait = refusal(call(&mut balance)).retry_after().unwrap();
    assert!(wait.abs_diff(S) < MS);
    assert_eq!(guarded.sent(), 0);
}

#[test]
fn of_a_thousand_what_was_counted_is_believed_for_a_millisecond_but_refuses_nobody() {
    let guarded = Guarded::new(1_000, touchy());
    let layer = guarded.fleet.layer();
    let mut balance = layer.layer(guarded.fleet.connect());
    let unhealthy = |ports: std::ops::RangeInclusive<u16>| {
        ports.for_each(|port| drop(unfit(&guarded.fleet, port, JudgeKind::Health)));
    };
    let mut finds = |port: u16| (0..200).any(|_| call(&mut balance).unwrap() <= port);
    unhealthy(1..=500);
    assert!(!finds(500));
    unhealthy(501..=800);
    assert!(!finds(800), "counted a moment ago");
    guarded.time.advance(MS);
    assert!(finds(800), "counted again");

    let guarded = Guarded::new(1_000, touchy());
    let mut balance = guarded.fleet.balance();
    guarded.open([1]);
    while guarded.state(1) == State::Open && guarded.sent() < 10_000 {
        call(&mut balance).unwrap();
    }
    guarded.open(2..=1_000);
    assert_eq!(guarded.state(1), State::Open);
    assert!(call(&mut balance).is_ok(), "who is about to refuse counts");
}

/// Counts what the balancer tells of panics, by level.
#[derive(Default)]
struct Log(Arc<std::sync::Mutex<Vec<Level>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_mesh_balance::panic"
    }

    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(*event.metadata().level());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_panic_is_told_once_when_it_begins_and_once_when_it_is_over() {
    let log = Log::default();
    let told = Arc::clone(&log.0);
    let _guard = tracing::subscriber::set_default(log);
    // With a single subscriber tracing asks only the thread that meets an event first, which may be another test's.
    let _second = tracing::Dispatch::new(Log::default());
    let told = || std::mem::take(&mut *told.lock().unwrap());
    let guarded = Guarded::new(3, touchy());
    guarded.all(Does::Fail);
    let layer = guarded.fleet.layer();
    let mut balance = layer.layer(guarded.fleet.connect());
    guarded.open([1]);
    assert!(call(&mut balance).is_err());
    assert!(told().is_empty(), "one of three");
    for _ in 0..60_000 {
        guarded.time.advance(MS);
        assert!(call(&mut balance).is_err());
    }
    assert_eq!(told(), [Level::WARN]);
    guarded.all(Does::Answer);
    for _ in 0..2_000 {
        guarded.time.advance(MS);
        let _ = call(&mut balance);
    }
    assert!(!layer.is_panicking());
    assert_eq!(told(), [Level::INFO]);

    // All come back, unseen, and are out again much later.
    guarded.open(guarded.ports());
    assert!(layer.is_panicking());
    guarded.time.advance(60 * S);
    assert!(layer.is_panicking());
    assert_eq!(told(), [Level::WARN, Level::WARN]);
}
