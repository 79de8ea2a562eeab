//! What an ejection knows of one endpoint.

use std::{
    any::Any,
    fmt,
    sync::{Arc, TryLockError, Weak},
    time::Duration,
};

use tower_mesh_core::{
    Class, Endpoint, GateHandle, Instant, Judge, JudgeKind, Load, Outcome, Shut, Standing, Ticket,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

use crate::outlier::{
    group::Group,
    policy::OutlierPolicy,
    rules::{EjectionReason, Sample},
    run::{Reading, Run},
    term::Times,
};

/// Keeps calls from one endpoint while it is ejected. It hears of failures alone; what else there is to know its load
/// says.
pub(crate) struct OutlierJudge {
    gate: GateHandle,
    /// Until when it is ejected, in nanoseconds; zero while it is not. Written under the group's lock alone.
    until: AtomicU64,
    /// Failures that were overloads.
    overloads: AtomicU64,
    record: Mutex<Record>,
}

struct Record {
    /// Weak, since the group holds the endpoints and they hold their judges.
    group: Weak<Group>,
    /// So many failures in a row are too many.
    most_in_a_row: u64,
    run: Run,
    times: Times,
    /// Calls and failures until the last evaluation.
    counted: (u64, u64),
    was_slow: bool,
    /// Boxed, as few are ejected and every endpoint would have room for it.
    sentence: Option<Box<Sentence>>,
}

/// An ejection under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sentence {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
    pub(crate) reason: EjectionReason,
    pub(crate) times: u32,
}

/// So many failures in a row are no longer chance.
pub(crate) const ONCE_IS_CHANCE: u64 = 2;

impl OutlierJudge {
    /// Has a judge of `group` judge `endpoint`, unless that of another group does, which lives.
    pub(crate) fn attach<'a>(
        endpoint: &'a Endpoint,
        group: &Arc<Group>,
        most: u64,
        now: Instant,
    ) -> &'a Self {
        let vitals = endpoint.vitals();
        let judge = vitals.attach(JudgeKind::Outlier, |gate| {
            Arc::new(Self {
                gate,
                until: AtomicU64::new(0),
                overloads: AtomicU64::new(0),
                record: Mutex::new(Record::new(vitals.load(), now)),
            })
        });
        let judge: &dyn Any = &**judge;
        let judge: &Self = judge.downcast_ref().expect("nobody else ejects outliers");
        judge.join(group, vitals.load(), most, now);
        judge
    }

    /// The judge of `endpoint`, if there is one.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<&Self> {
        let judge: &dyn Any = &**endpoint.vitals().gate().judge(JudgeKind::Outlier)?;
        judge.downcast_ref()
    }

    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        lock(&self.record).group.upgrade()
    }

    pub(crate) fn belongs_to(&self, group: &Group) -> bool {
        std::ptr::eq(lock(&self.record).group.as_ptr(), group)
    }

    /// Until when it is ejected.
    pub(crate) fn until(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Acquire);
        (until != 0).then_some(Instant::from_nanos(until))
    }

    pub(crate) fn sentence(&self) -> Option<Sentence> {
        lock(&self.record).sentence.as_deref().copied()
    }

    pub(crate) fn set_most_in_a_row(&self, most: u64) {
        lock(&self.record).most_in_a_row = most;
    }

    /// Whether its endpoint has just failed more than once in a row. Who is asked by another failure waits for nobody.
    pub(crate) fn is_failing(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let reading = Reading::of(endpoint.vitals().load(), now);
        try_lock(&self.record).is_some_and(|record| record.run.look(reading) >= ONCE_IS_CHANCE)
    }

    /// What its endpoint did since the last evaluation.
    pub(crate) fn sample(&self, load: &Load, now: Instant) -> Sample {
        let mut record = lock(&self.record);
        let counted = counts(load);
        let (calls, failures) = std::mem::replace(&mut record.counted, counted);
        let failures = counted.1.saturating_sub(failures);
        Sample {
            // What fails is counted before it has ended.
            calls: counted.0.saturating_sub(calls).max(failures),
            failures,
            run: record.run.look(Reading::of(load, now)),
            latency_us: load.latency_us(),
            was_slow: record.was_slow,
            exempt: record.sentence.is_some(),
        }
    }

    /// The evaluation is over, and it is not ejected.
    pub(crate) fn evaluated(&self, slow: bool, policy: &OutlierPolicy, now: Instant) {
        let mut record = lock(&self.record);
        record.was_slow = slow;
        if record.sentence.is_none() {
            record.times.evaluated(policy.interval, now);
        }
    }

    /// Ejects it once more, for as long as `length` says of how often that was in a row.
    pub(crate) fn eject(
        &self,
        reason: EjectionReason,
        now: Instant,
        length: impl FnOnce(u32) -> Duration,
    ) -> Sentence {
        let mut record = lock(&self.record);
        record.times.ejected();
        let times = record.times.get();
        let until = now + length(times);
        self.begin(
            &mut record,
            Sentence {
                since: now,
                until,
                reason,
                times,
            },
        )
    }

    /// Ejects it for the rest of what it was ejected for before a restart.
    pub(crate) fn restore(&self, until: Instant, times: u32, now: Instant) -> Sentence {
        let mut record = lock(&self.record);
        record.times.restored(times);
        let (reason, times) = (EjectionReason::Restored, record.times.get());
        self.begin(
            &mut record,
            Sentence {
                since: now,
                until,
                reason,
                times,
            },
        )
    }

    fn begin(&self, record: &mut Record, sentence: Sentence) -> Sentence {
        record.sentence = Some(Box::new(sentence));
        // First the time, then the flag: who sees the flag asks for the time.
        let until = sentence.until.as_nanos().max(1);
        self.until.store(until, Ordering::Release);
        self.gate.set(true);
        sentence
    }

    /// Lets calls through again.
    pub(crate) fn lift(&self, load: &Load, now: Instant) -> Option<Sentence> {
        let mut record = lock(&self.record);
        let sentence = *record.sentence.take()?;
        record.times.returned(now);
        self.forget(&mut record, load, now);
        self.until.store(0, Ordering::Release);
        self.gate.set(false);
        Some(sentence)
    }

    /// What was counted before is not held against the endpoint.
    fn forget(&self, record: &mut Record, load: &Load, now: Instant) {
        let skipped = self.overloads.load(Ordering::Relaxed);
        record.run = Run::new(Reading::of(load, now), skipped);
        record.counted = counts(load);
        record.was_slow = false;
    }

    fn join(&self, group: &Arc<Group>, load: &Load, most_in_a_row: u64, now: Instant) {
        let mut record = lock(&self.record);
        if record.group.strong_count() == 0 {
            record.group = Arc::downgrade(group);
            record.most_in_a_row = most_in_a_row;
            self.forget(&mut record, load, now);
        }
    }

    /// A failure that is not heard of is caught up with by the next, or by an evaluation: so nobody waits here.
    fn has_too_many_in_a_row(
        &self,
        counts: bool,
        skipped: u64,
        now: Instant,
    ) -> Option<Arc<Group>> {
        let mut record = try_lock(&self.record)?;
        let vitals = self.gate.vitals()?;
        let reading = Reading::of(vitals.load(), now);
        let in_a_row = record.run.failed(reading, counts, skipped);
        let group = (in_a_row >= record.most_in_a_row).then(|| record.group.upgrade());
        group.flatten()
    }
}

