//! The breaker against a plain model of itself, through every sequence of calls, ends, waits and hands.

use std::{
    collections::VecDeque,
    num::{NonZeroU8, NonZeroU16, NonZeroU32},
    time::Duration,
};

use proptest::prelude::*;
use tower_mesh_breaker::{Policy, State, Window};
use tower_mesh_core::{Attempt, Availability, Finish, Outcome, Ratio, Shut, frame};

use crate::{MS, Target, after};

const IN_A_ROW: u32 = 3;
const LAST: usize = 6;
const MIN_CALLS: usize = 4;
const PROBES: u32 = 3;
const AT_ONCE: u32 = 2;
const LEASE: u64 = 5_000;
const OPEN: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
const RECOVERY: u64 = 10_000;

fn policy(ramp: u64) -> Policy {
    fn probes(count: u32) -> NonZeroU8 {
        u8::try_from(count)
            .ok()
            .and_then(NonZeroU8::new)
            .expect("small")
    }
    let ms = Duration::from_millis;
    after(IN_A_ROW)
        .failure_rate(Ratio::percent(50))
        .window(Window::last(
            NonZeroU16::new(LAST as u16).expect("not zero"),
        ))
        .min_calls(NonZeroU32::new(MIN_CALLS as u32).expect("not zero"))
        .probes(probes(PROBES))
        .probes_at_once(probes(AT_ONCE))
        .reopen_at(Ratio::percent(50))
        .probe_lease(ms(LEASE))
        .open_for(ms(OPEN[0]))
        .open_at_most(ms(OPEN[3]))
        .recovery(ms(RECOVERY))
        .ramp_up(ms(ramp))
}

