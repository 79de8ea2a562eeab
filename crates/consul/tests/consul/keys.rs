//! Keys, leases and locks with a real agent.

use std::time::Duration;

use futures_util::StreamExt;
use tower_mesh_core::{
    Clock, Key, KeyValue, Prefix,
    kv::{Event, Expect, FencingToken, KeyValueErrorKind},
    testing::conformance,
};

use crate::{
    agent::{Agent, DENYING, as_long_as, is_long},
    scene::{Scene, chain, pass},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

const TTL: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn consul_conforms_as_a_store() {
    let scene = Scene::new().await;
    conformance::key_value(&scene).await.expect("it conforms");
}

/// Scenario 33 of reference/mesh.md, and what a lock is for: the late owner is kept out by its token, not by its belief.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_new_owner_has_a_greater_token_and_the_old_ones_write_is_refused() {
    let agent = Agent::start().await;
    let (old, new) = (agent.consul(), agent.consul());
    let owner = key("partition/7/owner");
    let lease = old.grant(TTL).await.unwrap();
    let first = FencingToken::acquire(&old, &owner, "old".into(), &lease)
        .await
        .unwrap();
    let taken = FencingToken::acquire(&new, &owner, "new".into(), &lease).await;
    assert!(taken.unwrap_err().is_conflict(), "it is held");

    // The owner pauses, and does not hear that its lease has ended. Consul takes up to twice its time.
    match is_long() {
        true => {
            while new.get(&owner).await.unwrap().is_some() {
                pass(Duration::from_millis(100)).await;
            }
        }
        false => new.revoke(&lease).await.unwrap(),
    }
    let next = new.grant(TTL).await.unwrap();
    let second = FencingToken::acquire(&new, &owner, "new".into(), &next)
        .await
        .unwrap();
    assert!(second > first);
    let late = old
        .cas(
            &owner,
            Expect::Revision(first.revision()),
            "late".into(),
            None,
        )
        .await;
    assert!(late.unwrap_err().is_conflict());
    let late = old
        .cas(&owner, Expect::Absent, "late".into(), Some(&lease))
        .await;
    assert!(late.is_err());
    assert_eq!(new.get(&owner).await.unwrap().unwrap().value, "new");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn with_a_lock_delay_a_key_stays_nobodys_for_that_time() {
    let agent = Agent::start().await;
    let delay = as_long_as(Duration::from_secs(15), Duration::from_secs(2));
    let consul = agent.consul().lock_delay(delay);
    let clock = Clock::tokio();
    let lease = consul.grant(TTL).await.unwrap();
    FencingToken::acquire(&consul, &key("a"), "".into(), &lease)
        .await
        .unwrap();
    let revoked = clock.now();
    consul.revoke(&lease).await.unwrap();
    let next = consul.grant(2 * delay.max(TTL)).await.unwrap();
    let early = FencingToken::acquire(&consul, &key("a"), "".into(), &next).await;
    let error = early.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Unavailable);
    assert!(error.to_string().contains("lock delay"), "{error}");
    while FencingToken::acquire(&consul, &key("a"), "".into(), &next)
        .await
        .is_err()
    {
        pass(Duration::from_millis(100)).await;
    }
    let took = clock.now().since(revoked);
    assert!(took >= delay, "had after {took:?}");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_large_value_is_swapped_like_a_small_one_except_under_a_lease() {
    let agent = Agent::start().await;
    let consul = agent.consul();
    let (key, large) = (key("large"), vec![b'x'; 500_000]);
    let absent = Expect::Absent;
    let first = consul
        .cas(&key, absent, large.clone().into(), None)
        .await
        .unwrap();
    let again = consul.cas(&key, absent, large.clone().into(), None).await;
    assert!(again.unwrap_err().is_conflict());
    let swap = Expect::Revision(first);
    let second = consul
        .cas(&key, swap, large.clone().into(), None)
        .await
        .unwrap();
    assert!(second > first);
    let stale = consul.cas(&key, swap, large.clone().into(), None).await;
    assert!(stale.unwrap_err().is_conflict());
    assert_eq!(consul.get(&key).await.unwrap().unwrap().revision, second);
    let lease = consul.grant(TTL).await.unwrap();
    let leased = consul
        .cas(&key, Expect::Revision(second), large.into(), Some(&lease))
        .await;
    assert_eq!(leased.unwrap_err().kind(), KeyValueErrorKind::Refused);
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_store_that_lost_its_state_resets_those_who_watch() {
    let mut agent = Agent::start().await;
    let consul = agent.consul().wait(Duration::from_secs(1));
    for n in 0..20 {
        consul
            .put(&key(&format!("a/{n}")), "1".into())
            .await
            .unwrap();
    }
    let mut watch = consul.watch(&Prefix::new("a").unwrap(), 0);
    let begun = watch.next().await.unwrap().unwrap();
    assert!(matches!(begun, Event::Reset(all) if all.entries.len() == 20));
    agent.lose_state().await;
    consul.put(&key("a/0"), "2".into()).await.unwrap();
    loop {
        match watch.next().await.unwrap() {
            Ok(Event::Reset(all)) if all.entries.len() == 1 => return,
            Ok(Event::Reset(_)) | Err(_) => {}
            other => panic!("the state was lost, it reports {other:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn what_a_token_may_not_write_is_told_by_its_permission() {
    let agent = Agent::with(DENYING).await;
    let denied = agent
        .consul()
        .put(&key("a/b"), "1".into())
        .await
        .unwrap_err();
    assert_eq!(denied.kind(), KeyValueErrorKind::Refused);
    assert!(chain(&denied).contains("key:write on a/b"), "{denied}");
    let denied = agent.consul().grant(TTL).await.unwrap_err();
    assert!(chain(&denied).contains("session:write"), "{denied}");
}
