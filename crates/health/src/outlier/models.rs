//! Every order of two threads over the shipped atomics and locks.

use std::{num::NonZeroU32, sync::Arc};

use loom::{model, thread};
use tower_mesh_core::{
    Attempt, Clock, Endpoint, Endpoints, Finish, Outcome, Ratio, Rng, Sampling, ServiceName,
};

use crate::outlier::{group::Group, judge::OutlierJudge, policy::OutlierPolicy};

struct World {
    group: Arc<Group>,
    all: Vec<Endpoint>,
    clock: Clock,
}

/// So many endpoints, of which one may be ejected, after `failures`.
fn world(endpoints: u16, failures: u32) -> World {
    let clock = Clock::manual().0;
    let name = ServiceName::new("orders").expect("it is a name");
    let all: Vec<_> = (1..=endpoints)
        .map(|port| Endpoint::new(([127, 0, 0, 1], port).into()))
        .collect();
    let set = Endpoints::fixed(name, all.clone());
    let policy = OutlierPolicy::default()
        .consecutive_failures(NonZeroU32::new(failures))
        .max_share(Ratio::ZERO)
        .at_least_one();
    let group = Group::new(set, policy, clock.clone(), Rng::seeded(1));
    all.iter().for_each(|endpoint| group.attach(endpoint));
    assert!(group.runs(std::task::Waker::noop()));
    World { group, all, clock }
}

impl World {
    fn attempt(&self, index: usize) -> Attempt {
        let attempt = self.all[index]
            .vitals()
            .attempt(&self.clock, Sampling::Mean);
        attempt.expect("nobody is ejected yet")
    }

    /// Whether it is ejected; the flag and the time must agree.
    fn is_ejected(&self, index: usize) -> bool {
        let judge = OutlierJudge::of(&self.all[index]).expect("it has one");
        let is_ejected = judge.until().is_some();
        assert_eq!(self.all[index].vitals().gate().is_open(), !is_ejected);
        assert_eq!(judge.sentence().is_some(), is_ejected);
        is_ejected
    }
}

fn fail(mut attempt: Attempt) {
    attempt.finish(Outcome::failure());
}

#[test]
fn of_two_that_fail_at_once_one_is_ejected_and_never_both() {
    model(|| {
        let world = world(4, 1);
        let (one, other) = (world.attempt(0), world.attempt(1));
        let elsewhere = thread::spawn(move || fail(other));
        fail(one);
        elsewhere.join().expect("it does not panic");
        let ejected = [0, 1].map(|index| world.is_ejected(index));
        assert_eq!(ejected.into_iter().filter(|is| *is).count(), 1);
    });
}

/// Of two that fail at the same moment `Load` may keep the share of successes that the one left before the other, which
/// looks like a success: then the row begins after them.
#[test]
fn failures_at_once_are_never_counted_twice_and_put_an_ejection_off_by_themselves_at_most() {
    model(|| {
        let world = world(2, 3);
        let (one, other) = (world.attempt(0), world.attempt(0));
        let later = [0; 3].map(|index| world.attempt(index));
        let elsewhere = thread::spawn(move || fail(other));
        fail(one);
        elsewhere.join().expect("it does not panic");
        assert!(!world.is_ejected(0), "two are not three");
        later.into_iter().for_each(fail);
        assert!(world.is_ejected(0));
    });
}

#[test]
fn an_ejection_while_the_driver_goes_leaves_nobody_out() {
    model(|| {
        let world = world(2, 1);
        let attempt = world.attempt(0);
        let group = Arc::clone(&world.group);
        let driver = thread::spawn(move || group.stopped());
        fail(attempt);
        driver.join().expect("it does not panic");
        assert!(!world.is_ejected(0));
    });
}
