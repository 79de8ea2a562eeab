//! Whether an endpoint may be called: judges write it, the balancer reads it.

mod panic;
mod slow;

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use crate::{
    outcome::Outcome,
    sync::{AtomicU64, Ordering},
    time::Instant,
    vitals::Vitals,
};

/// The gate before an endpoint: as open as the most restrictive of its judges lets it be.
///
/// While all judges are content the gate is one atomic word, and admission is one load. A judge that is not raises its
/// flag ([`GateHandle`]); only then is it asked.
pub struct Gate {
    /// Bits 0..7: a flag for each judge that is not content. Bit 7: it begins slowly. Bits 8..16: a flag for each judge that hears of successes.
    /// Bits 16..24: a flag for each judge there is. Bits 32..64: the epoch.
    word: AtomicU64,
    /// Since when it begins slowly, in nanoseconds; zero if nobody has asked yet.
    slow_since: AtomicU64,
    judges: [OnceLock<Arc<dyn Judge>>; JudgeKind::COUNT],
}

/// Who may judge an endpoint. An endpoint has at most one judge of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum JudgeKind {
    /// Active health checks.
    Health,
    /// Outlier ejection.
    Outlier,
    /// The circuit breaker.
    Breaker,
    /// The adaptive limit of the service: it hears how attempts end, and keeps nobody from calling.
    Limit,
    /// Discovery: the endpoint has been removed, or its weight is zero.
    Drain,
}

impl JudgeKind {
    /// Those that can be attached; [`Drain`](Self::Drain) is a flag without a judge.
    const COUNT: usize = 4;

    const fn flag(self) -> u64 {
        1 << self as u8
    }

    const fn hears_successes(self) -> u64 {
        self.flag() << SUCCESS_SHIFT
    }

    const fn attached(self) -> u64 {
        self.flag() << ATTACHED_SHIFT
    }
}

const EPOCH_SHIFT: u32 = 32;
const SUCCESS_SHIFT: u32 = 8;
const ATTACHED_SHIFT: u32 = 16;
/// What keeps an endpoint from its full share.
const FLAGS: u64 = 0xff;
/// What keeps calls from it.
const JUDGES: u64 = FLAGS & !slow::SLOW;

/// How open a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every call is admitted.
    Open,
    /// Some calls are admitted: probes, or a ramp-up.
    Limited,
    /// No call is admitted.
    Shut(Shut),
}

/// How an endpoint counts when it is asked how many of a service are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It takes calls.
    In,
    /// A judge keeps calls from it: unhealthy, ejected, or its breaker is open or on probation.
    Out,
    /// Somebody keeps calls from it on purpose: it drains, or its breaker is forced open. It is not counted at all.
    Withdrawn,
}

/// A gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut {
    by: JudgeKind,
    until: Option<Instant>,
}

impl Shut {
    /// Shut by this judge, until this time if it is known.
    pub const fn new(by: JudgeKind, until: Option<Instant>) -> Self {
        Self { by, until }
    }

    /// The judge that keeps it shut.
    pub const fn by(&self) -> JudgeKind {
        self.by
    }

    /// When it may open, if that is known.
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// Proof of admission: under which epoch, and whether as a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    epoch: u32,
    probe: bool,
}

impl Ticket {
    /// A ticket of `epoch`.
    pub const fn new(epoch: u32, probe: bool) -> Self {
        Self { epoch, probe }
    }

    /// The epoch in which it was admitted; a verdict of an older one moves nothing.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it holds one of the places of a limited gate.
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Decides whether an endpoint may be called.
///
/// A judge raises its flag on the gate while it is not content, and is asked only then. Its methods run on the path of
/// calls: they must not block and must not call into user code.
///
/// It is `Any`, so that who attached it can find it again behind [`Gate::judge`].
pub trait Judge: Any + fmt::Debug + Send + Sync {
    /// How open it would leave the gate, without taking anything.
    fn standing(&self, now: Instant) -> Standing;

    /// Admits a call; a ticket marked as probe holds a place until it is reported or released.
    ///
    /// # Errors
    ///
    /// [`Shut`] if the call may not be made.
    fn admit(&self, now: Instant) -> Result<Ticket, Shut>;

