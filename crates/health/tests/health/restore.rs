//! Ejections that outlast a restart.

use std::time::Duration;

use tower_mesh_core::{Endpoint, Endpoints, Resolution, Weight};
use tower_mesh_health::{EjectionReason, SavedEjection};

use crate::{NONE, S, World, endpoint, orders, steady};

fn saved(port: u16, remaining: Duration, times: u32) -> SavedEjection {
    let endpoint = endpoint(port);
    SavedEjection {
        id: endpoint.id().to_owned(),
        address: endpoint.address(),
        remaining,
        times,
    }
}

// scenario 33
#[test]
fn what_was_saved_goes_on_for_the_rest_of_its_time_and_grows_from_there() {
    let mut before = World::new(3, steady());
    before.fail(1, 5);
    before.pass(5 * S);
    let saved = before.snapshot().saved();
    assert_eq!(saved, [self::saved(2, 25 * S, 1)]);

    let mut after = World::new(3, steady());
    after.outliers().restore(saved, 10 * S);
    after.pass(S);
    assert_eq!(after.ejected(), [1]);
    let ejection = &after.snapshot().ejected[0];
    assert_eq!(
        (ejection.reason, ejection.times),
        (EjectionReason::Restored, 1)
    );
    assert_eq!(after.remaining(1), Some(14 * S));
    after.pass(14 * S);
    assert_eq!(after.ejected(), []);
    after.fail(1, 5);
    assert_eq!(after.remaining(1), Some(60 * S));
}

// scenario 33
#[test]
fn what_is_over_meanwhile_is_dropped() {
    let mut world = World::new(3, steady());
    world.outliers().restore([saved(1, 25 * S, 1)], 25 * S);
    world.pass(S);
    assert_eq!(world.ejected(), []);
}

#[test]
fn an_endpoint_that_is_not_found_yet_is_waited_for() {
    let mut world = World::asleep(0, steady());
    world
        .outliers()
        .restore([saved(1, 25 * S, 3), saved(2, 5 * S, 1)], NONE);
    assert!(world.driver.poll().is_pending());
    world.pass(10 * S);
    world.publish((1..=4).map(endpoint).collect());
    world.pass(NONE);
    assert_eq!(world.ejected(), [0], "the time of the other is over");
    assert_eq!(world.remaining(0), Some(15 * S));
}

#[test]
fn bounds_hold_for_what_is_restored_and_no_time_is_longer_than_the_longest() {
    let mut world = World::new(3, steady());
    let all = (1..=3).map(|port| saved(port, Duration::MAX, u32::MAX));
    world.outliers().restore(all, NONE);
    world.pass(NONE);
    assert_eq!(world.ejected(), [0]);
    assert_eq!(world.remaining(0), Some(300 * S));
    world.pass(300 * S);
    assert_eq!(world.ejected(), []);
    world.fail(0, 5);
    assert_eq!(
        world.remaining(0),
        Some(300 * S),
        "and so many times do not overflow"
    );
}

#[test]
fn who_is_another_at_the_same_address_is_not_meant() {
    let mut world = World::new(3, steady());
    let other = SavedEjection {
        id: "another".to_owned(),
        ..saved(1, 25 * S, 1)
    };
    world.outliers().restore([other], NONE);
    world.pass(NONE);
    assert_eq!(world.ejected(), []);
}

#[test]
fn state_follows_the_endpoint_and_who_comes_back_begins_anew() {
    let mut world = World::new(3, steady());
    world.fail(0, 5);
    let keep = |new: Endpoint, world: &World| new.keeping(&world.all[0]);
    let described_anew = keep(endpoint(1).with_weight(Weight::new(7)), &world);
    let all = vec![endpoint(4), described_anew, endpoint(5)];
    world.publish(all);
    assert_eq!(
        world.ejected(),
        [1],
        "the same, described anew, elsewhere in the set"
    );
    assert_eq!(world.snapshot().ejected[0].id, "127.0.0.1:1");
    let again = world.all[1].clone().forgetting();
    let gone = std::mem::take(&mut world.all);
    world.publish(vec![gone[0].clone(), gone[2].clone()]);
    world.publish(vec![gone[0].clone(), gone[2].clone(), again]);
    assert_eq!(world.ejected(), []);
}

#[test]
fn endpoints_that_go_take_what_was_known_of_them_along() {
    let mut world = World::new(3, steady());
    world.fail(0, 5);
    let gone = std::sync::Arc::downgrade(world.all[0].vitals());
    let left = world.all[1..].to_vec();
    world.publish(left);
    world.pass(10 * S);
    assert!(gone.upgrade().is_none());
    let snapshot = world.snapshot();
    assert_eq!((snapshot.endpoints, snapshot.ejected.len()), (2, 0));
}

#[test]
fn all_that_it_holds_goes_with_its_last_handle_and_its_driver() {
    let set = Endpoints::pending(orders());
    let world = World::new(3, steady());
    set.publish(Resolution::Found, world.all.clone());
    let holders = world.set.holders();
    let World {
        set,
        layer,
        driver,
        all,
        ..
    } = world;
    let gone = std::sync::Arc::downgrade(all[0].vitals());
    drop((layer, driver));
    assert_eq!(set.holders(), holders - 1, "the group held it once");
    drop((set, all));
    assert!(gone.upgrade().is_some(), "the other set has it, too");
}