impl Record {
    fn new(load: &Load, now: Instant) -> Self {
        Self {
            group: Weak::new(),
            most_in_a_row: u64::MAX,
            run: Run::new(Reading::of(load, now), 0),
            times: Times::default(),
            counted: (0, 0),
            was_slow: false,
            sentence: None,
        }
    }
}

/// Calls that have ended and failures among them, ever. Calls that were given up are among those that have ended.
fn counts(load: &Load) -> (u64, u64) {
    let ended = load.attempts().saturating_sub(load.in_flight().into());
    (ended, load.failures())
}

/// Locks `mutex` if that needs no waiting.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<impl std::ops::DerefMut<Target = T> + '_> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Judge for OutlierJudge {
    fn standing(&self, now: Instant) -> Standing {
        // Its time ends it, whether or not somebody has lowered the flag yet.
        match self.until() {
            Some(until) if now < until => Standing::Shut(shut(until)),
            _ => Standing::Open,
        }
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Shut> {
        match self.until() {
            Some(until) if now < until => Err(shut(until)),
            _ => Ok(Ticket::new(0, false)),
        }
    }

    fn report(&self, _: Ticket, outcome: Outcome, _: Duration, now: Instant) {
        if !outcome.is_failure() {
            return;
        }
        let counts = outcome.class() != Class::Overload;
        let skipped = match counts {
            true => self.overloads.load(Ordering::Relaxed),
            false => self.overloads.fetch_add(1, Ordering::Relaxed) + 1,
        };
        if self.until.load(Ordering::Relaxed) != 0 {
            return;
        }
        if let Some(group) = self.has_too_many_in_a_row(counts, skipped, now) {
            group.eject_at_once(self, now);
        }
    }

    fn succeed(&self, _: Ticket, _: u64, _: Instant) {}

    fn hears_successes(&self) -> bool {
        false
    }

    fn release(&self, _: Ticket) {}
}

fn shut(until: Instant) -> Shut {
    Shut::new(JudgeKind::Outlier, Some(until))
}

impl fmt::Debug for OutlierJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlier")
            .field("ejected_until", &self.until())
            .finish_non_exhaustive()
    }
}
