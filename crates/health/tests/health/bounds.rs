//! How many may be out: scenario 13, contract 8.

use std::{sync::Arc, thread};

use tower_mesh_core::{
    Availability, GateHandle, Instant, Judge, JudgeKind, Outcome, Ratio, Shut, Standing, Ticket,
};

use crate::{S, World, steady};

/// A judge of another kind that keeps the endpoint out.
#[derive(Debug)]
struct Out(JudgeKind);

impl Judge for Out {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Shut(Shut::new(self.0, None))
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        Err(Shut::new(self.0, None))
    }

    fn report(&self, _: Ticket, _: Outcome, _: std::time::Duration, _: Instant) {}

    fn release(&self, _: Ticket) {}
}

/// Has a judge of `kind` keep the endpoint out as long as its flag is up.
fn keep_out(world: &World, index: usize, kind: JudgeKind) -> GateHandle {
    let mut handle = None;
    world.all[index].vitals().attach(kind, |gate| {
        handle = Some(gate);
        Arc::new(Out(kind))
    });
    let handle = handle.expect("it has no such judge yet");
    handle.set(true);
    handle
}

// scenario 13
#[test]
fn by_a_strict_tenth_nobody_of_nine_is_ejected_unless_one_always_may() {
    let tenth = steady().max_share(Ratio::percent(10));
    for (policy, endpoints, ejected) in [
        (tenth.clone(), 9, 0),
        (tenth.clone().at_least_one(), 9, 1),
        (tenth.clone(), 10, 1),
        (tenth.clone(), 19, 1),
        (tenth, 20, 2),
    ] {
        let mut world = World::new(endpoints, policy);
        world.interval(&[0, 1, 2]);
        assert_eq!(world.ejected().len(), ejected, "of {endpoints}");
    }
}

// scenario 13
#[test]
fn of_two_with_one_that_must_stay_the_dead_one_is_ejected() {
    let one_stays = steady().min_healthy(1);
    let tenth = one_stays
        .clone()
        .max_share(Ratio::percent(10))
        .at_least_one();
    for policy in [one_stays, tenth] {
        let mut world = World::new(2, policy);
        world.interval(&[1]);
        assert_eq!(world.ejected(), [1]);
    }
}

#[test]
fn who_must_stay_stays_whatever_the_share() {
    let mut world = World::new(10, steady().max_share(Ratio::ONE).min_healthy(8));
    world.interval(&[0, 1, 2, 3, 4]);
    assert_eq!(world.ejected().len(), 2);
}

#[test]
fn while_most_of_them_fail_nobody_is_an_outlier() {
    for policy in [steady(), steady().consecutive_failures(None)] {
        let mut world = World::new(10, policy.clone());
        for _ in 0..100 {
            (0..10).for_each(|index| world.fail(index, 1));
        }
        world.pass(10 * S);
        assert_eq!(world.ejected(), [], "and all are there when it is over");
        assert!(world.snapshot().withheld > 0);
        world.interval(&[3]);
        assert_eq!(world.ejected(), [3]);

        let mut world = World::new(10, policy);
        world.interval(&[0, 1, 2, 3, 4]);
        assert_eq!(world.ejected(), [0, 1, 2, 3, 4], "half are not most");
    }
}

#[test]
fn while_most_are_out_by_breakers_nobody_is_ejected_whatever_the_share() {
    let world = World::new(4, steady().max_share(Ratio::ONE));
    keep_out(&world, 0, JudgeKind::Breaker);
    keep_out(&world, 1, JudgeKind::Breaker);
    world.fail(2, 10);
    assert_eq!(world.snapshot().ejected.len(), 0);
}

#[test]
fn who_is_out_by_a_breaker_or_a_check_counts() {
    for kind in [JudgeKind::Breaker, JudgeKind::Health] {
        let world = World::new(4, steady());
        let gates = [2, 3].map(|index| keep_out(&world, index, kind));
        world.fail(0, 5);
        assert!(
            !world.is_ejected(0),
            "{kind:?}: two of four are out already"
        );
        assert_eq!(world.snapshot().out, 2);
        gates[0].set(false);
        world.time.advance(S);
        world.fail(0, 1);
        assert!(world.is_ejected(0), "{kind:?}: there is room again");
    }
}

#[test]
fn an_endpoint_that_is_out_already_may_be_ejected_since_no_more_are_out_then() {
    let world = World::new(4, steady());
    keep_out(&world, 0, JudgeKind::Health);
    keep_out(&world, 1, JudgeKind::Health);
    world.fail(0, 5);
    assert_eq!(world.snapshot().ejected.len(), 1);
    assert_eq!(world.snapshot().out, 2);
}

