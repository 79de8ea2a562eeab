//! Picks, attempts and removals in every order of two threads. The snapshot itself is arc-swap's, which has its own.

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use tower_mesh_core::{Attempt, Clock, Endpoint, Finish, Outcome, Rng};

use crate::{
    pick::{Avoid, Chance, Field, pick},
    strategy::Strategy,
    table::Table,
};

struct Fleet {
    endpoints: Vec<Endpoint>,
    table: Table,
    chance: Chance,
    clock: Clock,
}

impl Fleet {
    fn new(size: u16) -> Self {
        Self {
            endpoints: (1..=size)
                .map(|port| Endpoint::new(([10, 0, 0, 1], port).into()))
                .collect(),
            table: Table::new(&vec![1; usize::from(size)], |_| true),
            // A model has to take the same course in each run.
            chance: Chance {
                rng: Rng::seeded(1),
                ..Chance::default()
            },
            clock: Clock::manual().0,
        }
    }

    fn pick(&self, strategy: Strategy) -> Option<usize> {
        let field = Field {
            endpoints: &self.endpoints,
            table: &self.table,
        };
        let now = self.clock.now();
        pick(field, strategy, &self.chance, now, true, &Avoid::default())
    }

    /// What the balancer does: picks, and again without it when its gate has shut meanwhile.
    fn begin(&self, strategy: Strategy) -> Option<(usize, Attempt)> {
        (0..2).find_map(|_| {
            let index = self.pick(strategy)?;
            let vitals = self.endpoints[index].vitals();
            let attempt = vitals.attempt(&self.clock, strategy.sampling()).ok()?;
            Some((index, attempt))
        })
    }
}

#[test]
fn whoever_knows_of_a_removal_is_not_sent_there_and_no_attempt_is_lost() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new(2));
        let removed = Arc::new(AtomicBool::new(false));
        let remover = {
            let (fleet, removed) = (Arc::clone(&fleet), Arc::clone(&removed));
            thread::spawn(move || {
                fleet.endpoints[1].vitals().gate().set_draining(true);
                removed.store(true, Ordering::Release);
            })
        };
        let known = removed.load(Ordering::Acquire);
        let (index, mut attempt) = fleet.begin(Strategy::BestOfThree).expect("one stays");
        assert!(!known || index == 0);
        attempt.finish(Outcome::success());
        drop(attempt);
        remover.join().expect("it does not panic");
        assert_eq!(fleet.pick(Strategy::BestOfThree), Some(0));
        for endpoint in &fleet.endpoints {
            assert_eq!(endpoint.vitals().load().in_flight(), 0);
        }
    });
}

#[test]
fn of_two_who_take_turns_at_once_each_gets_another() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new(2));
        let other = {
            let fleet = Arc::clone(&fleet);
            thread::spawn(move || fleet.pick(Strategy::RoundRobin))
        };
        let mine = fleet.pick(Strategy::RoundRobin);
        assert_ne!(mine, other.join().expect("it does not panic"));
    });
}

#[test]
fn two_who_begin_at_once_are_both_counted() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new(1));
        let other = {
            let fleet = Arc::clone(&fleet);
            thread::spawn(move || fleet.begin(Strategy::LeastInFlight))
        };
        let mine = fleet.begin(Strategy::LeastInFlight);
        let other = other.join().expect("it does not panic");
        let load = fleet.endpoints[0].vitals().load();
        assert_eq!((load.in_flight(), load.attempts()), (2, 2));
        drop((mine, other));
        assert_eq!(load.in_flight(), 0);
    });
}