    /// A call admitted with `ticket` has ended. Called for every call, whether the flag is raised or not, but for those
    /// that [succeed](Self::succeed).
    fn report(&self, ticket: Ticket, outcome: Outcome, latency: Duration, now: Instant);

    /// A call admitted with `ticket` has succeeded after `nanos` nanoseconds; called instead of [`report`](Self::report).
    ///
    /// Nearly every call ends so, and an outcome costs each judge a copy.
    fn succeed(&self, ticket: Ticket, nanos: u64, now: Instant) {
        self.report(ticket, Outcome::success(), Duration::from_nanos(nanos), now);
    }

    /// Whether it wants to hear of calls that [succeed](Self::succeed); asked once, when it is attached. Who learns of
    /// successes otherwise, from [`Load`](crate::Load), or not at all, costs a call that succeeds nothing.
    ///
    /// While it is being attached it may hear of some even so.
    fn hears_successes(&self) -> bool {
        true
    }

    /// A probe admitted with `ticket` was abandoned: it says nothing, and its place is free again.
    fn release(&self, ticket: Ticket);

    /// How the endpoint counts while this judge's flag is raised; by default as out. Only the breaker is asked, who is
    /// flagged by another judge is out.
    fn availability(&self) -> Availability {
        Availability::Out
    }

    /// As [`standing`](Self::standing), in a panic: see [`admit_in_panic`](Self::admit_in_panic).
    fn standing_in_panic(&self, now: Instant) -> Standing {
        self.standing(now)
    }

    /// Whether a probe has failed since it shut, so that there is more to it than the calls that have shut it.
    ///
    /// As long as others of the service take calls, who is confirmed gets few probes out of turn: each is a call that one
    /// of the others might have answered.
    fn is_confirmed(&self) -> bool {
        false
    }

    /// Admits a call in a panic, when so many endpoints are out that it is more likely the judges who are wrong: only the
    /// breaker is asked then, and may hand out a place out of turn. It must be bounded, for the endpoint may be dead.
    ///
    /// By default a panic changes nothing: who is shut refuses.
    ///
    /// # Errors
    ///
    /// [`Shut`] if the call may not be made even so, with the earliest time at which it might.
    fn admit_in_panic(&self, now: Instant) -> Result<Ticket, Shut> {
        self.admit(now)
    }
}

/// A judge's hand on the gate that it was attached to.
#[derive(Clone, Debug)]
pub struct GateHandle {
    vitals: Weak<Vitals>,
    kind: JudgeKind,
}

impl GateHandle {
    pub(crate) fn new(vitals: &Arc<Vitals>, kind: JudgeKind) -> Self {
        Self {
            vitals: Arc::downgrade(vitals),
            kind,
        }
    }

    /// What is known of who is behind the gate, unless that is gone.
    pub fn vitals(&self) -> Option<Arc<Vitals>> {
        self.vitals.upgrade()
    }

    /// Raises or lowers this judge's flag.
    pub fn set(&self, raised: bool) {
        if let Some(vitals) = self.vitals() {
            vitals.gate().set(self.kind, raised);
        }
    }

    /// Raises or lowers the flag as of `epoch`; an older epoch than the gate's changes nothing.
    ///
    /// For the judge that counts epochs, the breaker: two transitions that race leave what the later one said.
    pub fn set_epoch(&self, epoch: u32, raised: bool) {
        if let Some(vitals) = self.vitals() {
            vitals.gate().set_epoch(self.kind, epoch, raised);
        }
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            slow_since: AtomicU64::new(0),
            judges: [const { OnceLock::new() }; JudgeKind::COUNT],
        }
    }

    pub(crate) fn attach(
        &self,
        kind: JudgeKind,
        make: impl FnOnce() -> Arc<dyn Judge>,
    ) -> &Arc<dyn Judge> {
        // The bits come first: whoever a judge has admitted finds it again when the call ends.
        let bits = kind.attached() | kind.hears_successes();
        self.word.fetch_or(bits, Ordering::AcqRel);
        let judge = self.judges[kind as usize].get_or_init(make);
        if !judge.hears_successes() {
            (self.word).fetch_and(!kind.hears_successes(), Ordering::AcqRel);
        }
        judge
    }

