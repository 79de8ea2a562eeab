//! The endpoints of one service, compared with each other: who is ejected, within the bounds.

mod news;
mod restore;

use std::sync::Arc;

use tower_mesh_core::{
    Availability, Clock, Endpoint, EndpointSet, Endpoints, Instant, Rng, Subscriber,
    sync::{AtomicBool, Mutex, Ordering, lock},
};

use self::{
    news::{News, Return},
    restore::Waiting,
};
use crate::outlier::{
    judge::{OutlierJudge, try_lock},
    policy::{OutlierPolicy, Readmission},
    roll::Roll,
    rules::{self, EjectionReason, Sample},
    snapshot::{Ejection, OutlierSnapshot},
};

/// Ejects endpoints of one service and lets them come back.
///
/// What it knows of an endpoint is with the endpoint, in its judge, and goes with it.
#[derive(Debug)]
pub(crate) struct Group {
    endpoints: Endpoints,
    clock: Clock,
    rng: Rng,
    /// Held for every ejection from the count of who is out until the flag is up, so that no two pass the bounds
    /// together. No user code runs under it: what there is to tell is told afterwards.
    ward: Mutex<Ward>,
    /// Whether a change of the set concerns it: somebody is ejected, or waits to be.
    is_concerned: AtomicBool,
}

#[derive(Debug)]
struct Ward {
    policy: Arc<OutlierPolicy>,
    /// Whether there is a driver: without one nobody would be let back.
    runs: bool,
    closed: bool,
    waker: Option<std::task::Waker>,
    evaluated: Option<Instant>,
    /// After the bounds have refused an ejection, calls ask again only from then on.
    full_until: Instant,
    waiting: Waiting,
    ejections: u64,
    withheld: u64,
}

/// To count who is out takes a tenth of this, for each endpoint: so failures that would eject if there were room keep
/// no processor busy.
const COUNTED_FOR_EACH: std::time::Duration = std::time::Duration::from_micros(1);

