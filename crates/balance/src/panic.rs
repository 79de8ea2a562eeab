//! When so many endpoints are out that it is more likely their judges who are wrong.

use std::sync::Arc;

use tower_mesh_core::{
    Availability, Gate, Instant, Ratio, Rng, ServiceName,
    sync::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::pick::Field;

/// How many may be out, and what was seen of it.
///
/// A pick asks only when an endpoint that it has drawn is shut, so nothing is counted while all is well; and nobody is
/// told when the last of them comes back, until somebody asks again.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    service: Option<ServiceName>,
    max_out: Ratio,
    min_healthy: usize,
    seen: Arc<Seen>,
}

/// Times in nanoseconds.
#[derive(Debug, Default)]
struct Seen {
    /// When a panic was last seen, to the second; zero while there is none.
    last: AtomicU64,
    /// Until when what was counted holds, for who does not count each time.
    valid: AtomicU64,
    /// Others take the calls: there is no panic here, whoever is out.
    spared: AtomicBool,
    /// Somebody took calls when it was last counted.
    some_in: AtomicBool,
}

/// Whether there is a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    Off,
    /// So many are out that their judges are not believed, but some are not.
    SomeIn,
    /// Nobody is left.
    AllOut,
}

/// While some take calls, so many of the calls may find out before its time whether one that is dead, as a probe has
/// shown, still is. Each is a call that fails, if it gets no retry: all of them, as while nobody takes calls, cost a
/// client with 20 calls a second 17 % of them as long as one of ten endpoints lived (`cargo xtask sim --scenario S9`).
const OUT_OF_TURN: f64 = 0.05;

/// So few are counted for each pick that finds one shut; more only once in a while.
const FEW: usize = 16;

/// What is counted of more holds for so long an endpoint: to look at one takes a hundredth of that, or a tenth if it is
/// in no cache.
const VALID_EACH: u64 = 1_000;

const SECOND: u64 = 1_000_000_000;

/// A panic that nobody has seen for so long is another when it is seen again.
const FORGOTTEN: u64 = 10 * SECOND;

impl Alarm {
    pub(crate) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// What it is for one call: a few act as if nobody was left.
    pub(crate) fn for_a_call(self, rng: &Rng) -> Self {
        match self {
            Self::SomeIn if rng.unit() < OUT_OF_TURN => Self::AllOut,
            alarm => alarm,
        }
    }

    /// Whether a call may go to the endpoint with this gate, which is shut, or be a probe there out of turn.
    pub(crate) fn overrides(self, gate: &Gate) -> bool {
        match self {
            Self::Off => false,
            Self::SomeIn => !gate.is_confirmed(),
            Self::AllOut => true,
        }
    }
}

const WHOLE: f64 = 1e9;

/// Whether so many endpoints are to be counted again if what was counted last is `valid` until then; if so, until when
/// that holds. Few are counted each time.
pub(crate) fn recount(places: usize, now: Instant, valid: u64) -> Option<u64> {
    let now = now.as_nanos();
    if places <= FEW {
        return Some(now);
    }
    (now >= valid).then(|| now.saturating_add(places as u64 * VALID_EACH))
}

impl Default for Panic {
    fn default() -> Self {
        Self {
            service: None,
            max_out: Ratio::percent(50),
            min_healthy: 1,
            seen: Arc::default(),
        }
    }
}

impl Panic {
    /// Among the endpoints of `service`.
    pub(crate) fn of(service: &ServiceName) -> Self {
        Self {
            service: Some(service.clone()),
            ..Self::default()
        }
    }

    /// The same limits for some of the endpoints, with what was seen `before` if anything was.
    pub(crate) fn of_some(&self, before: Option<&Self>) -> Self {
        let seen = before.map(|before| Arc::clone(&before.seen));
        Self {
            seen: seen.unwrap_or_default(),
            ..self.clone()
        }
    }

    /// Says whether others take the calls that these endpoints cannot.
    pub(crate) fn spare(&self, spared: bool) {
        self.seen.spared.store(spared, Relaxed);
    }

    pub(crate) fn max_out(&mut self, share: Ratio) {
        self.max_out = share;
    }

    pub(crate) fn min_healthy(&mut self, endpoints: usize) {
        self.min_healthy = endpoints;
    }

    /// Whether too many are out; of many endpoints, whether that was so a moment ago.
    #[cold]
    pub(crate) fn alarm(&self, field: Field<'_>, now: Instant) -> Alarm {
        match recount(field.table.len(), now, self.seen.valid.load(Relaxed)) {
            Some(valid) => {
                self.seen.valid.store(valid, Relaxed);
                self.count(field, now)
            }
            None => self.seen(),
        }
    }

    /// What was counted last.
    fn seen(&self) -> Alarm {
        if self.seen.last.load(Relaxed) == 0 {
            Alarm::Off
        } else if self.seen.some_in.load(Relaxed) {
            Alarm::SomeIn
        } else {
            Alarm::AllOut
        }
    }

    /// Whether too many are out, counted now.
    #[cold]
    pub(crate) fn count(&self, field: Field<'_>, now: Instant) -> Alarm {
        let (out, healthy) = Self::tally(field);
        let is_on = !self.seen.spared.load(Relaxed) && self.are_too_many(out, healthy);
        self.seen.some_in.store(healthy > 0, Relaxed);
        self.note(is_on, out, healthy, now);
        match (is_on, healthy) {
            (false, _) => Alarm::Off,
            (true, 0) => Alarm::AllOut,
            (true, _) => Alarm::SomeIn,
        }
    }

    /// The same, and nobody is told.
    pub(crate) fn would_be(&self, field: Field<'_>) -> bool {
        let (out, healthy) = Self::tally(field);
        !self.seen.spared.load(Relaxed) && self.are_too_many(out, healthy)
    }

    /// How many are out, and how many are not.
    fn tally(field: Field<'_>) -> (usize, usize) {
        let (mut healthy, mut out) = (0, 0);
        for place in 0..field.table.len() {
            let (index, _) = field.table.at(place);
            match Gate::availability(field.endpoints[index].vitals().gate()) {
                Availability::In => healthy += 1,
                Availability::Out => out += 1,
                // Whoever has taken it out had a reason, which says nothing of the others.
                Availability::Withdrawn => {}
            }
        }
        (out, healthy)
    }

    fn are_too_many(&self, out: usize, healthy: usize) -> bool {
        // In whole numbers, so that a share that is just reached is not exceeded.
        let most = (self.max_out.get() * WHOLE).round() as u128;
        let is_exceeded = out as u128 * WHOLE as u128 > most * (out + healthy) as u128;
        out > 0 && (is_exceeded || healthy < self.min_healthy)
    }

    /// Tells the log when it begins and when it is over; of several who see it at once, one does.
    fn note(&self, is_on: bool, out: usize, healthy: usize, now: Instant) {
        let last = self.seen.last.load(Relaxed);
        let now = if is_on { now.as_nanos().max(1) } else { 0 };
        let unseen = now.saturating_sub(last);
        if now == last || (is_on && last != 0 && unseen <= SECOND) {
            return;
        }
        let exchange = (self.seen.last).compare_exchange(last, now, Relaxed, Relaxed);
        if exchange.is_err() {
            return;
        }
        let service = self.service.as_ref().map_or("", ServiceName::as_str);
        if !is_on {
            tracing::info!(service, out, healthy, "panic routing is over");
        } else if last == 0 || unseen > FORGOTTEN {
            tracing::warn!(
                service,
                out,
                healthy,
                "too many endpoints are out: panic routing, health and ejection are ignored, open breakers probed"
            );
        }
    }
}
