//! The suite for stores, on the one in memory and on broken variants of it.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{
    BoxFuture, Clock, Key, KeyValue, KeyValueError, MemoryKeyValue,
    kv::KeyValueErrorKind,
    testing::conformance::{self, Harness, KeyValueHarness},
};

use crate::broken_store::{Fault, store};

#[test]
fn the_store_in_memory_conforms() {
    tokio_test::block_on(conformance::key_value(&store(Fault::None))).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_conforms_on_tokios_clock() {
    struct Paused(MemoryKeyValue);

    impl Harness for Paused {
        fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
            Box::pin(Clock::tokio().sleep(time))
        }
    }

    impl KeyValueHarness for Paused {
        fn store(&self) -> Arc<dyn KeyValue> {
            Arc::new(self.0.clone())
        }

        fn clock(&self) -> Clock {
            Clock::tokio()
        }
    }

    conformance::key_value(&Paused(MemoryKeyValue::new()))
        .await
        .unwrap();
}

#[test]
fn each_fault_breaks_the_rule_that_is_meant_for_it() {
    for (fault, rule) in [
        (Fault::CutsValuesAtZero, "a value is read as it was written"),
        (Fault::CountsRevisionsPerKey, "revisions of a key only grow"),
        (Fault::SwapsBlindly, "a swap needs what it expects"),
        (Fault::ReadsThenWrites, "of swaps that race one wins"),
        (Fault::ListsByText, "a list is what lies beneath a prefix"),
        (
            Fault::DeletesSilently,
            "a deletion says whether there was something",
        ),
        (Fault::TakesEverything, "what is too large is refused"),
        (
            Fault::CountsFromTheAnswer,
            "a lease is believed from when it was asked for",
        ),
        (
            Fault::EndsLeasesEarly,
            "keys stay while their lease is renewed",
        ),
        (Fault::EndsLeasesEarly, "keys go with their lease"),
        (Fault::NeverEndsLeases, "keys go with their lease"),
        (Fault::KeepsWhatIsRevoked, "a lease that is revoked is gone"),
        (
            Fault::CallsEveryErrorAConflict,
            "a lease that is revoked is gone",
        ),
        (
            Fault::KeepsTheFirstLease,
            "a key belongs to the lease of its last write",
        ),
        (Fault::ReusesTokens, "a newer owner has a greater token"),
        (Fault::GrantsNothing, "a lease of no time is refused"),
        (Fault::BeginsWithPuts, "a watch begins with what there is"),
        (Fault::ForgetsToGoOn, "a watch goes on from a revision"),
        (Fault::MissesDeletions, "a watch comes to what there is"),
        (Fault::RunsBackwards, "a watch comes to what there is"),
        (Fault::WatchesEverything, "a watch keeps to its prefix"),
        (
            Fault::MissesDeletions,
            "a watch tells of keys that go with their lease",
        ),
        (
            Fault::TrustsAnyRevision,
            "a watch from an unknown revision is reset",
        ),
        (Fault::HangsWhenCut, "a broken connection is an error"),
    ] {
        let broken = match tokio_test::block_on(conformance::key_value(&store(fault))) {
            Ok(()) => vec![],
            Err(violations) => violations.rules(),
        };
        assert!(broken.contains(&rule), "{fault:?} has broken {broken:?}");
    }
}

#[test]
fn kinds_of_errors_are_told_apart() {
    let refused = KeyValueError::new(KeyValueErrorKind::Refused, "no");
    assert!(!refused.is_conflict());
    assert!(KeyValueError::conflict(&Key::new("a").unwrap(), Some(3)).is_conflict());
}