#[test]
fn who_drains_is_not_counted() {
    let world = World::new(4, steady());
    let under_way: Vec<_> = (0..5).map(|_| world.attempt(2)).collect();
    world.all[2].vitals().gate().set_draining(true);
    world.all[3].vitals().gate().set_draining(true);
    assert_eq!(world.snapshot().endpoints, 2);
    world.fail(0, 5);
    world.fail(1, 5);
    assert_eq!(world.snapshot().ejected.len(), 1, "one of two");
    for mut attempt in under_way {
        tower_mesh_core::Finish::finish(&mut attempt, Outcome::failure());
    }
    assert_eq!(world.snapshot().ejected.len(), 1, "it has gone already");
}

#[test]
fn when_others_go_so_many_come_back_that_the_bounds_hold_at_once() {
    let mut world = World::new(10, steady());
    for index in 0..5 {
        world.fail(index, 5);
        world.time.advance(S);
    }
    assert_eq!(world.ejected(), [0, 1, 2, 3, 4]);
    let left = world.all[..6].to_vec();
    world.publish(left);
    assert_eq!(
        world.ejected(),
        [2, 3, 4],
        "the first would be the first to come back"
    );
    let left = world.all[3..5].to_vec();
    world.publish(left);
    assert_eq!(world.ejected(), [1], "one of two");
    let left = world.all[1..].to_vec();
    world.publish(left);
    assert_eq!(world.ejected(), [], "the last one");
}

#[test]
fn when_breakers_open_beside_it_ejected_endpoints_come_back_with_the_next_evaluation() {
    let mut world = World::new(4, steady());
    world.fail(0, 5);
    world.fail(1, 5);
    assert_eq!(world.ejected(), [0, 1]);
    keep_out(&world, 2, JudgeKind::Breaker);
    world.pass(10 * S);
    assert_eq!(world.snapshot().ejected.len(), 1);
    keep_out(&world, 3, JudgeKind::Breaker);
    world.pass(10 * S);
    assert_eq!(world.snapshot().ejected.len(), 0);
}

#[test]
fn the_worst_are_ejected_when_not_all_may_be() {
    let quarter = steady()
        .consecutive_failures(None)
        .max_share(Ratio::percent(25));
    let mut world = World::new(8, quarter);
    for (index, failures) in [(0, 60), (1, 90), (2, 70), (3, 80)] {
        world.fail(index, failures);
        world.succeed(index, 100 - failures);
    }
    world.pass(10 * S);
    assert_eq!(world.ejected(), [1, 3]);
    assert_eq!(world.snapshot().withheld, 2);
}

#[test]
fn what_the_bounds_have_refused_is_made_up_for_when_there_is_room() {
    let mut world = World::new(4, steady());
    let gates = [2, 3].map(|index| keep_out(&world, index, JudgeKind::Health));
    world.fail(0, 5);
    gates.iter().for_each(|gate| gate.set(false));
    world.pass(10 * S);
    assert_eq!(world.ejected(), [0], "without another failure");
}

#[test]
fn while_there_is_no_room_failures_do_not_count_it_each_time() {
    let world = World::new(1_000, steady().max_share(Ratio::ZERO));
    world.fail(0, 1_000);
    assert_eq!(world.snapshot().withheld, 1, "at one moment");
    world.time.advance(crate::MS);
    world.fail(0, 1_000);
    assert_eq!(world.snapshot().withheld, 2);
}

// invariant I6
#[test]
fn threads_that_eject_at_the_same_time_keep_to_the_bounds() {
    for _ in 0..50 {
        let world = World::new(16, steady().max_share(Ratio::percent(25)));
        let (all, clock) = (&world.all, &world.clock);
        let most = thread::scope(|scope| {
            for share in all[..8].chunks(2) {
                scope.spawn(move || {
                    for endpoint in share.iter().cycle().take(40) {
                        let attempt = endpoint.vitals().attempt_in_panic(
                            clock.now(),
                            clock,
                            tower_mesh_core::Sampling::Mean,
                        );
                        let mut attempt = attempt.expect("there is no breaker");
                        tower_mesh_core::Finish::finish(&mut attempt, Outcome::failure());
                    }
                });
            }
            let out = |endpoint: &&tower_mesh_core::Endpoint| {
                endpoint.vitals().gate().availability() == Availability::Out
            };
            (0..200).map(|_| all.iter().filter(out).count()).max()
        });
        assert!(most <= Some(4), "{most:?}");
        assert_eq!(world.ejected().len(), 4);
    }
}
