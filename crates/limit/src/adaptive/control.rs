//! Tells an algorithm what happens, and does as it says.

use std::{fmt, time::Duration};

use tower_mesh_core::{
    Class, Instant, Outcome,
    sync::{Mutex, lock},
};

use super::{
    algorithm::{Algorithm, Hears, Move, Round, Usage, Why},
    samples::Samples,
    settings::Adaptive,
    turnaround::Turnaround,
};
use crate::bulkhead::permits::{Permits, Watch};

/// What moves the limit of a bulkhead.
///
/// The limit itself is in the bulkhead's [`Permits`]; here is who decides of it. Nobody comes here while all is well: an
/// algorithm that hears of overloads only is told of nothing else before the first, and the permits are watched only
/// until the limit is back at its upper bound.
pub(crate) struct Control {
    state: Mutex<State>,
    samples: Option<Samples>,
    forget: Duration,
}

struct State {
    algorithm: Box<dyn Algorithm>,
    usage: Bounds,
    /// Begun before this, an attempt is of an earlier round.
    lowered: Instant,
    /// When last there was an overload, or half of the limit was in use.
    pressed: Instant,
    watch: Watch,
    why: Why,
    lowerings: u64,
    suspended: bool,
    turnaround: Turnaround,
}

#[derive(Clone, Copy)]
struct Bounds {
    limit: usize,
    min: usize,
    max: usize,
}

/// What a look at it shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) limit: usize,
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) why: Why,
    pub(crate) lowerings: u64,
    pub(crate) suspended: bool,
}

impl Control {
    /// Takes over `permits`, whose limit so far is the upper bound.
    pub(crate) fn new(settings: &Adaptive, permits: &Permits, now: Instant) -> Self {
        let algorithm = (settings.algorithm)();
        let samples = match algorithm.hears() {
            Hears::Overloads => None,
            Hears::Latencies(window) => Some(Samples::new(window, now)),
        };
        let max = permits.count().limit;
        let min = settings.min.get().min(max);
        let start = settings.start.map_or(max, |start| start.get());
        let limit = start.clamp(min, max);
        let mut state = State {
            algorithm,
            usage: Bounds { limit, min, max },
            lowered: Instant::from_nanos(0),
            pressed: now,
            watch: Watch::Off,
            why: Why::Start,
            lowerings: 0,
            suspended: false,
            turnaround: Turnaround::default(),
        };
        if limit < max && samples.is_none() {
            state.watch = Watch::On;
        }
        let nobody_waits_yet = permits.set(limit, Some(state.watch));
        debug_assert!(!nobody_waits_yet);
        Self {
            state: Mutex::new(state),
            samples,
            forget: settings.forget,
        }
    }

    /// Whether it wants to hear of attempts that succeed.
    pub(crate) fn hears_successes(&self) -> bool {
        self.samples.is_some()
    }

    /// An attempt succeeded after so many nanoseconds.
    #[inline]
    pub(crate) fn succeeded(&self, permits: &Permits, nanos: u64, now: Instant) {
        let Some(samples) = &self.samples else {
            return;
        };
        if let Some(latencies) = samples.add(nanos, now) {
            self.ask(permits, now, None, |algorithm, usage| {
                algorithm.measured(usage, latencies)
            });
        }
    }

    /// An attempt did not succeed.
    #[cold]
    pub(crate) fn failed(&self, permits: &Permits, outcome: Outcome, took: Duration, now: Instant) {
        // What has failed is over at once and holds nothing; breakers and ejection see to it.
        if !matches!(outcome.class(), Class::Timeout | Class::Overload) {
            return;
        }
        if self.hears_successes() {
            if outcome.class() == Class::Timeout {
                self.succeeded(
                    permits,
                    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    now,
                );
            }
            return;
        }
        let began = now - took;
        self.ask_state(permits, now, None, |state, usage| {
            state.pressed = now;
            state.watch = Watch::On;
            if outcome.class() == Class::Timeout {
                state.turnaround.ran_out(took, usage.in_use, now);
            }
            let round = match began < state.lowered {
                true => Round::Earlier,
                false => Round::This,
            };
            state.algorithm.overloaded(usage, round)
        });
    }

    /// A permit came back that was watched, of so many that were out.
    pub(crate) fn returned(&self, permits: &Permits, out: usize, now: Instant) {
        let forget = self.forget;
        self.ask_state(permits, now, Some(out), |state, usage| {
            let moved = state.algorithm.returned(usage);
            state.turnaround.returned(usage.in_use, now);
            let moved = match moved {
                Some(raised) if raised.limit > usage.limit && state.turnaround.is_long(now) => {
                    state.algorithm.held(usage);
                    None
                }
                moved => moved,
            };
            if usage.is_pressed() {
                state.pressed = now;
            } else if now.since(state.pressed) >= forget {
                return state.forget(usage);
            }
            moved
        });
    }

