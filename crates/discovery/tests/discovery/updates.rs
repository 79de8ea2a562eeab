//! What becomes of an update.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{Endpoint, Endpoints, Health, Resolution, Sampling, Update, Vitals, Weight};
use tower_mesh_discovery::{Discovery, Filter};

use crate::script::{Say, Script, endpoint, moment, orders, pass, ports, secs, start, status_of};

fn vitals(endpoints: &Endpoints, port: u16) -> Arc<Vitals> {
    let set = endpoints.current();
    let found = set.endpoints().iter().find(|e| e.address().port() == port);
    Arc::clone(found.expect("it is in the set").vitals())
}

async fn followed(script: &Script, first: &[Endpoint]) -> (Discovery, Endpoints) {
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), first);
    endpoints.resolved().await;
    (discovery, endpoints)
}

/// Scenario 27, as far as identity goes.
#[tokio::test(start_paused = true)]
async fn what_stays_keeps_its_calls_and_what_goes_takes_no_new_ones() {
    let script = Script::new();
    let (_discovery, endpoints) = followed(&script, &[1, 2, 3].map(endpoint)).await;
    let clock = tower_mesh_core::Clock::tokio();
    let [a, b, c] = [1, 2, 3].map(|port| vitals(&endpoints, port));
    let in_flight: Vec<_> = (0..3)
        .map(|_| c.attempt(&clock, Sampling::Mean).unwrap())
        .collect();
    let heavier = endpoint(2).with_weight(Weight::new(7));
    script.replace(&orders(), &[endpoint(1), heavier, endpoint(4)]);
    moment().await;
    assert_eq!(ports(&endpoints), [1, 2, 4]);
    assert!(Arc::ptr_eq(&a, &vitals(&endpoints, 1)) && Arc::ptr_eq(&b, &vitals(&endpoints, 2)));
    assert_eq!(endpoints.current().endpoints()[1].weight().get(), 7);
    assert!(c.attempt(&clock, Sampling::Mean).is_err(), "no new call");
    assert_eq!(c.load().in_flight(), 3);
    drop(in_flight);
    assert_eq!(c.load().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_back_while_it_drains_is_another_endpoint() {
    let script = Script::new();
    let (_discovery, endpoints) = followed(&script, &[endpoint(1), endpoint(2)]).await;
    let clock = tower_mesh_core::Clock::tokio();
    let old = vitals(&endpoints, 2);
    let _in_flight = old.attempt(&clock, Sampling::Mean).unwrap();
    script.patch(&orders(), &[], &["127.0.0.1:2"]);
    script.patch(&orders(), &[endpoint(2)], &[]);
    moment().await;
    let new = vitals(&endpoints, 2);
    assert!(new.attempt(&clock, Sampling::Mean).is_ok());
    assert!(
        old.attempt(&clock, Sampling::Mean).is_err(),
        "never resurrected"
    );
    assert_eq!((old.load().in_flight(), new.load().in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_update_that_changes_nothing_publishes_nothing() {
    let script = Script::new();
    let (_discovery, endpoints) = followed(&script, &[endpoint(1), endpoint(2)]).await;
    for _ in 0..100 {
        script.replace(&orders(), &[endpoint(2), endpoint(1)]);
        script.patch(&orders(), &[endpoint(1)], &["unknown"]);
    }
    moment().await;
    assert_eq!(endpoints.current().revision(), 1);
}

/// Scenario 28 for a source that is an authority, and for one that is not with a grace of zero.
#[tokio::test(start_paused = true)]
async fn an_empty_answer_of_an_authority_or_without_grace_is_obeyed_within_one_update() {
    for (script, grace) in [
        (Script::new(), secs(30)),
        (Script::suspect(), Duration::ZERO),
    ] {
        let discovery = start(Discovery::builder(script.clone()).empty_grace(grace));
        let endpoints = discovery.endpoints(&orders());
        script.replace(&orders(), &[endpoint(1), endpoint(2)]);
        script.replace(&orders(), &[]);
        let set = endpoints.changed(1).await;
        assert_eq!(
            (set.resolution(), set.endpoints().len()),
            (Resolution::Found, 0)
        );
        assert!(!status_of(&discovery, &orders()).suspect);
    }
}

/// Scenario 28 with the default grace, and flaw G1: an empty answer removes every endpoint.
#[tokio::test(start_paused = true)]
async fn g1_an_empty_answer_of_no_authority_is_held_against_for_its_grace() {
    for lost in [
        Update::Replace(vec![]),
        Update::Replace(vec![endpoint(1)]),
        Update::Absent,
    ] {
        let script = Script::suspect();
        let (discovery, endpoints) = followed(&script, &[1, 2, 3].map(endpoint)).await;
        script.say(&orders(), Say::Update(lost.clone()));
        pass(secs(29)).await;
        assert_eq!(ports(&endpoints), [1, 2, 3], "{lost:?}");
        assert!(status_of(&discovery, &orders()).suspect);
        pass(secs(2)).await;
        assert!(endpoints.current().endpoints().len() < 3, "{lost:?}");
        let absent = matches!(lost, Update::Absent);
        assert_eq!(
            endpoints.current().resolution() == Resolution::Absent,
            absent
        );
        assert!(!status_of(&discovery, &orders()).suspect);
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_come_back_within_the_grace_were_never_gone() {
    let script = Script::suspect();
    let (discovery, endpoints) = followed(&script, &[1, 2, 3].map(endpoint)).await;
    let before = vitals(&endpoints, 1);
    script.replace(&orders(), &[]);
    pass(secs(20)).await;
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    moment().await;
    assert_eq!(ports(&endpoints), [1, 2], "two of three is no accident");
    assert!(Arc::ptr_eq(&before, &vitals(&endpoints, 1)));
    assert!(before.gate().is_open() && !status_of(&discovery, &orders()).suspect);
    pass(secs(60)).await;
    assert_eq!(ports(&endpoints), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_followed_by_errors_is_not_believed_until_it_is_repeated() {
    let script = Script::suspect();
    let (discovery, endpoints) = followed(&script, &[endpoint(1)]).await;
    script.replace(&orders(), &[]);
    script.say(&orders(), Say::Fail("no leader"));
    pass(secs(600)).await;
    assert_eq!(ports(&endpoints), [1]);
    assert!(status_of(&discovery, &orders()).suspect);
    script.replace(&orders(), &[]);
    moment().await;
    assert_eq!(ports(&endpoints), [0u16; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_registered_later_is_found_and_one_that_ends_is_absent() {
    let script = Script::new();
    script.say(&orders(), Say::Update(Update::Absent));
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    assert_eq!(endpoints.resolved().await, Resolution::Absent);
    script.patch(&orders(), &[endpoint(1)], &[]);
    assert_eq!(endpoints.changed(1).await.resolution(), Resolution::Found);
    let gone = vitals(&endpoints, 1);
    script.say(&orders(), Say::Update(Update::Absent));
    let set = endpoints.changed(2).await;
    assert_eq!(
        (set.resolution(), set.endpoints().len()),
        (Resolution::Absent, 0)
    );
    assert!(!gone.gate().is_open());
    assert_eq!(
        script.lookups(&orders()),
        1,
        "the source follows it by itself"
    );
}

/// Flaw V1: volo loses a change that lands during the first look-up, and then serves the stale list for ever.
#[tokio::test(start_paused = true)]
async fn v1_a_change_during_the_first_look_up_is_not_lost() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &[endpoint(1)]);
    script.replace(&orders(), &[endpoint(2)]);
    assert_eq!(endpoints.resolved().await, Resolution::Found);
    moment().await;
    assert_eq!(ports(&endpoints), [2]);
    // A burst larger than any channel leaves the last, too.
    for port in 1..=10_000 {
        script.replace(&orders(), &[endpoint(port)]);
    }
    moment().await;
    assert_eq!(ports(&endpoints), [10_000]);
}

#[tokio::test(start_paused = true)]
async fn an_update_above_the_limit_is_refused_and_what_was_known_stays() {
    let script = Script::new();
    let three = 3.try_into().unwrap();
    let discovery = start(Discovery::builder(script.clone()).max_endpoints(three));
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    endpoints.resolved().await;
    script.patch(&orders(), &[endpoint(3), endpoint(4)], &[]);
    moment().await;
    let status = status_of(&discovery, &orders());
    assert!(status.last_error.unwrap().contains("max_endpoints"));
    assert_eq!(ports(&endpoints), [1, 2]);
    // What builds on the refused one would be wrong: it is asked for the whole again.
    script.replace(&orders(), &[endpoint(3), endpoint(4)]);
    pass(secs(3)).await;
    assert_eq!(
        (ports(&endpoints), script.lookups(&orders())),
        (vec![3, 4], 2)
    );
    assert_eq!(status_of(&discovery, &orders()).last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_endpoints_in_one_update_are_found_while_others_get_their_turn() {
    let script = Script::new();
    let (discovery, driver) = Discovery::builder(script.clone()).build();
    let at = |i: u32| Endpoint::new((std::net::Ipv4Addr::from(0x0a00_0000 + i), 80).into());
    let all: Vec<_> = (0..100_000).map(at).collect();
    let endpoints = discovery.endpoints(&orders());
    script.replace(&orders(), &all);
    let mut driver = tokio_test::task::spawn(driver);
    let mut polls = 0;
    while endpoints.current().resolution() == Resolution::Pending {
        assert!(driver.poll().is_pending());
        polls += 1;
    }
    assert!(polls > 10, "in {polls} portions");
    assert_eq!(endpoints.current().endpoints().len(), 100_000);
    assert_eq!(endpoints.current().endpoints()[99_999], all[99_999]);
}

#[tokio::test(start_paused = true)]
async fn duplicates_useless_addresses_and_filtered_endpoints_are_counted() {
    let script = Script::new();
    let filter = Filter::default().and(Filter::tag("v2"));
    let discovery = start(Discovery::builder(script.clone()).filter(filter));
    let endpoints = discovery.endpoints(&orders());
    let v2 = |port| endpoint(port).with_tag("v2");
    script.replace(
        &orders(),
        &[
            v2(0),
            v2(1),
            v2(1),
            v2(2).with_health(Health::Critical),
            endpoint(3),
            v2(4).with_health(Health::Warning),
        ],
    );
    endpoints.resolved().await;
    let status = status_of(&discovery, &orders());
    assert_eq!(
        (status.endpoints, status.filtered, status.dropped),
        (2, 2, 2)
    );
    assert_eq!(ports(&endpoints), [1, 4]);
}
