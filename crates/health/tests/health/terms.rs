//! How long: scenario 12, and gRPC's steps.

use proptest::prelude::*;
use tower_mesh_core::{Endpoint, Ratio, Rng, ServiceName};
use tower_mesh_health::{HealthChecker, OutlierLayer, Readmission};

use crate::{MS, S, World, compared, orders, steady};

// scenario 12
#[test]
fn one_at_zero_of_five_is_out_for_30_s_then_60_s_and_at_most_300_s() {
    let mut world = World::new(5, compared().failure_percentage(None));
    for nth in 1..=12 {
        world.interval(&[4]);
        assert_eq!(world.ejected(), [4], "the {nth}th time");
        let time = (30 * nth).min(300) * S;
        assert_eq!(world.remaining(4), Some(time));
        world.pass(time - MS);
        assert_eq!(world.ejected(), [4]);
        world.pass(MS);
        assert_eq!(world.ejected(), [], "and no longer");
        assert!(world.all[4].vitals().gate().is_open());
    }
}

// scenario 12
#[test]
fn each_interval_among_the_others_takes_one_step_back() {
    let mut world = World::new(5, compared());
    let eject = |world: &mut World| {
        world.interval(&[4]);
        let time = world.remaining(4).expect("it is ejected");
        world.pass(time);
        time.as_secs()
    };
    let times: Vec<_> = (0..4).map(|_| eject(&mut world)).collect();
    assert_eq!(times, [30, 60, 90, 120]);
    world.interval(&[]);
    world.interval(&[]);
    // Two steps back, and one on.
    assert_eq!(eject(&mut world), 90);
    for _ in 0..3 {
        world.interval(&[]);
    }
    assert_eq!(eject(&mut world), 30);
}

#[test]
fn what_happened_before_an_ejection_is_not_held_against_it_afterwards() {
    let mut world = World::new(3, steady());
    let late: Vec<_> = (0..10).map(|_| world.attempt(0)).collect();
    world.fail(0, 5);
    for mut attempt in late {
        tower_mesh_core::Finish::finish(&mut attempt, tower_mesh_core::Outcome::failure());
    }
    world.pass(30 * S);
    assert_eq!(world.ejected(), []);
    world.fail(0, 4);
    world.pass(10 * S);
    assert_eq!(
        world.ejected(),
        [],
        "four of four, but neither five nor twenty"
    );
    world.fail(0, 1);
    assert_eq!(world.ejected(), [0]);
}

#[test]
fn jitter_spreads_when_they_come_back() {
    let world = World::new(40, steady().jitter(Ratio::percent(10)));
    (0..20).for_each(|index| world.fail(index, 5));
    let mut times: Vec<_> = (0..20).filter_map(|index| world.remaining(index)).collect();
    assert!(
        times.iter().all(|time| (30 * S..=33 * S).contains(time)),
        "{times:?}"
    );
    times.dedup();
    assert_eq!(times.len(), 20);
    assert!(times.iter().max() > Some(&(31 * S)));
}

#[test]
fn its_time_ends_an_ejection_also_if_the_driver_is_late() {
    let mut world = World::new(3, steady());
    world.fail(0, 5);
    world.time.advance(30 * S - MS);
    assert_eq!(world.ejected(), [0]);
    world.time.advance(MS);
    assert_eq!(world.ejected(), [], "calls go through");
    assert!(
        !world.all[0].vitals().gate().is_open(),
        "though it is counted as out"
    );
    world.pass(MS);
    assert!(world.all[0].vitals().gate().is_open());
}

#[test]
fn somebody_may_let_it_come_back() {
    let world = World::new(3, steady());
    world.fail(0, 5);
    world.outliers().readmit(&world.all[0]);
    world.outliers().readmit(&world.all[1]);
    assert_eq!(world.ejected(), []);
    world.fail(0, 5);
    assert_eq!(
        world.remaining(0),
        Some(60 * S),
        "how often it was ejected stays known"
    );
}

#[test]
fn a_check_that_succeeds_lets_it_come_back_unless_the_policy_says_otherwise() {
    for (readmission, back) in [
        (Readmission::HealthyCheck, true),
        (Readmission::TimeAlone, false),
    ] {
        let world = World::new(3, steady().readmission(readmission));
        let (checker, driver) =
            HealthChecker::builder(|_: Endpoint| async { Ok::<_, std::io::Error>(()) })
                .clock(world.clock.clone())
                .build();
        checker.watch(&world.set);
        world.fail(0, 5);
        let mut driver = tokio_test::task::spawn(driver);
        assert!(driver.poll().is_pending());
        crate::pass(&mut driver, &world.time, &world.clock, S);
        assert_eq!(world.ejected().is_empty(), back, "{readmission:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // gRPC A50: the multiplier, step by step.
    #[test]
    fn times_grow_and_go_back_as_in_a50(failing in proptest::collection::vec(any::<bool>(), 1..120)) {
        let mut world = World::new(5, compared());
        let (mut multiplier, mut ejected_at, mut back_at) = (0u64, None, 0);
        for (tick, failing) in (1u64..).zip(failing) {
            let now = 10 * tick;
            world.interval(if failing { &[4] } else { &[] });
            // Step 5 comes last there; here an ejection whose time is over has ended by itself, to the moment.
            match ejected_at {
                Some(at) if now >= at + (30 * multiplier).min(300) => {
                    (ejected_at, back_at) = (None, now);
                }
                Some(_) => {}
                // What an endpoint does while it is ejected is not held against it.
                None if failing => {
                    multiplier += 1;
                    ejected_at = Some(now);
                }
                None if now >= back_at + 10 => multiplier = multiplier.saturating_sub(1),
                None => {}
            }
            let rest = ejected_at.map(|at| (at + (30 * multiplier).min(300) - now) * S.as_secs());
            prop_assert_eq!(world.remaining(4).map(|rest| rest.as_secs()), rest, "tick {}", tick);
        }
    }
}

#[test]
fn the_layers_own_defaults_run_without_a_clock_of_the_tests() {
    let name: ServiceName = orders();
    let set = tower_mesh_core::Endpoints::pending(name);
    let (layer, driver) = OutlierLayer::builder(&set).rng(Rng::default()).build();
    assert_eq!(layer.handle().snapshot().ejected, []);
    drop(driver);
}
