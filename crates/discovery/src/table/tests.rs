use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use proptest::prelude::*;
use tower_mesh_core::{Health, Vitals, Weight};

use super::*;

const MOST: usize = 1_000;

fn endpoint(id: &str, port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into()).with_id(id)
}

fn take_in(table: &mut Table, update: Update, hold: bool) -> (bool, Faults) {
    let mut work = table.begin(update, MOST).expect("within the limit");
    while !table.work(&mut work, 3) {}
    (table.settle(hold), work.into_faults())
}

fn replace(table: &mut Table, endpoints: &[Endpoint]) -> bool {
    take_in(table, Update::Replace(endpoints.to_vec()), false).0
}

fn patch(table: &mut Table, upsert: &[Endpoint], remove: &[&str]) -> bool {
    let update = Update::Patch {
        upsert: upsert.to_vec(),
        remove: remove.iter().map(|id| (*id).into()).collect(),
    };
    take_in(table, update, false).0
}

fn table_of(endpoints: &[Endpoint]) -> Table {
    let mut table = Table::new(Filter::default());
    replace(&mut table, endpoints);
    table
}

fn ids(table: &Table) -> Vec<String> {
    table.live().iter().map(|e| e.id().to_owned()).collect()
}

fn vitals(table: &Table, id: &str) -> Arc<Vitals> {
    let live = table.live();
    let found = live.iter().find(|e| e.id() == id);
    Arc::clone(found.expect("it is live").vitals())
}

#[test]
fn what_stays_keeps_its_place_and_its_state_and_what_is_new_is_appended() {
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2), endpoint("c", 3)]);
    let before = [vitals(&table, "a"), vitals(&table, "b")];
    let heavy = endpoint("b", 2).with_weight(Weight::new(9));
    assert!(replace(
        &mut table,
        &[endpoint("d", 4), heavy, endpoint("a", 1)]
    ));
    assert_eq!(ids(&table), ["a", "b", "d"]);
    assert_eq!(table.live()[1].weight(), Weight::new(9));
    assert!(Arc::ptr_eq(&before[0], &vitals(&table, "a")));
    assert!(Arc::ptr_eq(&before[1], &vitals(&table, "b")));
}

#[test]
fn an_update_that_changes_nothing_is_no_change() {
    let all = [endpoint("a", 1), endpoint("b", 2)];
    let mut table = table_of(&all);
    assert!(!replace(&mut table, &all));
    assert!(!replace(&mut table, &[all[1].clone(), all[0].clone()]));
    assert!(!patch(&mut table, &all[..1], &["no such id"]));
}

#[test]
fn a_patch_adds_describes_anew_and_removes() {
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2), endpoint("c", 3)]);
    let zoned = endpoint("b", 2).with_zone("z");
    assert!(patch(&mut table, &[zoned, endpoint("d", 4)], &["a"]));
    assert_eq!(ids(&table), ["b", "c", "d"]);
    assert_eq!(table.live()[0].zone(), Some("z"));
    assert!(
        !patch(&mut table, &[endpoint("d", 4)], &["d"]),
        "named is not gone"
    );
}

/// Row 4 of the hostile inputs.
#[test]
fn of_two_with_one_id_or_one_address_the_last_wins_and_wins_again() {
    let by_id = [endpoint("a", 1), endpoint("a", 2)];
    let by_address = [endpoint("old", 3), endpoint("new", 3)];
    let all = [&by_id[..], &by_address[..]].concat();
    let mut table = Table::new(Filter::default());
    let (changed, faults) = take_in(&mut table, Update::Replace(all.clone()), false);
    assert!(changed);
    assert_eq!((faults.duplicates, faults.unusable), (2, 0));
    assert_eq!(ids(&table), ["a", "new"]);
    assert_eq!(table.live()[0].address().port(), 2);
    assert!(
        !replace(&mut table, &all),
        "the same duplicates are no news"
    );
}

#[test]
fn an_address_that_changes_hands_and_an_id_that_moves_are_new_endpoints() {
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2)]);
    let before = vitals(&table, "a");
    assert!(replace(&mut table, &[endpoint("a", 2), endpoint("b", 1)]));
    assert_eq!(ids(&table), ["a", "b"]);
    assert!(!Arc::ptr_eq(&before, &vitals(&table, "a")));
    assert!(patch(&mut table, &[endpoint("c", 2)], &["a"]));
    assert_eq!(ids(&table), ["b", "c"]);
}

#[test]
fn what_comes_back_is_never_resurrected_even_if_the_source_kept_it() {
    let kept = endpoint("a", 1);
    let mut table = table_of(std::slice::from_ref(&kept));
    let first = vitals(&table, "a");
    assert!(
        !Arc::ptr_eq(&first, kept.vitals()),
        "a source's holders do not share it"
    );
    first.gate().set_draining(true);
    replace(&mut table, &[]);
    assert!(replace(&mut table, &[kept]));
    assert!(vitals(&table, "a").gate().is_open());
}

