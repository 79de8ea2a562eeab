//! Active checks of endpoints.

mod world;

use std::{
    net::TcpListener,
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio_test::task::spawn;
use tower_mesh_core::{
    BoxError, Clock, Endpoint, Endpoints, JudgeKind, Ratio, Resolution, ServiceName,
};
use tower_mesh_health::{CheckPolicy, HealthCheck, HealthChecker, HealthState, TcpCheck};

use self::world::{Does, Script, Seen, World, exact, together};
use crate::{MS, NONE, S, endpoint, orders};
use Does::{Fail, Hang, PanicAtOnce, Say, Succeed};
use HealthState::{Healthy, Unknown};

#[test]
fn three_failures_in_a_row_shut_the_gate_and_a_success_opens_it() {
    let mut world = World::new(2, exact());
    assert_eq!(
        world.states(),
        [Healthy, Healthy],
        "after the first success"
    );
    world.now(1, Fail);
    world.pass(20 * S);
    assert!(!world.is_out(0));
    world.pass(10 * S);
    assert!(world.is_out(0));
    assert!(!world.is_out(1));
    let health = &world.health()[0];
    assert_eq!(health.state, HealthState::Unhealthy);
    assert_eq!(health.last_error.as_deref(), Some("connection refused"));
    assert_eq!(
        (health.checks, health.failures, health.age),
        (4, 3, Some(NONE))
    );
    world.now(1, Succeed);
    world.pass(10 * S);
    assert!(!world.is_out(0));
}

#[test]
fn it_takes_as_many_answers_as_the_policy_says() {
    let (two, four) = (NonZeroU32::new(2).unwrap(), NonZeroU32::new(4).unwrap());
    let mut world = World::new(1, exact().healthy_after(four).unhealthy_after(two));
    world.now(1, Fail);
    world.pass(20 * S);
    assert!(world.is_out(0));
    world.now(1, Succeed);
    world.pass(30 * S);
    assert!(world.is_out(0));
    world.pass(10 * S);
    assert!(!world.is_out(0));
}

#[test]
fn an_endpoint_takes_calls_until_checks_have_found_it_unhealthy() {
    let mut world = World::new(1, exact().first_within(10 * S));
    assert_eq!(world.states(), [Unknown]);
    assert!(!world.is_out(0));
    assert_eq!(world.checker.status()[0].age(), None);
    world.now(1, Fail);
    world.pass(20 * S);
    assert_eq!(world.states(), [Unknown]);
    world.pass(20 * S);
    assert!(world.is_out(0));
}

#[test]
fn an_endpoint_that_says_itself_it_is_unwell_is_believed_at_once() {
    let mut world = World::new(1, exact());
    world.now(1, Say);
    world.pass(10 * S);
    assert!(world.is_out(0));
    assert_eq!(
        world.health()[0].last_error.as_deref(),
        Some("503: migrating")
    );
}

// flaw T24
#[test]
fn a_check_that_panics_or_hangs_has_failed_and_holds_up_no_other() {
    for (does, why) in [
        (Does::Panic, "the check panicked"),
        (PanicAtOnce, "the check panicked"),
        (Hang, "no answer within 1s"),
    ] {
        let mut world = World::new(3, exact());
        world.now(2, does);
        world.asked();
        world.pass(10 * S);
        assert_eq!(world.asked(), [1, 2, 3]);
        world.pass(30 * S);
        assert!(world.is_out(1), "{does:?}");
        assert!(is_noticed(&world.seen()), "{does:?}");
        assert_eq!(world.health()[1].last_error.as_deref(), Some(why));
        world.now(2, Succeed);
        world.pass(20 * S);
        assert!(!world.is_out(1), "{does:?}");
        assert_eq!(world.running(), 0);
    }
}

/// Of three endpoints, the second of which panics or hangs: whether that is seen, while the others were checked all along.
fn is_noticed(seen: &[Seen; 3]) -> bool {
    let others = [&seen[0], &seen[2]];
    !seen[1].healthy
        && others
            .iter()
            .all(|other| other.healthy && other.checks >= 4)
}

// flaw T24
#[test]
fn as_tower_resilience_checks_a_panic_is_not_seen_and_one_that_hangs_holds_up_all() {
    for does in [Does::Panic, Hang] {
        let script = Script::new(3);
        script.now(2, does);
        assert!(!is_noticed(&together(&script, 4)), "{does:?}");
    }
}

#[test]
fn an_error_that_panics_when_asked_what_it_is_has_failed() {
    #[derive(Debug)]
    struct Rude;

    impl std::fmt::Display for Rude {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("a bug in the error")
        }
    }

    impl std::error::Error for Rude {}

    let (clock, time) = Clock::manual();
    let set = Endpoints::fixed(orders(), [endpoint(1)]);
    let (checker, driver) = HealthChecker::builder(|_: Endpoint| async { Err::<(), _>(Rude) })
        .policy(exact())
        .clock(clock.clone())
        .build();
    checker.watch(&set);
    let mut driver = spawn(driver);
    assert!(driver.poll().is_pending());
    crate::pass(&mut driver, &time, &clock, 20 * S);
    assert_eq!(checker.status()[0].count(HealthState::Unhealthy), 1);
}