    /// The judge of this kind, if one is attached.
    pub fn judge(&self, kind: JudgeKind) -> Option<&Arc<dyn Judge>> {
        self.judges.get(kind as usize)?.get()
    }

    /// Whether every judge is content: one load.
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & JUDGES == 0
    }

    /// How open it is. Takes nothing; `now` is asked for only if a judge is not content.
    pub fn standing(&self, now: impl FnOnce() -> Instant) -> Standing {
        let word = self.word.load(Ordering::Acquire);
        if word & JUDGES == 0 {
            return Standing::Open;
        }
        self.ask(word, now())
    }

    #[cold]
    fn ask(&self, word: u64, now: Instant) -> Standing {
        if word & JudgeKind::Drain.flag() != 0 {
            return Standing::Shut(Shut::new(JudgeKind::Drain, None));
        }
        let mut worst = Standing::Open;
        for (_, judge) in self.flagged(word) {
            match judge.standing(now) {
                Standing::Open => {}
                Standing::Limited => worst = Standing::Limited,
                shut @ Standing::Shut(_) => return shut,
            }
        }
        worst
    }

    /// Admits a call, as a probe if the gate is limited.
    ///
    /// # Errors
    ///
    /// [`Shut`] if a judge refuses.
    pub fn admit(&self, now: Instant) -> Result<Ticket, Shut> {
        let word = self.word.load(Ordering::Acquire);
        if word & JUDGES == 0 {
            return Ok(Ticket::new(epoch(word), false));
        }
        self.admit_flagged(word, now)
    }

    #[cold]
    fn admit_flagged(&self, word: u64, now: Instant) -> Result<Ticket, Shut> {
        if word & JudgeKind::Drain.flag() != 0 {
            return Err(Shut::new(JudgeKind::Drain, None));
        }
        // The breaker comes last: it alone hands out places, so nobody refuses after one was taken. It alone knows
        // epochs, too, so no other judge's ticket counts.
        let mut ticket = Ticket::new(epoch(word), false);
        for (kind, judge) in self.flagged(word) {
            let admitted = judge.admit(now)?;
            if kind == JudgeKind::Breaker as usize {
                ticket = admitted;
            }
        }
        Ok(ticket)
    }

    fn flagged(&self, word: u64) -> impl Iterator<Item = (usize, &Arc<dyn Judge>)> {
        // One round for each flag that is set, which is one at most in nearly every call.
        let mut flags = word & JUDGES;
        std::iter::from_fn(move || {
            while flags != 0 {
                let kind = flags.trailing_zeros() as usize;
                flags &= flags - 1;
                if let Some(judge) = self.judges.get(kind).and_then(OnceLock::get) {
                    return Some((kind, judge));
                }
            }
            None
        })
    }

    /// The judges with a flag in the byte that begins at this bit.
    fn listed(&self, shift: u32) -> impl Iterator<Item = &Arc<dyn Judge>> {
        let word = self.word.load(Ordering::Acquire);
        self.flagged(word >> shift).map(|(_, judge)| judge)
    }

    #[inline]
    pub(crate) fn report_success(&self, ticket: Ticket, nanos: u64, now: Instant) {
        for judge in self.listed(SUCCESS_SHIFT) {
            judge.succeed(ticket, nanos, now);
        }
    }

    #[cold]
    pub(crate) fn report_failure(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        nanos: u64,
        now: Instant,
    ) {
        for judge in self.listed(ATTACHED_SHIFT) {
            judge.report(ticket, outcome, Duration::from_nanos(nanos), now);
        }
    }

    pub(crate) fn release(&self, ticket: Ticket) {
        if ticket.probe {
            for judge in self.listed(ATTACHED_SHIFT) {
                judge.release(ticket);
            }
        }
    }

    /// Keeps new calls from the endpoint, or lets them through again; those in flight go on.
    ///
    /// Discovery drains an endpoint that an update no longer names. An attempt that is being admitted at this moment may
    /// still begin, and be counted as in flight a little later.
    pub fn set_draining(&self, draining: bool) {
        self.set(JudgeKind::Drain, draining);
    }

    fn set(&self, kind: JudgeKind, raised: bool) {
        if raised {
            self.word.fetch_or(kind.flag(), Ordering::AcqRel);
        } else {
            let opened = |word| Some(self.opened(word, kind.flag()));
            let _ = (self.word).fetch_update(Ordering::AcqRel, Ordering::Acquire, opened);
        }
    }

    fn set_epoch(&self, kind: JudgeKind, epoch_now: u32, raised: bool) {
        // Epochs wrap; the newer of two is the one that is less than half the circle ahead.
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let ahead = epoch_now.wrapping_sub(epoch(word)) as i32;
                (ahead > 0).then(|| {
                    let word = match raised {
                        true => word | kind.flag(),
                        false => self.opened(word, kind.flag()),
                    };
                    u64::from(epoch_now) << EPOCH_SHIFT | word & u64::from(u32::MAX)
                })
            });
    }
}

