//! Ejection against a plain model, whatever comes: invariant I6.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use proptest::prelude::*;
use tower_mesh_core::{Availability, Endpoint, GateHandle, Instant, JudgeKind, Ratio};

use crate::{S, World, endpoint, steady};

/// Keeps an endpoint out as a breaker would.
#[derive(Debug)]
struct Breaker;

impl tower_mesh_core::Judge for Breaker {
    fn standing(&self, _: Instant) -> tower_mesh_core::Standing {
        tower_mesh_core::Standing::Limited
    }

    fn admit(&self, _: Instant) -> Result<tower_mesh_core::Ticket, tower_mesh_core::Shut> {
        Ok(tower_mesh_core::Ticket::new(0, false))
    }

    fn report(
        &self,
        _: tower_mesh_core::Ticket,
        _: tower_mesh_core::Outcome,
        _: Duration,
        _: Instant,
    ) {
    }

    fn release(&self, _: tower_mesh_core::Ticket) {}
}

#[derive(Clone, Debug)]
enum Step {
    Fail(usize),
    Succeed(usize),
    Break(usize, bool),
    Remove(usize),
    Add,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..12).prop_map(Step::Fail),
        2 => (0usize..12).prop_map(Step::Succeed),
        1 => (0usize..12, any::<bool>()).prop_map(|(index, out)| Step::Break(index, out)),
        1 => (0usize..12).prop_map(Step::Remove),
        1 => Just(Step::Add),
        2 => (0u64..40_000).prop_map(Step::Pass),
    ]
}

/// What is known of one endpoint, in the plainest form.
#[derive(Debug, Default)]
struct Known {
    in_a_row: u32,
    /// Calls and failures since the last tick.
    calls: (u32, u32),
    /// Until when, in milliseconds.
    ejected: Option<u64>,
    times: u64,
    /// When it came back, or was last taken a step back.
    clean: Option<u64>,
    broken: bool,
}

/// Fails three times in a row and is out for ten seconds a time, at most a minute.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    next_tick: u64,
    share: u64,
    healthy: usize,
    all: BTreeMap<u16, Known>,
}

impl Model {
    fn out(&self) -> usize {
        let is_out = |known: &&Known| known.broken || known.ejected.is_some();
        self.all.values().filter(is_out).count()
    }

    fn holds(&self, out: usize) -> bool {
        let present = self.all.len();
        out as u64 * 100 <= self.share * present as u64 && out + self.healthy <= present
    }

    /// More than half are out, or have failed twice in a row.
    fn is_common(&self) -> bool {
        let is_sick =
            |known: &&Known| known.broken || known.ejected.is_some() || known.in_a_row >= 2;
        let sick = self.all.values().filter(is_sick).count();
        self.all.len() > 1 && 2 * sick > self.all.len()
    }

    fn try_eject(&mut self, port: u16) {
        let known = &self.all[&port];
        if known.ejected.is_some() || known.in_a_row < 3 {
            return;
        }
        let out = self.out() + usize::from(!known.broken);
        if self.holds(out) && !self.is_common() {
            let now = self.now;
            let known = self.all.get_mut(&port).expect("it is there");
            known.times += 1;
            known.ejected = Some(now + (10 * known.times).min(60) * 1_000);
        }
    }

    fn lift(&mut self, port: u16) {
        let now = self.now;
        let known = self.all.get_mut(&port).expect("it is there");
        (known.ejected, known.in_a_row, known.clean) = (None, 0, Some(now));
        known.calls = (0, 0);
    }

    fn lift_excess(&mut self) {
        while !self.holds(self.out()) {
            let ejected = self
                .all
                .iter()
                .filter_map(|(port, known)| Some((known.ejected?, *port)));
            let Some((_, port)) = ejected.min() else {
                return;
            };
            self.lift(port);
        }
    }

    fn advance(&mut self, to: u64) {
        loop {
            let back = self.all.values().filter_map(|known| known.ejected).min();
            let next = back.map_or(self.next_tick, |back| back.min(self.next_tick));
            if next > to {
                break;
            }
            self.now = next;
            let due = self
                .all
                .iter()
                .filter(|(_, known)| known.ejected.is_some_and(|at| at <= next));
            for port in due.map(|(port, _)| *port).collect::<Vec<_>>() {
                self.lift(port);
            }
            if next == self.next_tick {
                self.tick();
            }
        }
        self.now = to;
    }

    fn tick(&mut self) {
        self.next_tick = self.now + 10_000;
        self.lift_excess();
        // The worst first: by the share of failures since the last tick, then by failures in a row, then by the set.
        let mut order: Vec<_> = self
            .all
            .iter()
            .map(|(port, known)| {
                let (calls, failures) = known.calls;
                let share = f64::from(failures) / f64::from(calls.max(1));
                (share, known.in_a_row, *port)
            })
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        for known in self.all.values_mut() {
            known.calls = (0, 0);
        }
        for (_, _, port) in order {
            self.try_eject(port);
        }
        for known in self
            .all
            .values_mut()
            .filter(|known| known.ejected.is_none())
        {
            if known.clean.is_none_or(|clean| self.now - clean >= 10_000) {
                known.times = known.times.saturating_sub(1);
                known.clean = Some(self.now);
            }
        }
    }
}

