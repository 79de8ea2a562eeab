//! The store against a plain model: any steps, the same keys, and a watch that is told the same.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NOW: Instant = Instant::from_nanos(1 << 60);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Cas(u8, bool, Option<usize>),
    Delete(u8),
    Grant(u64),
    Renew(usize),
    Revoke(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8).prop_map(Step::Put),
        (0..4u8, any::<bool>(), proptest::option::of(0..3usize))
            .prop_map(|(k, f, l)| Step::Cas(k, f, l)),
        (0..4u8).prop_map(Step::Delete),
        (1..5u64).prop_map(Step::Grant),
        (0..3usize).prop_map(Step::Renew),
        (0..3usize).prop_map(Step::Revoke),
        (0..4u64).prop_map(Step::Pass),
    ]
}

/// What a reader expects without knowing how: who has which lease, and until when.
#[derive(Default)]
struct Model {
    keys: HashMap<Key, (u64, Option<usize>)>,
    leases: Vec<(Lease, Option<Instant>)>,
}

impl Model {
    fn lease(&self, at: usize, now: Instant) -> Option<(usize, &Lease, bool)> {
        let at = at % self.leases.len().max(1);
        let (lease, until) = self.leases.get(at)?;
        Some((at, lease, until.is_some_and(|until| now < until)))
    }

    fn expire(&mut self, now: Instant) {
        let Self { keys, leases } = self;
        let lives = |lease: usize| leases[lease].1.is_some_and(|until| now < until);
        keys.retain(|_, (_, lease)| lease.is_none_or(lives));
    }
}

proptest! {
    #[test]
    fn a_store_does_what_a_plain_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let (mut store, mut model, mut now) = (Store::default(), Model::default(), NOW);
        let mut told: HashMap<Key, u64> = HashMap::new();
        let mut from = 0;
        for step in steps {
            store.expire(now);
            model.expire(now);
            apply(step, &mut store, &mut model, &mut now)?;
            store.expire(now);
            model.expire(now);

            let there: HashMap<_, _> = model.keys.iter().map(|(k, (r, _))| (k.clone(), *r)).collect();
            let listed = store.list(&Prefix::all()).entries.into_iter();
            prop_assert_eq!(&listed.map(|e| (e.key, e.revision)).collect::<HashMap<_, _>>(), &there);
            for event in store.since(&Prefix::all(), from) {
                match event {
                    Event::Put(entry) => drop(told.insert(entry.key, entry.revision)),
                    Event::Delete { key, .. } => drop(told.remove(&key)),
                    Event::Reset(all) => told = all.entries.into_iter().map(|e| (e.key, e.revision)).collect(),
                }
            }
            from = store.revision();
            prop_assert_eq!(&told, &there, "what a watch was told");
        }
    }
}

fn apply(
    step: Step,
    store: &mut Store,
    model: &mut Model,
    now: &mut Instant,
) -> Result<(), TestCaseError> {
    let name = |n: u8| Key::new(&format!("k/{n}")).unwrap();
    match step {
        Step::Put(n) => {
            let revision = store.put(&name(n), Bytes::new()).unwrap();
            let old = model.keys.insert(name(n), (revision, None));
            prop_assert!(old.is_none_or(|(old, _)| old < revision));
        }
        Step::Cas(n, fresh, lease) => {
            let found = model.keys.get(&name(n)).map(|(revision, _)| *revision);
            let expect = match found {
                Some(revision) if fresh => Expect::Revision(revision),
                Some(revision) => Expect::Revision(revision - 1),
                None if fresh => Expect::Absent,
                None => Expect::Revision(1),
            };
            let lease = lease.and_then(|at| model.lease(at, *now));
            let done = store.cas(
                &name(n),
                expect,
                Bytes::new(),
                lease.map(|(_, lease, _)| lease),
            );
            let lives = lease.is_none_or(|(_, _, lives)| lives);
            prop_assert_eq!(done.is_ok(), fresh && lives);
            if let Ok(revision) = done {
                let lease = lease.map(|(at, ..)| at);
                model.keys.insert(name(n), (revision, lease));
            }
        }
        Step::Delete(n) => {
            let was = model.keys.remove(&name(n)).is_some();
            prop_assert_eq!(store.delete(&name(n)), was);
        }
        Step::Grant(seconds) => {
            let ttl = Duration::from_secs(seconds);
            let number = store.grant(ttl, *now).unwrap();
            let lease = Lease::new(number.to_string(), ttl, *now);
            model
                .leases
                .push((lease.clone(), Some(lease.valid_until())));
        }
        Step::Renew(at) => {
            if let Some((at, lease, lives)) = model.lease(at, *now) {
                let (lease, until) = (lease.clone(), *now + lease.ttl());
                prop_assert_eq!(store.renew(&lease, *now).is_ok(), lives);
                if lives {
                    model.leases[at].1 = Some(until);
                }
            }
        }
        Step::Revoke(at) => {
            if let Some((at, lease, _)) = model.lease(at, *now) {
                store.revoke(&lease.clone());
                model.leases[at].1 = None;
            }
        }
        Step::Pass(seconds) => *now = *now + seconds as u32 * SECOND,
    }
    Ok(())
}