/// Row 8 of the hostile inputs.
#[test]
fn addresses_at_which_nothing_can_listen_are_dropped() {
    let at = |text: &str| Endpoint::new(text.parse().unwrap());
    let hostile = [
        "10.0.0.1:0",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:0.0.0.0]:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
        "[::ffff:239.1.2.3]:80",
    ];
    for address in hostile {
        let mut table = Table::new(Filter::default());
        let update = Update::Replace(vec![at(address), at("127.0.0.1:80")]);
        let (_, faults) = take_in(&mut table, update, false);
        assert_eq!(faults.unusable, 1, "{address}");
        assert_eq!(ids(&table), ["127.0.0.1:80"], "{address}");
    }
}

#[test]
fn an_update_above_the_limit_changes_nothing() {
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2)]);
    let many = Update::Replace((1..=4).map(|i| endpoint(&i.to_string(), i)).collect());
    assert_eq!(
        table.begin(many, 3).err(),
        Some(Refused::TooMany { named: 4, most: 3 })
    );
    let patch = |upsert: &[u16], remove: &[&str]| Update::Patch {
        upsert: upsert
            .iter()
            .map(|i| endpoint(&i.to_string(), *i))
            .collect(),
        remove: remove.iter().map(|id| (*id).into()).collect(),
    };
    assert!(table.begin(patch(&[3, 4], &[]), 3).is_err());
    assert_eq!(ids(&table), ["a", "b"]);
    assert!(table.begin(patch(&[3, 4], &["a"]), 3).is_ok());
}

#[test]
fn the_filter_hides_and_counts_and_what_it_shows_again_starts_afresh() {
    let sick = endpoint("a", 1).with_health(Health::Critical);
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2)]);
    let before = vitals(&table, "a");
    assert!(patch(&mut table, &[sick], &[]));
    assert_eq!((ids(&table), table.filtered()), (vec!["b".to_owned()], 1));
    assert!(patch(&mut table, &[endpoint("a", 1)], &[]));
    assert_eq!((ids(&table).len(), table.filtered()), (2, 0));
    assert!(!Arc::ptr_eq(&before, &vitals(&table, "a")));
}

#[test]
fn losing_more_than_half_is_losing_most() {
    let endpoints: Vec<_> = (1..=10).map(|i| endpoint(&i.to_string(), i)).collect();
    for (left, most) in [(0, true), (4, true), (5, false), (10, false)] {
        let mut table = table_of(&endpoints);
        let update = Update::Replace(endpoints[..left].to_vec());
        let mut work = table.begin(update, MOST).unwrap();
        while !table.work(&mut work, 100) {}
        assert_eq!(table.loses_most(), most, "{left} of 10 are left");
    }
    assert!(!Table::new(Filter::default()).loses_most(), "of nothing");
}

#[test]
fn while_held_nothing_is_taken_away_but_all_else_is_obeyed() {
    let mut table = table_of(&[endpoint("a", 1), endpoint("b", 2), endpoint("c", 3)]);
    let before = vitals(&table, "b");
    let update = Update::Replace(vec![endpoint("a", 1).with_zone("z"), endpoint("d", 3)]);
    assert!(take_in(&mut table, update, true).0);
    // c's address has been taken over by d: no doubt about that.
    assert_eq!(ids(&table), ["a", "b", "d"]);
    assert_eq!(table.live()[0].zone(), Some("z"));
    let back = Update::Replace(vec![endpoint("a", 1), endpoint("b", 2)]);
    take_in(&mut table, back, false);
    assert!(
        Arc::ptr_eq(&before, &vitals(&table, "b")),
        "it was never gone"
    );
    assert_eq!(ids(&table), ["a", "b"]);
}

/// What is trusted is what was last believed, not what is held meanwhile.
#[test]
fn a_hold_does_not_lower_the_measure() {
    let endpoints: Vec<_> = (1..=10).map(|i| endpoint(&i.to_string(), i)).collect();
    let mut table = table_of(&endpoints);
    take_in(&mut table, Update::Replace(endpoints[..2].to_vec()), true);
    let mut work = table
        .begin(Update::Replace(endpoints[..4].to_vec()), MOST)
        .unwrap();
    while !table.work(&mut work, 100) {}
    assert!(table.loses_most());
    assert!(table.settle(false));
    assert_eq!(ids(&table).len(), 4);
}

// --- against a plain model ---

#[derive(Clone, Debug)]
enum Op {
    Replace(Vec<Named>),
    Patch(Vec<Named>, Vec<u8>),
    Absent,
}

/// Few ids, addresses and descriptions, so that they collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    id: u8,
    port: u16,
    weight: u16,
    sick: bool,
}

impl Named {
    fn endpoint(self) -> Endpoint {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let health = match self.sick {
            true => Health::Critical,
            false => Health::Passing,
        };
        Endpoint::new(address)
            .with_id(&self.id.to_string())
            .with_weight(Weight::new(self.weight))
            .with_health(health)
    }
}

