//! Flaws of the peers that this has not: see tests/FLAWS.md.

use std::{collections::HashMap, time::Duration};

use crate::{S, World, steady};

/// How long tower-resilience's detector ejects, the `nth` time: doubled each time, and never less again.
fn doubled(base: Duration, nth: u32, _good_intervals: u32) -> Duration {
    base * 2u32.pow(nth - 1)
}

// flaw T13
#[test]
fn flaw_t13_ejection_times_are_bounded_and_go_back() {
    let recovers = |time: &mut dyn FnMut(u32, u32) -> Duration| {
        let longest = (1..=12).map(|nth| time(nth, 0)).max() <= Some(300 * S);
        longest && time(13, 100) <= 30 * S
    };
    let mut world = World::new(3, steady());
    let mut ours = |_: u32, good: u32| {
        (0..good).for_each(|_| world.interval(&[]));
        world.fail(0, 5);
        let time = world.remaining(0).expect("it is ejected");
        world.pass(time);
        time
    };
    assert!(recovers(&mut ours));
    let mut theirs = |nth, good| doubled(30 * S, nth, good);
    assert!(!recovers(&mut theirs), "as in tower-resilience");
}

/// What tower-resilience's detector keeps: everybody who was ever registered.
#[derive(Default)]
struct Registered(usize);

// flaw T15
#[test]
fn flaw_t15_endpoints_that_go_are_nobodys_peers() {
    let mut world = World::new(2, steady());
    let mut registered = Registered(2);
    for generation in 1..100u16 {
        let all = vec![
            crate::endpoint(2 * generation + 1),
            crate::endpoint(2 * generation + 2),
        ];
        registered.0 += 2;
        for endpoint in &all {
            tower_mesh_core::NewLayer::layer_for(&world.layer, endpoint);
        }
        world.publish(all);
    }
    let may_be_out = |of: usize| of / 2;
    assert_eq!(world.snapshot().endpoints, 2);
    world.fail(0, 5);
    world.fail(1, 5);
    assert_eq!(world.snapshot().ejected.len(), may_be_out(2));
    assert!(
        may_be_out(registered.0) >= 2,
        "as in tower-resilience: both"
    );
}

/// Endpoints that are registered and then ejected.
trait Detects {
    fn register(&mut self, index: usize);
    fn is_ejected(&self, index: usize) -> bool;
}

impl Detects for World {
    fn register(&mut self, index: usize) {
        tower_mesh_core::NewLayer::layer_for(&self.layer, &self.all[index]);
    }

    fn is_ejected(&self, index: usize) -> bool {
        self.ejected() == [index] && self.remaining(index) == Some(30 * S)
    }
}

/// tower-resilience's: who is registered begins anew, known or not.
#[derive(Default)]
struct Anew(HashMap<usize, bool>);

impl Detects for Anew {
    fn register(&mut self, index: usize) {
        self.0.insert(index, false);
    }

    fn is_ejected(&self, index: usize) -> bool {
        self.0[&index]
    }
}

fn stays_out(detector: &mut impl Detects) -> bool {
    assert!(detector.is_ejected(0));
    detector.register(0);
    detector.is_ejected(0)
}

// flaw T15
#[test]
fn flaw_t15_a_layer_made_once_more_for_an_endpoint_ends_no_ejection() {
    let mut world = World::new(3, steady());
    world.fail(0, 5);
    assert!(stays_out(&mut world));
    let mut theirs = Anew(HashMap::from([(0, true)]));
    assert!(!stays_out(&mut theirs), "as in tower-resilience");
}