const fn epoch(word: u64) -> u32 {
    (word >> EPOCH_SHIFT) as u32
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Gate")
            .field("flags", &(word & JUDGES))
            .field("epoch", &epoch(word))
            .field(
                "judges",
                &self
                    .judges
                    .iter()
                    .filter_map(OnceLock::get)
                    .collect::<Vec<_>>(),
            )
            .finish()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    /// Lets every call through, with this ticket.
    #[derive(Debug)]
    struct Admits(Ticket);

    impl Judge for Admits {
        fn standing(&self, _: Instant) -> Standing {
            Standing::Limited
        }

        fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
            Ok(self.0)
        }

        fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

        fn release(&self, _: Ticket) {}
    }

    #[test]
    fn only_the_breaker_says_under_which_epoch_a_call_is_admitted() {
        let vitals = Vitals::detached();
        let now = Instant::from_nanos(1 << 60);
        vitals.attach(JudgeKind::Breaker, |gate| {
            gate.set_epoch(7, false);
            Arc::new(Admits(Ticket::new(7, true)))
        });
        vitals.attach(JudgeKind::Outlier, |gate| {
            gate.set(true);
            Arc::new(Admits(Ticket::new(0, false)))
        });
        let gate = vitals.gate();
        assert_eq!(gate.admit(now), Ok(Ticket::new(7, false)));
        gate.set_epoch(JudgeKind::Breaker, 8, true);
        assert_eq!(gate.admit(now), Ok(Ticket::new(7, true)));
    }

    /// Counts what it hears.
    #[derive(Debug)]
    struct Listens {
        to_successes: bool,
        heard: AtomicU64,
    }

    impl Judge for Listens {
        fn standing(&self, _: Instant) -> Standing {
            Standing::Open
        }

        fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
            Ok(Ticket::new(0, false))
        }

        fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {
            self.heard.fetch_add(1, Ordering::Relaxed);
        }

        fn release(&self, _: Ticket) {}

        fn hears_successes(&self) -> bool {
            self.to_successes
        }
    }

    #[test]
    fn a_judge_that_wants_failures_only_hears_of_no_success() {
        let vitals = Vitals::detached();
        let listens = |kind, to_successes| {
            let judge = Arc::new(Listens {
                to_successes,
                heard: AtomicU64::new(0),
            });
            vitals.attach(kind, |_| judge.clone());
            judge
        };
        let (all, failures) = (
            listens(JudgeKind::Outlier, true),
            listens(JudgeKind::Limit, false),
        );
        let (ticket, now) = (Ticket::new(0, false), Instant::from_nanos(1 << 60));
        vitals.gate().report_success(ticket, 1, now);
        vitals.gate().report_success(ticket, 1, now);
        (vitals.gate()).report_failure(ticket, Outcome::failure(), 1, now);
        let heard = |judge: &Listens| judge.heard.load(Ordering::Relaxed);
        assert_eq!((heard(&all), heard(&failures)), (3, 1));
    }
}