    fn ask(
        &self,
        permits: &Permits,
        now: Instant,
        out: Option<usize>,
        ask: impl FnOnce(&mut dyn Algorithm, Usage) -> Option<Move>,
    ) {
        self.ask_state(permits, now, out, |state, usage| {
            ask(&mut *state.algorithm, usage)
        });
    }

    fn ask_state(
        &self,
        permits: &Permits,
        now: Instant,
        out: Option<usize>,
        ask: impl FnOnce(&mut State, Usage) -> Option<Move>,
    ) {
        let somebody_waits = {
            let mut state = lock(&self.state);
            if state.suspended {
                return;
            }
            let usage = state.usage(out.unwrap_or_else(|| permits.out()));
            let watched = state.watch;
            let moved = ask(&mut state, usage);
            state.settle(permits, moved, watched, now)
        };
        if somebody_waits {
            permits.hand_out();
        }
    }

    /// Puts the limit where an earlier run has left it.
    pub(crate) fn restore(&self, permits: &Permits, limit: usize, now: Instant) {
        self.move_to(permits, now, Why::Restored, |state| {
            state.usage.limit = limit;
        });
    }

    /// Moves the upper bound; a limit that was there goes with it.
    pub(crate) fn bound(&self, permits: &Permits, max: usize, now: Instant) {
        self.move_to(permits, now, Why::Set, |state| {
            let Bounds {
                limit, max: old, ..
            } = state.usage;
            state.usage.max = max.max(1);
            if limit == old {
                state.usage.limit = state.usage.max;
            }
        });
    }

    /// Leaves the limit at its upper bound from now on, and what happens unheard; or goes on from there.
    pub(crate) fn suspend(&self, permits: &Permits, now: Instant, suspended: bool) {
        self.move_to(permits, now, Why::Set, |state| {
            state.suspended = suspended;
            state.usage.limit = state.usage.max;
        });
    }

    fn move_to(&self, permits: &Permits, now: Instant, why: Why, change: impl FnOnce(&mut State)) {
        let somebody_waits = {
            let mut state = lock(&self.state);
            change(&mut state);
            let Bounds { limit, min, max } = state.usage;
            let min = min.min(max);
            state.usage = Bounds {
                limit: limit.clamp(min, max),
                min,
                max,
            };
            (state.why, state.pressed) = (why, now);
            let usage = state.usage(permits.out());
            state.algorithm.moved(usage);
            let below = usage.limit < max && self.samples.is_none();
            state.watch = if below { Watch::On } else { Watch::Off };
            permits.set(usage.limit, Some(state.watch))
        };
        if somebody_waits {
            permits.hand_out();
        }
    }

    pub(crate) fn view(&self) -> View {
        let state = lock(&self.state);
        let Bounds { limit, min, max } = state.usage;
        View {
            limit,
            min,
            max,
            why: state.why,
            lowerings: state.lowerings,
            suspended: state.suspended,
        }
    }
}

impl State {
    fn usage(&self, in_use: usize) -> Usage {
        let Bounds { limit, min, max } = self.usage;
        Usage {
            limit,
            in_use,
            min,
            max,
        }
    }

    /// All that was learned is too old.
    fn forget(&mut self, usage: Usage) -> Option<Move> {
        self.algorithm.moved(Usage {
            limit: usage.max,
            ..usage
        });
        Some(Move::to(usage.max, Why::Forgotten))
    }

    /// Does as was said; answers whether somebody waits who may have to be let in.
    fn settle(
        &mut self,
        permits: &Permits,
        moved: Option<Move>,
        watched: Watch,
        now: Instant,
    ) -> bool {
        let Bounds { limit, min, max } = self.usage;
        let to = moved.map_or(limit, |moved| moved.limit.clamp(min, max));
        if let Some(moved) = moved.filter(|_| to != limit) {
            self.why = moved.why;
            self.usage.limit = to;
        }
        // Also when it cannot go lower: a round has ended all the same.
        if moved.is_some_and(|moved| moved.limit <= limit) {
            self.lowered = now;
            self.turnaround.lowered(to, now);
            self.lowerings += u64::from(to < limit);
        }
        if to == max && self.algorithm.is_calm() {
            self.watch = Watch::Off;
        }
        let moves = to != limit || self.watch != watched;
        moves && permits.set(to, Some(self.watch))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(all(test, mesh_loom))]
mod loom_models;
