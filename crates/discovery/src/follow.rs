//! Follows one service: the part of the driver that looks it up, takes its updates in and publishes what callers see.

mod show;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_mesh_core::{Empties, Instant, Sleep, Update};

use crate::{
    backoff::{self, Backoff, jittered},
    faults::Faults,
    hold::Hold,
    idle::Idle,
    shared::{Entry, Shared},
    source::{Heard, Heed, Source},
    table::{Table, Work},
};

/// How many endpoints are taken in before the driver lets others run: less than a millisecond's worth.
const PORTION: usize = 1_024;

/// How many steps are made before the driver lets others run, if the source always has more to say.
const STEPS: usize = 32;

/// How soon a source is heard again after an error: one that fails without ever waiting does not spin the driver.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

pin_project! {
    /// Ends when the service is evicted.
    #[derive(Debug)]
    pub(crate) struct Follow {
        follower: Follower,
        #[pin]
        timer: Option<Sleep>,
    }
}

#[derive(Debug)]
struct Follower {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    source: Source,
    opened: Instant,
    /// The source is not heard before.
    resume: Instant,
    backoff: Backoff,
    table: Table,
    /// The update that is being taken in.
    work: Option<Work>,
    absent: bool,
    hold: Hold,
    failing: bool,
    faults: Faults,
    idle: Idle,
}

enum Step {
    Again,
    /// There is more to do, but others have waited long enough.
    Yield,
    /// Nothing to do before the source or the entry wakes us, or this time comes.
    Wait(Instant),
    Over,
}

impl Follow {
    pub(crate) fn new(shared: Arc<Shared>, entry: Arc<Entry>) -> Self {
        Self {
            follower: Follower::new(shared, entry),
            timer: None,
        }
    }
}

impl Future for Follow {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        this.follower.entry.waker.register(cx.waker());
        for _ in 0..STEPS {
            match this.follower.step(cx) {
                Step::Again => {}
                Step::Yield => break,
                Step::Over => return Poll::Ready(()),
                Step::Wait(at) => {
                    ready!(this.follower.poll_timer(this.timer.as_mut(), at, cx));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Follower {
    fn new(shared: Arc<Shared>, entry: Arc<Entry>) -> Self {
        let now = shared.clock.now();
        let grace = match shared.empties {
            Empties::Suspect => shared.settings.empty_grace,
            Empties::Authoritative => Duration::ZERO,
        };
        Self {
            table: Table::new(shared.settings.filter.clone()),
            idle: Idle::new(shared.settings.idle_eviction, now),
            shared,
            entry,
            source: Source::default(),
            opened: now,
            resume: now,
            backoff: Backoff::default(),
            work: None,
            absent: false,
            hold: Hold::new(grace),
            failing: false,
            faults: Faults::default(),
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        if self.entry.is_evicted() {
            return Step::Over;
        }
        let now = self.shared.clock.now();
        if let Some(work) = self.work.take() {
            return self.take_in(work, now);
        }
        if self.entry.take_refresh() {
            self.refresh(now);
        }
        if let Some(turn) = self.hold.expire(self.failing, now) {
            self.tell(turn);
            self.show(now);
        }
        if self.evict_if_idle(now) {
            return Step::Over;
        }
        if now < self.resume {
            return Step::Wait(self.next_alarm(now));
        }
        self.listen(now, cx)
    }

    fn listen(&mut self, now: Instant, cx: &mut Context<'_>) -> Step {
        if !self.source.is_open() {
            self.opened = now;
        }
        let Self {
            source,
            shared,
            entry,
            ..
        } = self;
        match source.poll(&*shared.resolve, entry.service(), cx) {
            Poll::Pending => return Step::Wait(self.next_alarm(now)),
            Poll::Ready(Heed::Update(update)) => self.begin(update, now),
            Poll::Ready(Heed::Failed(error)) => {
                self.failed(error, now);
                self.resume = now + ERROR_PAUSE;
            }
            Poll::Ready(Heed::Panicked(error)) => {
                self.failed(error, now);
                self.look_up_later(now);
            }
            Poll::Ready(Heed::Ended) => {
                if self.source.heard() == Heard::Nothing {
                    self.failed("the source ended without an answer".into(), now);
                }
                self.look_up_later(now);
            }
        }
        Step::Again
    }

    fn begin(&mut self, update: Update, now: Instant) {
        let absent = matches!(update, Update::Absent);
        let most = self.shared.settings.max_endpoints.get();
        match self.table.begin(update, most) {
            Ok(work) => {
                self.work = Some(work);
                self.absent = absent;
            }
            // Later patches would build on what was refused: only another look-up brings a whole answer.
            Err(refused) => {
                if !self.failing {
                    tracing::error!(service = %self.entry.service(), %refused, "an update is refused");
                }
                self.failed(refused.to_string().into(), now);
                self.source.close();
                self.look_up_later(now);
            }
        }
    }

    fn take_in(&mut self, mut work: Work, now: Instant) -> Step {
        if !self.table.work(&mut work, PORTION) {
            self.work = Some(work);
            return Step::Yield;
        }
        self.note_faults(work.into_faults());
        if let Some(turn) = self.hold.judge(self.table.loses_most(), now) {
            self.tell(turn);
        }
        self.answered(now);
        self.show(now);
        Step::Again
    }

    /// The look-up has ended: when to begin the next.
    fn look_up_later(&mut self, now: Instant) {
        let Shared { settings, rng, .. } = &*self.shared;
        let answered = self.source.heard() == Heard::Answer;
        // One that answers and ends each time is asked more and more rarely, too.
        if answered && now.since(self.opened) >= backoff::LONGEST {
            self.backoff.reset();
        }
        self.resume = now
            + match answered && self.absent && !self.failing {
                true => jittered(settings.negative_ttl, rng),
                false => self.backoff.next(rng),
            };
    }

    fn refresh(&mut self, now: Instant) {
        // A look-up that has brought nothing yet is fresh enough.
        if !self.source.is_open() || self.source.heard() > Heard::Nothing {
            self.source.close();
            self.resume = now;
        }
    }

    fn evict_if_idle(&mut self, now: Instant) -> bool {
        let (entry, limit) = (&self.entry, self.idle_limit());
        let idle = self.idle.look(entry.is_held(), entry.used(), limit, now);
        let evicted = idle && self.shared.evict(entry);
        if evicted {
            tracing::debug!(service = %entry.service(), "nobody uses it, it is no longer followed");
        }
        evicted
    }

    /// How long it is followed without being used; a name that is no service not longer than it is remembered.
    fn idle_limit(&self) -> Duration {
        let settings = &self.shared.settings;
        match self.absent {
            true => settings.negative_ttl.min(settings.idle_eviction),
            false => settings.idle_eviction,
        }
    }

    fn next_alarm(&self, now: Instant) -> Instant {
        let resume = Some(self.resume).filter(|at| *at > now);
        let hold = self.hold.until().filter(|_| !self.failing);
        let times = [resume, hold, Some(self.idle.next_look())];
        times.into_iter().flatten().min().unwrap_or(Instant::NEVER)
    }

    fn poll_timer(
        &self,
        mut timer: Pin<&mut Option<Sleep>>,
        at: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match timer.as_mut().as_pin_mut() {
            Some(sleep) if sleep.deadline() == at => {}
            Some(sleep) => sleep.reset(at),
            None => timer.set(Some(self.shared.clock.sleep_until(at))),
        }
        match timer.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}
