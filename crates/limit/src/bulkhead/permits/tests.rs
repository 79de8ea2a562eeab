use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use tower_mesh_core::Priority;

use super::{Count, Entry, MAX_LIMIT, Permits, Ticket};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn count(limit: usize, out: usize, waiting: usize) -> Count {
    Count {
        limit,
        out,
        waiting,
    }
}

#[test]
fn limits_beyond_what_the_word_holds_are_cut_off() {
    let permits = Permits::new(usize::MAX);
    assert_eq!(permits.count().limit as u64, MAX_LIMIT);
    assert!(permits.try_acquire());
    permits.resize(usize::MAX);
    assert_eq!(permits.count(), count(MAX_LIMIT as usize, 1, 0));
}

/// Tries to take a permit in the moment it is woken.
struct Pushy(Arc<Permits>, AtomicUsize);

impl Wake for Pushy {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(usize::from(self.0.try_acquire()), SeqCst);
    }
}

#[test]
fn nobody_overtakes_those_who_wait_even_while_permits_are_handed_out() {
    let permits = Arc::new(Permits::new(1));
    assert!(permits.try_acquire());
    let pushy = Arc::new(Pushy(Arc::clone(&permits), AtomicUsize::new(0)));
    let first = permits.enter(Waker::from(Arc::clone(&pushy)), 2, Priority::Default);
    let second = permits.enter(Waker::noop().clone(), 2, Priority::Default);
    let (Entry::Queued(_), Entry::Queued(second)) = (first, second) else {
        panic!("there were places");
    };
    permits.resize(3);
    assert_eq!(pushy.1.load(SeqCst), 0, "the third permit is the second's");
    assert!(permits.is_turn(second, Waker::noop().clone()));
    assert_eq!(permits.count(), count(3, 3, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Priority),
    /// One of those who have called leaves: gives his permit back, or his place.
    Leave(usize),
    Resize(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![
            2 => Just(Priority::Default),
            1 => Just(Priority::Critical),
            1 => Just(Priority::Sheddable),
        ].prop_map(Step::Arrive),
        4 => any::<usize>().prop_map(Step::Leave),
        1 => (1..6usize).prop_map(Step::Resize),
    ]
}

/// Somebody who has called and not left.
struct Caller {
    number: usize,
    bell: Arc<Bell>,
    ticket: Option<Ticket>,
}

/// The real thing beside a plain account of who is in and who waits.
struct World {
    permits: Permits,
    callers: Vec<Caller>,
    arrived: usize,
    limit: usize,
    inside: Vec<usize>,
    waiting: VecDeque<(usize, Priority)>,
}

const PLACES: usize = 3;

impl World {
    fn new(limit: usize) -> Self {
        Self {
            permits: Permits::new(limit),
            callers: Vec::new(),
            arrived: 0,
            limit,
            inside: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Arrive(priority) => self.arrive(priority),
            Step::Leave(_) if self.callers.is_empty() => {}
            Step::Leave(which) => self.leave(which % self.callers.len()),
            Step::Resize(limit) => {
                self.permits.resize(limit);
                self.limit = limit;
            }
        }
        while self.inside.len() < self.limit {
            let Some((next, _)) = self.waiting.pop_front() else {
                break;
            };
            self.inside.push(next);
        }
        self.agree();
    }

    fn arrive(&mut self, priority: Priority) {
        let (number, bell) = (self.arrived, Arc::new(Bell::default()));
        self.arrived += 1;
        let entry = match priority {
            // As a bulkhead has it, it does not wait.
            Priority::Sheddable if self.permits.try_acquire_spare() => {
                assert!(4 * self.inside.len() < 3 * self.limit, "not spare");
                Entry::Admitted
            }
            Priority::Sheddable => {
                let spare = 4 * self.inside.len() < 3 * self.limit;
                assert!(!spare || !self.waiting.is_empty());
                return;
            }
            _ if self.permits.try_acquire() => Entry::Admitted,
            _ => {
                let waker = Waker::from(Arc::clone(&bell));
                self.permits.enter(waker, PLACES, priority)
            }
        };
        let ticket = match entry {
            Entry::Full => {
                assert_eq!(self.waiting.len(), PLACES);
                return;
            }
            Entry::Admitted => {
                assert!(self.waiting.is_empty() && self.inside.len() < self.limit);
                self.inside.push(number);
                None
            }
            Entry::Queued(ticket) => {
                let critical = |other: &&(_, Priority)| other.1 == Priority::Critical;
                let at = match priority {
                    Priority::Critical => self.waiting.iter().take_while(critical).count(),
                    _ => self.waiting.len(),
                };
                self.waiting.insert(at, (number, priority));
                Some(ticket)
            }
        };
        self.callers.push(Caller {
            number,
            bell,
            ticket,
        });
    }

    fn leave(&mut self, which: usize) {
        let Caller { number, ticket, .. } = self.callers.remove(which);
        let waited = ticket.is_some_and(|ticket| self.permits.leave(ticket));
        if !waited {
            self.permits.release();
        }
        assert_eq!(
            waited,
            self.waiting.iter().any(|&(other, _)| other == number)
        );
        self.waiting.retain(|&(other, _)| other != number);
        self.inside.retain(|&other| other != number);
    }

    fn agree(&self) {
        let expected = count(self.limit, self.inside.len(), self.waiting.len());
        assert_eq!(self.permits.count(), expected);
        for caller in &self.callers {
            let Some(ticket) = caller.ticket else {
                continue;
            };
            let inside = self.inside.contains(&caller.number);
            assert_eq!(
                caller.bell.rung(),
                usize::from(inside),
                "woken once, in turn"
            );
            let waker = Waker::from(Arc::clone(&caller.bell));
            assert_eq!(self.permits.is_turn(ticket, waker), inside);
        }
    }
}

proptest! {
    // I1, I5: nobody above the limit, the critical first and else in their order, nobody forgotten
    #[test]
    fn permits_go_where_a_plain_account_says(
        limit in 1..4usize,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(limit);
        for step in steps {
            world.take(step);
        }
        // Whoever waits gets in when those before him leave: nobody starves.
        while !world.callers.is_empty() {
            let first = world.inside[0];
            let which = world.callers.iter().position(|caller| caller.number == first);
            world.take(Step::Leave(which.expect("who is inside has called")));
        }
        assert_eq!(world.permits.count(), count(world.limit, 0, 0));
    }
}
