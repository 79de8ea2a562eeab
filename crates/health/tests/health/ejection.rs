//! Who is ejected, and how little a call costs.

use std::num::NonZeroU32;

use allocation_counter::measure;
use tower_mesh_core::{Clock, Endpoints, JudgeKind, NewLayer, Outcome, Shut, Standing};
use tower_mesh_health::{EjectionReason, OutlierLayer, OutlierPolicy};

use crate::{MS, S, World, compared, endpoint, orders, steady};

#[test]
fn the_fifth_failure_in_a_row_ejects_at_once() {
    let world = World::new(3, steady());
    world.fail(0, 4);
    assert_eq!(world.ejected(), []);
    world.fail(0, 1);
    assert_eq!(world.ejected(), [0]);
    let until = world.clock.now() + 30 * S;
    let shut = Shut::new(JudgeKind::Outlier, Some(until));
    let gate = world.all[0].vitals().gate();
    assert_eq!(gate.standing(|| world.clock.now()), Standing::Shut(shut));
    let snapshot = world.snapshot();
    assert_eq!(
        (snapshot.endpoints, snapshot.out, snapshot.most_out),
        (3, 1, 1)
    );
    let ejection = &snapshot.ejected[0];
    assert_eq!(ejection.reason, EjectionReason::ConsecutiveFailures);
    assert_eq!((ejection.id.as_str(), ejection.times), ("127.0.0.1:1", 1));
    assert_eq!((ejection.since, ejection.until), (snapshot.taken, until));
}

#[test]
fn a_success_in_between_ends_the_row_although_the_judge_hears_of_none() {
    let world = World::new(3, steady());
    let judge = world.all[0].vitals().gate().judge(JudgeKind::Outlier);
    assert!(!judge.expect("it has one").hears_successes());
    for _ in 0..100 {
        world.fail(0, 4);
        world.succeed(0, 1);
        world.time.advance(MS);
    }
    assert_eq!(world.ejected(), []);
    world.fail(0, 5);
    assert_eq!(world.ejected(), [0]);
}

#[test]
fn overloads_and_callers_who_go_away_are_not_counted_in_a_row() {
    let world = World::new(3, steady());
    world.end(0, Outcome::overload(), 10);
    world.fail(0, 4);
    world.end(0, Outcome::overload(), 10);
    world.end(0, Outcome::neutral(), 10);
    assert_eq!(world.ejected(), []);
    world.fail(0, 1);
    assert_eq!(world.ejected(), [0]);
}

#[test]
fn a_call_that_the_mesh_gave_up_because_its_time_was_over_counts() {
    let world = World::new(3, steady());
    for _ in 0..5 {
        let attempt = world.attempt(0);
        tower_mesh_core::frame::timing_out(|| drop(attempt));
    }
    assert_eq!(world.ejected(), [0]);
}

#[test]
fn one_dead_of_three_and_three_dead_of_ten_are_ejected_by_their_failures_and_by_comparison() {
    for policy in [steady(), compared()] {
        let mut world = World::new(3, policy.clone());
        world.interval(&[1]);
        assert_eq!(world.ejected(), [1]);

        let mut world = World::new(10, policy);
        world.interval(&[2, 5, 7]);
        assert_eq!(world.ejected(), [2, 5, 7]);
    }
}

#[test]
fn with_deviations_alone_as_in_grpc_three_dead_of_ten_go_unseen() {
    let mut world = World::new(10, compared().failure_percentage(None));
    world.interval(&[2, 5, 7]);
    assert_eq!(world.ejected(), []);
    world.interval(&[2]);
    assert_eq!(world.ejected(), [2]);
}

#[test]
fn a_single_endpoint_is_never_ejected_and_of_two_one_is() {
    let mut world = World::new(1, steady());
    world.interval(&[0]);
    assert_eq!(world.ejected(), []);
    assert!(world.snapshot().withheld > 0);

    let mut world = World::new(2, steady());
    world.interval(&[0]);
    assert_eq!(world.ejected(), [0]);
    world.interval(&[0, 1]);
    assert_eq!(world.ejected(), [0], "the last one stays");
}

#[test]
fn who_fails_one_call_in_a_hundred_among_others_that_fail_one_in_a_thousand_is_no_outlier() {
    let mut world = World::new(10, compared());
    for index in 0..10 {
        let failures = if index == 3 { 10 } else { 1 };
        world.fail(index, failures);
        world.succeed(index, 1_000 - failures);
    }
    world.pass(10 * S);
    assert_eq!(world.ejected(), []);
}

#[test]
fn each_evaluation_counts_the_calls_since_the_last() {
    let mut world = World::new(3, compared());
    world.fail(0, 19);
    world.pass(10 * S);
    world.fail(0, 19);
    world.pass(10 * S);
    assert_eq!(world.ejected(), [], "twenty in an interval would do");
    world.succeed(0, 1_000);
    world.pass(10 * S);
    world.fail(0, 20);
    world.pass(10 * S);
    assert_eq!(world.ejected(), [0], "a good past is no excuse");
}

#[test]
fn an_endpoint_that_stays_slow_is_ejected_if_that_is_asked_for() {
    for (policy, ejected) in [(steady(), &[][..]), (steady().latency(3.0, 50 * MS), &[2])] {
        let mut world = World::new(4, policy);
        for round in 0..3 {
            assert_eq!(
                world.ejected(),
                &ejected[..ejected.len() * usize::from(round == 2)]
            );
            for index in 0..4 {
                let attempts: Vec<_> = (0..50).map(|_| world.attempt(index)).collect();
                world
                    .time
                    .advance(if index == 2 { 100 * MS } else { 10 * MS });
                for mut attempt in attempts {
                    tower_mesh_core::Finish::finish(&mut attempt, Outcome::success());
                }
            }
            world.pass(10 * S);
        }
        assert_eq!(world.ejected(), ejected);
    }
}

#[test]
fn a_policy_may_change_while_it_runs() {
    let mut world = World::new(3, compared());
    world.fail(0, 10);
    assert_eq!(world.ejected(), []);
    let two = steady().consecutive_failures(NonZeroU32::new(2));
    world.outliers().set_policy(two.clone());
    assert_eq!(*world.outliers().policy(), two);
    world.fail(0, 2);
    assert_eq!(world.ejected(), [0]);
    // As in A50: without rules nobody is an outlier.
    let none = two.consecutive_failures(None).success_rate(None);
    world.outliers().set_policy(none.failure_percentage(None));
    assert_eq!(world.ejected(), []);
    world.interval(&[0, 1, 2]);
    assert_eq!(world.ejected(), []);
}

#[test]
fn no_call_allocates_and_none_reads_the_clock_for_it() {
    let world = World::new(3, OutlierPolicy::default());
    world.succeed(0, 1);
    world.fail(1, 1);
    let reads = world.time.reads();
    let cost = measure(|| {
        world.succeed(0, 1_000);
        world.fail(1, 3);
    });
    assert_eq!(cost.count_total, 0);
    // One of the test's own, and one when it ends.
    assert_eq!(world.time.reads() - reads, 2 * 1_003);
}

#[test]
fn a_judge_takes_less_than_half_a_kibibyte() {
    let (clock, _) = Clock::manual();
    let endpoint = endpoint(1);
    let set = Endpoints::fixed(orders(), [endpoint.clone()]);
    let (layer, _driver) = OutlierLayer::builder(&set).clock(clock).build();
    let cost = measure(|| {
        layer.layer_for(&endpoint);
    });
    assert!(cost.bytes_current <= 512, "{cost:?}");
}