#[test]
fn no_more_checks_run_at_once_than_may_and_all_have_their_turn() {
    let mut world = World::new(10, exact().at_once(NonZeroUsize::new(3).unwrap()));
    (1..=10).for_each(|port| world.now(port, Hang));
    world.asked();
    world.pass(60 * S);
    assert_eq!(world.script.most.load(Relaxed), 3);
    let mut asked = world.asked();
    asked.truncate(10);
    asked.sort_unstable();
    assert_eq!(asked, (1..=10).collect::<Vec<_>>());
}

#[test]
fn first_checks_and_intervals_are_spread() {
    let policy = CheckPolicy::default()
        .first_within(S)
        .jitter(Ratio::percent(10));
    let mut world = World::new(100, policy);
    world.pass(500 * MS);
    let early = world.asked().len();
    assert!((30..70).contains(&early), "{early}");
    world.pass(500 * MS);
    assert_eq!(world.asked().len(), 100 - early);
    world.pass(9 * S);
    assert_eq!(world.asked().len(), 0, "none comes before its interval");
    world.pass(2 * S);
    assert_eq!(world.asked().len(), 100);
}

#[test]
fn checks_stop_for_who_goes_and_begin_for_who_comes() {
    let mut world = World::new(3, exact());
    world.now(2, Hang);
    world.pass(10 * S);
    assert_eq!(world.running(), 1);
    let old = world.set.current().endpoints().to_vec();
    let gone = Arc::downgrade(old[1].vitals());
    world.set.publish(Resolution::Found, vec![old[0].clone()]);
    drop(old);
    world.asked();
    world.pass(NONE);
    assert_eq!(world.running(), 0, "what was under way is dropped");
    assert!(gone.upgrade().is_none());
    world.pass(10 * S);
    assert_eq!(world.asked(), [1]);
    let old = world.set.current().endpoints()[0].clone();
    world.set.publish(Resolution::Found, vec![endpoint(3), old]);
    world.pass(10 * S);
    let mut asked = world.asked();
    asked.sort_unstable();
    assert_eq!(asked, [1, 3, 3]);
}

#[test]
fn several_services_are_checked_at_once_each_with_the_age_of_its_answers() {
    let mut world = World::new(2, exact());
    let users = ServiceName::new("users").unwrap();
    let more = Endpoints::fixed(users.clone(), [endpoint(1).with_id("users-1")]);
    world.pass(4 * S);
    world.checker.watch(&more);
    world.pass(3 * S);
    let status = world.checker.status();
    let ages: Vec<_> = status
        .iter()
        .map(|s| (s.service.as_str(), s.age()))
        .collect();
    assert_eq!(ages, [("orders", Some(7 * S)), ("users", Some(3 * S))]);
    world.checker.unwatch(&users);
    assert_eq!(world.checker.status().len(), 1);
    assert_eq!(more.holders(), 1, "it is let go");
    world.asked();
    world.pass(10 * S);
    assert_eq!(world.asked(), [1, 2]);
}