impl Group {
    pub(crate) fn new(
        endpoints: Endpoints,
        policy: OutlierPolicy,
        clock: Clock,
        rng: Rng,
    ) -> Arc<Self> {
        let group = Arc::new(Self {
            ward: Mutex::new(Ward {
                policy: Arc::new(policy),
                runs: false,
                closed: false,
                waker: None,
                evaluated: None,
                full_until: Instant::from_nanos(0),
                waiting: Waiting::default(),
                ejections: 0,
                withheld: 0,
            }),
            is_concerned: AtomicBool::new(false),
            endpoints,
            clock,
            rng,
        });
        group.endpoints.subscribe(&group);
        group
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn policy(&self) -> Arc<OutlierPolicy> {
        Arc::clone(&lock(&self.ward).policy)
    }

    pub(crate) fn attach(self: &Arc<Self>, endpoint: &Endpoint) {
        let most = most_in_a_row(&self.policy());
        OutlierJudge::attach(endpoint, self, most, self.clock.now());
    }

    pub(crate) fn set_policy(&self, policy: OutlierPolicy) {
        let now = self.clock.now();
        self.act(|ward, news| {
            let most = most_in_a_row(&policy);
            self.for_each(|_, judge| judge.set_most_in_a_row(most));
            if !policy.has_rules() {
                self.lift_all(Return::NoRules, now, news);
            }
            ward.policy = Arc::new(policy);
            news.wake(ward);
        });
    }

    /// Has the driver end.
    pub(crate) fn close(&self) {
        self.act(|ward, news| {
            ward.closed = true;
            news.wake(ward);
        });
    }

    /// A driver begins, or goes on: false if it is to end.
    pub(crate) fn runs(&self, waker: &std::task::Waker) -> bool {
        let new = waker.clone(); // Cloning and dropping a waker may be user code.
        let mut ward = lock(&self.ward);
        let old = ward.waker.replace(new);
        ward.runs = !ward.closed;
        let runs = ward.runs;
        drop(ward);
        drop(old);
        runs
    }

    /// There is no driver any more: nobody is ejected, and nobody will be.
    pub(crate) fn stopped(&self) {
        let now = self.clock.now();
        self.act(|ward, news| {
            ward.runs = false;
            self.lift_all(Return::Stopped, now, news);
        });
    }

    /// Ejects the endpoint of `judge` for failures in a row, if the bounds allow it. Called by who reports a failure, so
    /// it waits for nobody: who ejects another meanwhile, or compares all of them, leaves this one to the next failure or
    /// the next evaluation.
    pub(crate) fn eject_at_once(&self, judge: &OutlierJudge, now: Instant) {
        let mut news = News::default();
        if let Some(mut ward) = try_lock(&self.ward) {
            self.eject_within(&mut ward, judge, now, &mut news);
        }
        news.tell(&self.endpoints);
    }

    fn eject_within(&self, ward: &mut Ward, judge: &OutlierJudge, now: Instant, news: &mut News) {
        if !ward.runs || now < ward.full_until || judge.until().is_some() {
            return;
        }
        let set = self.endpoints.current();
        let is_its =
            |e: &&Endpoint| OutlierJudge::of(e).is_some_and(|other| std::ptr::eq(other, judge));
        // Who is no longer in the set has gone, and is nobody's peer.
        let Some(endpoint) = set.endpoints().iter().find(is_its) else {
            return;
        };
        let mut roll = Roll::call(set.endpoints(), now);
        let reason = EjectionReason::ConsecutiveFailures;
        if self.eject(ward, &mut roll, endpoint, reason, now, news) {
            news.wake(ward);
        } else {
            ward.full_until = now + COUNTED_FOR_EACH * set.endpoints().len() as u32;
        }
    }

    /// Compares the endpoints, ejects outliers, and takes the times of the others one step back.
    pub(crate) fn evaluate(self: &Arc<Self>, now: Instant) {
        self.act(|ward, news| {
            let policy = Arc::clone(&ward.policy);
            let set = self.endpoints.current();
            let most = most_in_a_row(&policy);
            let members: Vec<_> = (set.endpoints().iter())
                .map(|endpoint| (endpoint, OutlierJudge::attach(endpoint, self, most, now)))
                .filter(|(_, judge)| judge.belongs_to(self))
                .collect();
            self.lift_excess(ward, set.endpoints(), now, news);
            let sample = |(endpoint, judge): &(&Endpoint, &OutlierJudge)| -> Sample {
                judge.sample(endpoint.vitals().load(), now)
            };
            let samples: Vec<_> = members.iter().map(sample).collect();
            let slow = rules::slow(&samples, &policy);
            let outliers = rules::outliers(&samples, &slow, &policy);
            let mut roll = Roll::call(set.endpoints(), now);
            let is_counted = |index: usize| {
                let (endpoint, judge) = members[index];
                let gate = endpoint.vitals().gate();
                gate.availability() != Availability::In || judge.is_failing(endpoint, now)
            };
            roll.sick += (outliers.iter().filter(|(index, _)| !is_counted(*index))).count();
            for (index, reason) in outliers {
                self.eject(ward, &mut roll, members[index].0, reason, now, news);
            }
            for ((_, judge), slow) in members.iter().zip(slow) {
                judge.evaluated(slow, &policy, now);
            }
            ward.evaluated = Some(now);
        });
    }

    /// Ejects `endpoint` if the bounds allow it.
    fn eject(
        &self,
        ward: &mut Ward,
        roll: &mut Roll,
        endpoint: &Endpoint,
        reason: EjectionReason,
        now: Instant,
        news: &mut News,
    ) -> bool {
        let Some(judge) = self.judge_within(ward, roll, endpoint) else {
            return false;
        };
        let terms = ward.policy.terms;
        let chance = self.rng.unit();
        let sentence = judge.eject(reason, now, |times| terms.length(times, chance));
        self.ejected(ward);
        news.ejected(endpoint, sentence, now);
        true
    }

    fn ejected(&self, ward: &mut Ward) {
        ward.ejections += 1;
        self.is_concerned.store(true, Ordering::Relaxed);
    }

    /// The judge of an endpoint that may be ejected as it is counted now; then it is counted as out.
    fn judge_within<'a>(
        &self,
        ward: &mut Ward,
        roll: &mut Roll,
        endpoint: &'a Endpoint,
    ) -> Option<&'a OutlierJudge> {
        let judge = OutlierJudge::of(endpoint)?;
        let out = roll.out_with(endpoint)?;
        if judge.until().is_some() || !judge.belongs_to(self) {
            return None;
        }
        if roll.is_common() || !ward.policy.bounds.allow(out, roll.present) {
            ward.withheld += 1;
            return None;
        }
        roll.out = out;
        Some(judge)
    }

    /// Lets who has served its time come back; says when the next has.
    pub(crate) fn lift_due(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        self.act(|ward, news| {
            let mut next: Option<Instant> = None;
            self.restore_waiting(ward, now, news);
            self.for_each(|endpoint, judge| match judge.until() {
                Some(until) if until <= now => lift(endpoint, judge, Return::TimeOver, now, news),
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => {}
            });
            let is_concerned = next.is_some() || !ward.waiting.is_empty();
            self.is_concerned.store(is_concerned, Ordering::Relaxed);
            next
        })
    }

    /// Lets ejected endpoints come back while more are out than may be: breakers and health checks know no bounds, and
    /// who is in may go. Those come first who would come back first.
    fn lift_excess(&self, ward: &Ward, set: &[Endpoint], now: Instant, news: &mut News) {
        let mut roll = Roll::call(set, now);
        let bounds = ward.policy.bounds;
        if bounds.allow(roll.out, roll.present) {
            return;
        }
        let mut ejected = self.all_ejected(set);
        ejected.sort_by_key(|(_, judge)| judge.until());
        for (endpoint, judge) in ejected {
            if bounds.allow(roll.out, roll.present) {
                return;
            }
            let counts_as = || endpoint.vitals().gate().availability();
            let before = counts_as();
            lift(endpoint, judge, Return::TooManyOut, now, news);
            // Others may keep it out all the same.
            if before != counts_as() {
                roll.out -= 1;
            }
        }
    }

    fn all_ejected<'a>(&self, set: &'a [Endpoint]) -> Vec<(&'a Endpoint, &'a OutlierJudge)> {
        set.iter()
            .filter_map(|endpoint| Some((endpoint, OutlierJudge::of(endpoint)?)))
            .filter(|(_, judge)| judge.until().is_some() && judge.belongs_to(self))
            .collect()
    }

    fn lift_all(&self, why: Return, now: Instant, news: &mut News) {
        self.for_each(|endpoint, judge| lift(endpoint, judge, why, now, news));
    }

    /// Every endpoint with a judge of this group.
    fn for_each(&self, mut act: impl FnMut(&Endpoint, &OutlierJudge)) {
        let set = self.endpoints.current();
        for endpoint in set.endpoints() {
            if let Some(judge) = OutlierJudge::of(endpoint).filter(|judge| judge.belongs_to(self)) {
                act(endpoint, judge);
            }
        }
    }

    /// Lets `endpoint` come back because somebody wants it.
    pub(crate) fn readmit(&self, endpoint: &Endpoint) {
        self.readmit_as(endpoint, Return::ByHand, |_| true);
    }

    /// Lets `endpoint` come back because a health check has found it well, unless the policy says otherwise.
    pub(crate) fn readmit_healthy(&self, endpoint: &Endpoint) {
        self.readmit_as(endpoint, Return::Healthy, |policy| {
            policy.readmission == Readmission::HealthyCheck
        });
    }

    fn readmit_as(
        &self,
        endpoint: &Endpoint,
        why: Return,
        may: impl FnOnce(&OutlierPolicy) -> bool,
    ) {
        let now = self.clock.now();
        self.act(|ward, news| {
            let judge = OutlierJudge::of(endpoint).filter(|judge| judge.belongs_to(self));
            if let Some(judge) = judge.filter(|_| may(&ward.policy)) {
                lift(endpoint, judge, why, now, news);
            }
        });
    }

    pub(crate) fn snapshot(&self) -> OutlierSnapshot {
        let taken = self.clock.now();
        let ward = lock(&self.ward);
        let set = self.endpoints.current();
        let roll = Roll::call(set.endpoints(), taken);
        let ejected = self.all_ejected(set.endpoints()).into_iter();
        OutlierSnapshot {
            service: self.endpoints.service().clone(),
            taken,
            endpoints: roll.present,
            out: roll.out,
            most_out: ward.policy.bounds.most(roll.present),
            evaluated: ward.evaluated,
            ejected: ejected
                .filter_map(|(endpoint, judge)| Some(Ejection::new(endpoint, judge.sentence()?)))
                .collect(),
            ejections: ward.ejections,
            withheld: ward.withheld,
        }
    }

    /// Acts under the lock, and tells of it when it is free.
    fn act<T>(&self, act: impl FnOnce(&mut Ward, &mut News) -> T) -> T {
        let mut news = News::default();
        let done = act(&mut lock(&self.ward), &mut news);
        news.tell(&self.endpoints);
        done
    }
}

impl Subscriber for Group {
    /// Endpoints may have gone, and with fewer of them fewer may be out.
    fn changed(&self, _: &EndpointSet) {
        if !self.is_concerned.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.now();
        self.act(|ward, news| {
            // The present one: that which came with the call may be older.
            let set = self.endpoints.current();
            self.lift_excess(ward, set.endpoints(), now, news);
            if !ward.waiting.is_empty() {
                // To restore it, the judges have to be there: the driver sees to it.
                news.wake(ward);
            }
        });
    }
}

fn lift(endpoint: &Endpoint, judge: &OutlierJudge, why: Return, now: Instant, news: &mut News) {
    if judge.lift(endpoint.vitals().load(), now).is_some() {
        news.returned(endpoint, why);
    }
}

fn most_in_a_row(policy: &OutlierPolicy) -> u64 {
    policy
        .consecutive
        .map_or(u64::MAX, |most| most.get().into())
}