fn named() -> impl Strategy<Value = Named> {
    (0u8..6, 0u16..6, 1u16..3, proptest::bool::weighted(0.2)).prop_map(
        |(id, port, weight, sick)| Named {
            id,
            port,
            weight,
            sick,
        },
    )
}

fn op() -> impl Strategy<Value = (Op, bool)> {
    let some = || proptest::collection::vec(named(), 0..8);
    let op = prop_oneof![
        4 => some().prop_map(Op::Replace),
        4 => (some(), proptest::collection::vec(0u8..6, 0..4)).prop_map(|(u, r)| Op::Patch(u, r)),
        1 => Just(Op::Absent),
    ];
    (op, proptest::bool::weighted(0.3))
}

/// The same rules over plain lists: what is told, and what callers see with the state that they see.
#[derive(Default)]
struct Model {
    told: Vec<Named>,
    live: Vec<(Named, usize)>,
    states: usize,
}

impl Model {
    fn apply(&mut self, op: &Op, hold: bool) {
        let (list, removed): (&[Named], Option<&[u8]>) = match op {
            Op::Replace(list) => (list, None),
            Op::Patch(list, removed) => (list, Some(removed)),
            Op::Absent => (&[], None),
        };
        let mut accepted: Vec<Named> = Vec::new();
        for new in list.iter().rev().filter(|new| new.port != 0) {
            if !accepted
                .iter()
                .any(|a| a.id == new.id || a.port == new.port)
            {
                accepted.insert(0, *new);
            }
        }
        let clash = |old: &Named| {
            let rival = |a: &&Named| a.id == old.id || a.port == old.port;
            accepted.iter().find(rival).copied()
        };
        let removed = |old: &Named| removed.is_none_or(|ids| ids.contains(&old.id));
        self.told
            .retain(|old| clash(old).is_none() && !removed(old));
        self.told.extend(&accepted);
        let told = |id, port| self.told.iter().find(|t| (t.id, t.port) == (id, port));
        let mut live = Vec::new();
        for (old, state) in &self.live {
            match told(old.id, old.port) {
                Some(now) if !now.sick || hold => live.push((*now, *state)),
                None if hold && clash(old).is_none() => live.push((*old, *state)),
                _ => {}
            }
        }
        for new in self.told.iter().filter(|t| !t.sick) {
            if !live
                .iter()
                .any(|(l, _)| (l.id, l.port) == (new.id, new.port))
            {
                self.states += 1;
                live.push((*new, self.states));
            }
        }
        self.live = live;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_does_what_plain_lists_do(ops in proptest::collection::vec(op(), 1..30)) {
        let mut table = Table::new(Filter::default());
        let mut model = Model::default();
        let mut states: HashMap<usize, Arc<Vitals>> = HashMap::new();
        let mut seen: Vec<Endpoint> = Vec::new();
        for (op, hold) in ops {
            let endpoints = |list: &[Named]| list.iter().map(|n| n.endpoint()).collect();
            let update = match &op {
                Op::Replace(list) => Update::Replace(endpoints(list)),
                Op::Patch(list, ids) => Update::Patch {
                    upsert: endpoints(list),
                    remove: ids.iter().map(|id| id.to_string().into()).collect(),
                },
                Op::Absent => Update::Absent,
            };
            let (changed, _) = take_in(&mut table, update, hold);
            model.apply(&op, hold);
            let live = table.live();

            // What callers see is what the lists say, with the same state.
            let describe = |e: &Endpoint| (e.id().to_owned(), e.address().port(), e.weight().get());
            let is: BTreeSet<_> = live.iter().map(describe).collect();
            let ought: BTreeSet<_> = model.live.iter().map(|(n, _)| describe(&n.endpoint())).collect();
            prop_assert_eq!(is, ought);
            for (named, state) in &model.live {
                let endpoint = live.iter().find(|e| **e == named.endpoint()).expect("compared above");
                let state = states.entry(*state).or_insert_with(|| Arc::clone(endpoint.vitals()));
                prop_assert!(Arc::ptr_eq(state, endpoint.vitals()));
            }

            // "Changed" is true exactly if they see a difference; and what stays keeps its order.
            let same = live.len() == seen.len()
                && live.iter().zip(&seen).all(|(a, b)| {
                    a.same_description(b) && Arc::ptr_eq(a.vitals(), b.vitals())
                });
            prop_assert_eq!(changed, !same);
            let stays = |list: &[Endpoint], other: &[Endpoint]| -> Vec<_> {
                let is_in = |e: &&Endpoint| other.iter().any(|o| Arc::ptr_eq(o.vitals(), e.vitals()));
                list.iter().filter(is_in).map(describe_identity).collect()
            };
            prop_assert_eq!(stays(&live, &seen), stays(&seen, &live));

            // No growth: the indices hold what the slots hold.
            prop_assert_eq!(table.by_id.len(), table.slots.len());
            prop_assert_eq!(table.by_address.len(), table.slots.len());
            seen = live;
        }
    }
}

fn describe_identity(endpoint: &Endpoint) -> (String, SocketAddr) {
    (endpoint.id().to_owned(), endpoint.address())
}