#[test]
fn whoever_nobody_checks_any_more_takes_calls() {
    for end in [0, 1, 2] {
        let mut world = World::new(2, exact());
        world.now(1, Say);
        world.now(2, Hang);
        world.pass(10 * S);
        assert!(world.is_out(0));
        assert_eq!(world.running(), 1);
        let running = Arc::clone(&world.script.running);
        let set = world.set.clone();
        match end {
            0 => drop(world),
            1 => {
                world.checker.unwatch(&orders());
                world.pass(NONE);
            }
            _ => {
                let World {
                    checker,
                    mut driver,
                    ..
                } = world;
                drop(checker);
                assert!(driver.is_woken());
                assert!(driver.poll().is_ready());
            }
        }
        assert_eq!(running.load(Relaxed), 0);
        assert!(
            set.current().endpoints()[0].vitals().gate().is_open(),
            "{end}"
        );
    }
}

#[test]
fn an_endpoint_is_checked_by_one_checker_and_by_the_next_when_that_has_gone() {
    let mut world = World::new(1, exact());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (second, driver) = HealthChecker::builder(move |_: Endpoint| {
        count.fetch_add(1, Relaxed);
        async { Ok::<_, std::io::Error>(()) }
    })
    .policy(exact())
    .clock(world.clock.clone())
    .build();
    second.watch(&world.set);
    let mut driver = spawn(driver);
    assert!(driver.poll().is_pending());
    world.pass(20 * S);
    assert_eq!(asked.load(Relaxed), 0);
    let (set, clock, time) = (world.set.clone(), world.clock.clone(), world.time.clone());
    drop(world);
    second.watch(&set);
    crate::pass(&mut driver, &time, &clock, 20 * S);
    assert_eq!(asked.load(Relaxed), 3);
}

#[test]
fn its_judge_hears_of_no_call() {
    let world = World::new(1, exact());
    let set = world.set.current();
    let judge = set.endpoints()[0].vitals().gate().judge(JudgeKind::Health);
    assert!(!judge.expect("it has one").hears_successes());
}

#[test]
fn an_idle_checker_waits_with_one_timer_and_never_wakes_itself() {
    let mut world = World::new(50, exact());
    assert!(!world.driver.is_woken());
    assert_eq!(world.time.timers(), 1);
    world.pass(100 * S);
    assert_eq!(world.time.timers(), 1);
    assert!(!world.driver.is_woken());
}

#[test]
fn any_check_of_ones_own_will_do_shared_or_not() {
    struct Own;

    impl HealthCheck for Own {
        fn check(&self, _: &Endpoint) -> tower_mesh_core::BoxFuture<'static, Result<(), BoxError>> {
            Box::pin(async { Ok(()) })
        }
    }

    let shared: Arc<dyn HealthCheck> = Arc::new(Own);
    drop(HealthChecker::builder(Own).build());
    drop(HealthChecker::builder(shared).build());
    drop(HealthChecker::builder(async |_: Endpoint| Ok::<_, std::io::Error>(())).build());
}

#[tokio::test]
async fn a_port_that_answers_is_well_and_one_that_does_not_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let here = Endpoint::new(address);
    assert!(TcpCheck::new().check(&here).await.is_ok());
    let elsewhere = endpoint(1);
    let admin = TcpCheck::new().port(address.port());
    assert!(admin.check(&elsewhere).await.is_ok());
    drop(listener);
    assert!(TcpCheck::new().check(&here).await.is_err());
}