/// All in milliseconds, in plain numbers, with nothing packed and nothing concurrent.
struct Model {
    ramp: u64,
    now: u64,
    state: State,
    since: u64,
    until: u64,
    epoch: u64,
    openings: u64,
    /// It was opened by probes, not by calls.
    tried: bool,
    /// When calls have opened it.
    tripped: u64,
    run: u32,
    last: VecDeque<bool>,
    out: u32,
    done: u32,
    failed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Admitted {
    epoch: u64,
    probe: bool,
}

impl Model {
    fn new(ramp: u64) -> Self {
        Self {
            ramp,
            now: 0,
            state: State::Closed,
            since: 0,
            until: 0,
            epoch: 0,
            openings: 0,
            tried: false,
            tripped: 0,
            run: 0,
            last: VecDeque::new(),
            out: 0,
            done: 0,
            failed: 0,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.since = self.now;
        self.epoch += 1;
        self.run = 0;
        self.last.clear();
        (self.out, self.done, self.failed) = (0, 0, 0);
    }

    fn open(&mut self, remembered: u64) {
        self.enter(State::Open);
        self.openings = remembered + 1;
        (self.tried, self.tripped) = (false, self.now);
        let doublings = self.openings.min(OPEN.len() as u64) - 1;
        self.until = self.now + OPEN[doublings as usize];
    }

    /// `None`: it is a matter of chance.
    fn admit(&mut self) -> Option<Option<Admitted>> {
        if self.state == State::Ramping && self.now - self.since >= self.ramp {
            self.enter(State::Closed);
        }
        if self.state == State::Open && self.now >= self.until {
            self.enter(State::HalfOpen);
        }
        match self.state {
            State::Closed | State::ForcedClosed => Some(self.admitted(false)),
            State::HalfOpen => Some(self.admit_probe()),
            State::Ramping => None,
            _ => Some(None),
        }
    }

    /// When an open breaker may be probed in a panic.
    fn due_in_panic(&self) -> u64 {
        let out_for = self.since - self.tripped;
        let wait = out_for.clamp(OPEN[0] / 20, OPEN[0]);
        self.since + if self.tried { wait } else { 0 }
    }

    fn admit_in_panic(&mut self) -> Option<Option<Admitted>> {
        if self.state == State::Open {
            if self.now < self.due_in_panic() {
                return Some(None);
            }
            self.openings -= 1;
            self.enter(State::HalfOpen);
        }
        self.admit()
    }

    fn admit_probe(&mut self) -> Option<Admitted> {
        if self.out == AT_ONCE || self.out + self.done == PROBES {
            if self.now < self.until {
                return None;
            }
            self.epoch += 1;
            self.out = 0;
        }
        self.out += 1;
        self.until = self.now + LEASE;
        self.admitted(true)
    }

    fn admitted(&self, probe: bool) -> Option<Admitted> {
        Some(Admitted {
            epoch: self.epoch,
            probe,
        })
    }

    fn abandon(&mut self, call: Admitted) {
        if call.probe && call.epoch == self.epoch {
            self.out -= 1;
        }
    }

    fn end(&mut self, call: Admitted, outcome: Outcome) {
        if call.epoch != self.epoch {
            return;
        }
        if call.probe {
            self.abandon(call);
            let tripped = self.tripped;
            self.done += 1;
            self.failed += u32::from(outcome.is_failure());
            if 2 * self.failed >= PROBES {
                self.open(self.openings);
                (self.tried, self.tripped) = (true, tripped);
            } else if self.done == PROBES {
                let next = if self.ramp > 0 {
                    State::Ramping
                } else {
                    State::Closed
                };
                self.enter(next);
            }
            return;
        }
        self.last.push_back(outcome.is_failure());
        if self.last.len() > LAST {
            self.last.pop_front();
        }
        if outcome.is_success() {
            self.run = 0;
        } else if outcome != Outcome::overload() {
            self.run += 1;
        }
        let against = self.against();
        let is_rate_reached = self.last.len() >= MIN_CALLS && 2 * against >= self.last.len();
        let is_broken = self.run >= IN_A_ROW || is_rate_reached;
        if outcome.is_failure() && is_broken {
            match self.state {
                State::Closed => {
                    let recovered = (self.now - self.since) / RECOVERY;
                    self.open(self.openings.saturating_sub(recovered));
                }
                State::Ramping => self.open(self.openings),
                _ => {}
            }
        }
    }

    fn against(&self) -> usize {
        self.last.iter().filter(|failed| **failed).count()
    }

    fn force(&mut self, state: State) {
        self.enter(state);
        self.openings = 0;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    AdmitInPanic,
    End(prop::sample::Index, Outcome),
    Drop(prop::sample::Index),
    GiveUp(prop::sample::Index),
    Wait(u64),
    ForceOpen,
    ForceClosed,
    Release,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::failure()),
        2 => Just(Outcome::success()),
        1 => Just(Outcome::overload()),
    ];
    prop_oneof![
        10 => Just(Step::Admit),
        5 => Just(Step::AdmitInPanic),
        10 => (any::<prop::sample::Index>(), outcome).prop_map(|(i, o)| Step::End(i, o)),
        2 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        5 => prop::sample::select(&[1, 500, 1_000, 2_000, 5_000, 20_000][..]).prop_map(Step::Wait),
        1 => prop::sample::select(&[Step::ForceOpen, Step::ForceClosed, Step::Release, Step::Reset][..]),
    ]
}

/// The breaker and its model, and the calls that both have under way.
struct Both {
    target: Target,
    model: Model,
    calls: Vec<(Attempt, Admitted)>,
}

impl Both {
    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Admit => {
                let (attempt, expected) = (self.target.attempt(), self.model.admit());
                self.admit(attempt, expected)?;
            }
            Step::AdmitInPanic => {
                let due = (self.model.state == State::Open).then(|| self.model.due_in_panic());
                let attempt = self.target.attempt_in_panic();
                if let (Err(shut), Some(due)) = (&attempt, due) {
                    let wait = shut
                        .until()
                        .map(|until| until.since(self.target.clock.now()));
                    let wait = wait.map(|wait| (wait + MS / 2).as_millis());
                    prop_assert_eq!(wait, Some((due - self.model.now).into()));
                }
                let expected = self.model.admit_in_panic();
                self.admit(attempt, expected)?;
            }
            Step::End(index, outcome) => {
                if let Some((mut attempt, call)) = self.pick(index) {
                    attempt.finish(outcome);
                    self.model.end(call, outcome);
                }
            }
            Step::Drop(index) => {
                if let Some((attempt, call)) = self.pick(index) {
                    drop(attempt);
                    self.model.abandon(call);
                }
            }
            Step::GiveUp(index) => {
                if let Some((attempt, call)) = self.pick(index) {
                    frame::timing_out(|| drop(attempt));
                    self.model.end(call, Outcome::timeout());
                }
            }
            Step::Wait(time) => {
                self.target.time.advance(Duration::from_millis(time));
                self.model.now += time;
            }
            Step::ForceOpen => {
                self.target.breaker().force_open();
                self.model.force(State::ForcedOpen);
            }
            Step::ForceClosed => {
                self.target.breaker().force_closed();
                self.model.force(State::ForcedClosed);
            }
            Step::Release => {
                self.target.breaker().release_force();
                if self.model.state.is_forced() {
                    self.model.enter(State::Closed);
                }
            }
            Step::Reset => {
                self.target.breaker().reset();
                self.model.force(State::Closed);
            }
        }
        self.compare()
    }

    /// What became of asking both; chance decides where the model expects nothing.
    fn admit(
        &mut self,
        attempt: Result<Attempt, Shut>,
        expected: Option<Option<Admitted>>,
    ) -> Result<(), TestCaseError> {
        let expected = match expected {
            Some(expected) => expected,
            None if attempt.is_ok() => self.model.admitted(false),
            None => None,
        };
        prop_assert_eq!(
            attempt.as_ref().ok().map(Attempt::is_probe),
            expected.map(|call| call.probe)
        );
        if let (Ok(attempt), Some(call)) = (attempt, expected) {
            self.calls.push((attempt, call));
        }
        Ok(())
    }

    fn pick(&mut self, index: prop::sample::Index) -> Option<(Attempt, Admitted)> {
        let len = self.calls.len();
        (len > 0).then(|| self.calls.swap_remove(index.index(len)))
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let (breaker, model) = (self.target.breaker().snapshot(), &self.model);
        prop_assert_eq!(breaker.state, model.state);
        prop_assert_eq!(breaker.probes_out, model.out);
        prop_assert!(breaker.probes_out <= AT_ONCE);
        prop_assert_eq!(breaker.consecutive_failures, model.run);
        // Times are told up to a microsecond early.
        let retry_after = breaker
            .retry_after()
            .map(|wait| (wait + MS / 2).as_millis());
        let is_shut = model.state == State::Open;
        let expected = is_shut.then(|| model.until.saturating_sub(model.now).into());
        prop_assert_eq!(retry_after, expected);
        let tally = breaker.failures.expect("there is a rule");
        prop_assert_eq!(
            (tally.calls as usize, tally.against as usize),
            (model.last.len(), model.against())
        );
        let is_open = matches!(model.state, State::Closed | State::ForcedClosed);
        let gate = self.target.endpoint.vitals().gate();
        prop_assert_eq!(gate.is_open(), is_open);
        let counts = match model.state {
            State::Open | State::HalfOpen => Availability::Out,
            State::ForcedOpen => Availability::Withdrawn,
            _ => Availability::In,
        };
        prop_assert_eq!(gate.availability(), counts);
        Ok(())
    }

    /// However it got here: at rest no probe is out, and a healthy endpoint gets its calls back.
    fn recover(mut self) -> Result<(), TestCaseError> {
        // One call is never heard of again.
        let lost = self.calls.pop();
        while let Some((attempt, call)) = self.calls.pop() {
            drop(attempt);
            self.model.abandon(call);
        }
        self.compare()?;
        let is_lost = lost
            .as_ref()
            .is_some_and(|(_, call)| call.probe && call.epoch == self.model.epoch);
        prop_assert_eq!(
            self.target.breaker().snapshot().probes_out,
            u32::from(is_lost)
        );
        self.target.breaker().release_force();
        let mut probes = 0;
        while self.target.breaker().state() != State::Closed {
            prop_assert!(probes <= PROBES, "wedged");
            self.target.time.advance(60_000 * MS);
            probes += 1;
            self.target.succeed();
        }
        drop(lost);
        prop_assert_eq!(self.target.breaker().snapshot().probes_out, 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_breaker_does_what_its_model_does_and_is_never_wedged(
        ramp in prop::sample::select(&[0, 4_000][..]),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut both = Both {
            target: Target::new(policy(ramp)),
            model: Model::new(ramp),
            calls: Vec::new(),
        };
        for step in steps {
            both.take(step)?;
        }
        both.recover()?;
    }
}
