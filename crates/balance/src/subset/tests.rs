use std::collections::BTreeSet;

use proptest::prelude::*;
use tower_mesh_core::Weight;

use super::*;

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into())
}

fn fleet(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
    ports.into_iter().map(endpoint).collect()
}

fn of(client: usize, size: usize) -> Subset {
    let size = NonZeroUsize::new(size).expect("not zero");
    Subset::of(&format!("client-{client}")).size(size)
}

/// The ports that a client has.
fn has(subset: Subset, endpoints: &[Endpoint]) -> BTreeSet<u16> {
    let priority = |endpoint: &Endpoint| Rank {
        priority: endpoint.priority(),
        distance: 0,
    };
    let ranks: Vec<_> = endpoints.iter().map(priority).collect();
    let weights: Vec<_> = endpoints.iter().map(|e| e.weight().get()).collect();
    let members = subset.members(endpoints, &ranks, &weights);
    let members = endpoints.iter().zip(members).filter(|(_, member)| *member);
    members
        .map(|(endpoint, _)| endpoint.address().port())
        .collect()
}

#[test]
fn each_endpoint_has_about_as_many_clients_as_the_others() {
    let fleet = fleet(1..=100);
    let mut clients = [0; 100];
    for client in 0..500 {
        for port in has(of(client, 20), &fleet) {
            clients[usize::from(port) - 1] += 1;
        }
    }
    let (least, most) = (clients.iter().min().unwrap(), clients.iter().max().unwrap());
    println!("{least} to {most}");
    assert_eq!(clients.iter().sum::<i32>(), 500 * 20);
    assert!(*least >= 70 && *most <= 130, "{least} to {most}");
    let off = clients
        .iter()
        .map(|c| f64::from(c - 100).powi(2))
        .sum::<f64>()
        / 100.0;
    assert!(off.sqrt() < 12.0, "give or take {}", off.sqrt());
}

#[test]
fn each_priority_has_a_subset_of_its_own() {
    let mut fleet = fleet(1..=60);
    fleet.extend((61..=90).map(|port| endpoint(port).with_priority(1)));
    let has = has(of(7, 20), &fleet);
    let first = has.iter().filter(|port| **port <= 60).count();
    assert_eq!((first, has.len()), (20, 40));
}

#[test]
fn who_weighs_nothing_takes_nobodys_place() {
    let idle = |port| endpoint(port).with_weight(Weight::new(0));
    let fleet: Vec<_> = (1..=50).map(idle).chain((51..=60).map(endpoint)).collect();
    assert_eq!(has(of(1, 10), &fleet), (51..=60).collect());
    let all_idle: Vec<_> = (1..=50).map(idle).collect();
    assert_eq!(has(of(1, 10), &all_idle).len(), 10);
}

proptest! {
    #[test]
    fn where_there_are_few_a_client_has_all_and_else_as_many_as_it_should(
        ports in prop::collection::btree_set(1u16.., 0..80),
        size in 1usize..40,
        client in any::<usize>(),
    ) {
        let has = has(of(client, size), &fleet(ports.iter().copied()));
        prop_assert_eq!(has.len(), size.min(ports.len()));
    }

    #[test]
    fn the_order_of_the_registry_does_not_matter(
        mut ports in Just((1..=60).collect::<Vec<u16>>()).prop_shuffle(),
        client in any::<usize>(),
    ) {
        let shuffled = has(of(client, 20), &fleet(ports.iter().copied()));
        ports.sort_unstable();
        prop_assert_eq!(shuffled, has(of(client, 20), &fleet(ports)));
    }

    #[test]
    fn one_that_comes_or_goes_changes_one_place_at_most(
        ports in prop::collection::btree_set(1u16.., 2..80),
        nth in any::<prop::sample::Index>(),
        size in 1usize..40,
        client in any::<usize>(),
    ) {
        let gone = *nth.get(&ports.iter().copied().collect::<Vec<_>>());
        let with = has(of(client, size), &fleet(ports.iter().copied()));
        let without = has(of(client, size), &fleet(ports.iter().copied().filter(|p| *p != gone)));
        if with.contains(&gone) {
            prop_assert_eq!(with.difference(&without).collect::<Vec<_>>(), [&gone]);
            prop_assert!(without.difference(&with).count() <= 1);
        } else {
            prop_assert_eq!(with, without);
        }
    }
}