/// The shipped code, beside the model.
struct Both {
    world: World,
    model: Model,
    start: Instant,
    breakers: BTreeMap<u16, GateHandle>,
    next_port: u16,
}

impl Both {
    fn new(endpoints: u16, share: u8, healthy: usize) -> Self {
        let policy = steady()
            .consecutive_failures(NonZeroU32::new(3))
            .success_rate(None)
            .failure_percentage(None)
            .eject_for(10 * S)
            .eject_at_most(60 * S)
            .max_share(Ratio::percent(share))
            .min_healthy(healthy);
        let world = World::new(endpoints, policy);
        let mut this = Self {
            start: world.clock.now(),
            model: Model {
                next_tick: 10_000,
                share: share.into(),
                healthy,
                all: (1..=endpoints)
                    .map(|port| (port, Known::default()))
                    .collect(),
                ..Model::default()
            },
            breakers: BTreeMap::new(),
            next_port: endpoints + 1,
            world,
        };
        for endpoint in this.world.all.clone() {
            this.attach(&endpoint);
        }
        this
    }

    fn attach(&mut self, endpoint: &Endpoint) {
        tower_mesh_core::NewLayer::layer_for(&self.world.layer, endpoint);
        let mut handle = None;
        endpoint.vitals().attach(JudgeKind::Breaker, |gate| {
            handle = Some(gate);
            Arc::new(Breaker)
        });
        let handle = handle.expect("it is new");
        self.breakers.insert(endpoint.address().port(), handle);
    }

    /// Another moment: what the bounds have refused is asked again in each, and the order within one says no more.
    fn moment(&mut self) {
        self.world.pass(crate::MS);
        self.model.advance(self.model.now + 1);
    }

    fn take(&mut self, step: &Step) {
        let present = self.world.all.len();
        match *step {
            Step::Pass(ms) => {
                self.world.pass(Duration::from_millis(ms));
                self.model.advance(self.model.now + ms);
            }
            Step::Add => {
                let new = endpoint(self.next_port);
                self.attach(&new);
                self.model.all.insert(self.next_port, Known::default());
                self.next_port += 1;
                let mut all = self.world.all.clone();
                all.push(new);
                self.world.publish(all);
                self.model.lift_excess();
            }
            _ if present == 0 => {}
            Step::Remove(index) => {
                let mut all = self.world.all.clone();
                let gone = all.remove(index % present);
                self.model.all.remove(&gone.address().port());
                self.world.publish(all);
                self.model.lift_excess();
            }
            Step::Fail(index) => {
                let port = self.port(index % present);
                self.world.fail(index % present, 1);
                let known = self.model.all.get_mut(&port).expect("it is there");
                known.calls = (known.calls.0 + 1, known.calls.1 + 1);
                if known.ejected.is_none() {
                    known.in_a_row += 1;
                    self.model.try_eject(port);
                }
            }
            Step::Succeed(index) => {
                let port = self.port(index % present);
                self.world.succeed(index % present, 1);
                let known = self.model.all.get_mut(&port).expect("it is there");
                known.calls.0 += 1;
                known.in_a_row = 0;
            }
            Step::Break(index, out) => {
                let port = self.port(index % present);
                self.breakers[&port].set(out);
                self.model.all.get_mut(&port).expect("it is there").broken = out;
            }
        }
        self.moment();
    }

    fn port(&self, index: usize) -> u16 {
        self.world.all[index].address().port()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let at = |ms: u64| self.start + Duration::from_millis(ms);
        let snapshot = self.world.snapshot();
        let is: Vec<_> = (snapshot.ejected.iter())
            .map(|ejection| {
                (
                    ejection.address.port(),
                    ejection.until,
                    u64::from(ejection.times),
                )
            })
            .collect();
        let expected: Vec<_> = (self.model.all.iter())
            .filter_map(|(port, known)| Some((*port, at(known.ejected?), known.times)))
            .collect();
        prop_assert_eq!(&is, &expected);
        for endpoint in &self.world.all {
            let known = &self.model.all[&endpoint.address().port()];
            let is_out = endpoint.vitals().gate().availability() == Availability::Out;
            prop_assert_eq!(is_out, known.broken || known.ejected.is_some());
        }
        // Of the shipped code alone: what is ejected is within the bounds, whatever breakers have done since.
        prop_assert!(is.is_empty() || self.model.holds(is.len()), "{:?}", is);
        // And an ejection that has just been made is within them together with whom others keep out.
        let now = self.world.clock.now();
        let is_new = snapshot
            .ejected
            .iter()
            .any(|ejection| now.since(ejection.since) <= crate::MS);
        prop_assert!(!is_new || self.model.holds(snapshot.out), "{:?}", snapshot);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // invariant I6
    #[test]
    fn whatever_fails_breaks_comes_or_goes_it_ejects_whom_the_model_ejects_within_the_bounds(
        endpoints in 0u16..12,
        share in 0u8..=100,
        healthy in 0usize..4,
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut both = Both::new(endpoints, share, healthy);
        for step in &steps {
            both.take(step);
            both.check()?;
        }
    }
}
