//! When what is checked, so many at once at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{Clock, Instant, Ratio, Rng, Sleep};

use crate::probe::{Check, Failure, Probe};

/// How often checks are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// From the end of one check to the beginning of the next.
    pub(crate) interval: Duration,
    /// Up to this share is added to each interval.
    pub(crate) jitter: Ratio,
    /// The first check comes at some time within this.
    pub(crate) first: Duration,
    pub(crate) limit: Duration,
    pub(crate) at_once: usize,
}

/// The checks of what has keys of type `K`: due, or under way.
pub(crate) struct Schedule<K, T> {
    clock: Clock,
    rng: Rng,
    pace: Pace,
    due: BTreeSet<(Instant, K)>,
    /// When what is due is due.
    times: BTreeMap<K, Instant>,
    running: Vec<(K, Probe<T>)>,
    sleep: Option<Sleep>,
}

/// A check has ended.
pub(crate) struct Ended<K, T> {
    pub(crate) key: K,
    pub(crate) answer: Result<T, Failure>,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
}

impl<K: Copy + Ord, T> Schedule<K, T> {
    pub(crate) fn new(clock: Clock, rng: Rng, pace: Pace) -> Self {
        Self {
            clock,
            rng,
            pace,
            due: BTreeSet::new(),
            times: BTreeMap::new(),
            running: Vec::new(),
            sleep: None,
        }
    }

    pub(crate) fn add(&mut self, key: K) {
        let at = self.clock.now() + self.pace.first.mul_f64(self.rng.unit());
        self.plan(key, at);
    }

    fn plan(&mut self, key: K, at: Instant) {
        self.times.insert(key, at);
        self.due.insert((at, key));
    }

    /// No check is made any more, and one that is under way is dropped.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(at) = self.times.remove(&key) {
            self.due.remove(&(at, key));
        }
        self.running.retain(|(running, _)| *running != key);
    }

    /// Goes on with the checks; gives those that have ended. If it gives none, it is polled again when there is more to
    /// do.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut start: impl FnMut(K) -> Check<T>,
    ) -> Vec<Ended<K, T>> {
        loop {
            self.start_due(&mut start);
            let ended = self.poll_running(cx);
            if !ended.is_empty() || !self.is_next_due(cx) {
                return ended;
            }
        }
    }

    fn start_due(&mut self, start: &mut impl FnMut(K) -> Check<T>) {
        let now = self.clock.now();
        while self.running.len() < self.pace.at_once {
            let Some((at, key)) = self.due.first().copied().filter(|(at, _)| *at <= now) else {
                return;
            };
            self.due.remove(&(at, key));
            self.times.remove(&key);
            let probe = Probe::start(|| start(key), &self.clock, self.pace.limit);
            self.running.push((key, probe));
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Vec<Ended<K, T>> {
        let mut ended = Vec::new();
        let clock = &self.clock;
        self.running.retain_mut(|(key, probe)| {
            let Poll::Ready(answer) = probe.poll(cx) else {
                return true;
            };
            let at = clock.now();
            ended.push(Ended {
                key: *key,
                answer,
                took: at.since(probe.started()),
                at,
            });
            false
        });
        for Ended { key, at, .. } in &ended {
            let jitter = self.pace.jitter.get() * self.rng.unit();
            let more = self.pace.interval.as_secs_f64() * jitter;
            let more = Duration::try_from_secs_f64(more).unwrap_or(Duration::MAX);
            self.plan(*key, *at + self.pace.interval + more);
        }
        ended
    }

    /// Whether another check is due already; else who polls is woken when it is.
    fn is_next_due(&mut self, cx: &mut Context<'_>) -> bool {
        let has_room = self.running.len() < self.pace.at_once;
        let Some((at, _)) = self.due.first().copied().filter(|_| has_room) else {
            self.sleep = None;
            return false;
        };
        let clock = &self.clock;
        let sleep = self.sleep.get_or_insert_with(|| clock.sleep_until(at));
        if sleep.deadline() != at {
            Pin::new(&mut *sleep).reset(at);
        }
        let is_due = Pin::new(sleep).poll(cx).is_ready();
        if is_due {
            self.sleep = None;
        }
        is_due
    }
}
