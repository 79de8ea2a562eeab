use tower_mesh_core::{Attempt, Clock, Sampling, Vitals, Weight};

use super::*;

const HASHING: Hashing = Hashing {
    seed: 7,
    capacity: 1.25,
};

struct Fleet {
    endpoints: Vec<Endpoint>,
    table: Table,
    places: Places,
    clock: Clock,
}

impl Fleet {
    fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self::weighted(ports.into_iter().map(|port| (port, 1)))
    }

    fn weighted(ports: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let endpoint = |(port, weight)| {
            Endpoint::new(([10, 0, 0, 1], port).into()).with_weight(Weight::new(weight))
        };
        let endpoints: Vec<_> = ports.into_iter().map(endpoint).collect();
        let weights: Vec<_> = endpoints.iter().map(|e| e.weight().get()).collect();
        let table = Table::new(&weights, |_| true);
        Self {
            places: Places::new(&table, &endpoints, HASHING),
            endpoints,
            table,
            clock: Clock::manual().0,
        }
    }

    fn find(&self, key: u64) -> Option<&Endpoint> {
        self.find_but(key, &Avoid::default())
    }

    fn find_but(&self, key: u64, avoid: &Avoid) -> Option<&Endpoint> {
        let field = Field {
            endpoints: &self.endpoints,
            table: &self.table,
        };
        let index = (self.places).find(field, key, avoid, self.clock.now())?;
        Some(&self.endpoints[index])
    }

    fn port(&self, key: u64) -> u16 {
        self.find(key).expect("somebody").address().port()
    }

    fn begin(&self, key: u64) -> Attempt {
        let vitals: &std::sync::Arc<Vitals> = self.find(key).expect("room").vitals();
        vitals.attempt(&self.clock, Sampling::Mean).expect("open")
    }
}

const KEYS: u64 = 20_000;

#[test]
fn whoever_comes_or_goes_moves_only_the_keys_that_it_gets_or_had() {
    for size in [2, 3, 10, 64, 66, 500] {
        let (with, without) = (Fleet::new(1..=size), Fleet::new(2..=size));
        let mut moved = 0.0;
        for key in 0..KEYS {
            match with.port(key) {
                1 => moved += 1.0,
                port => assert_eq!(without.port(key), port),
            }
        }
        let share = moved / KEYS as f64 * f64::from(size);
        assert!((0.5..1.7).contains(&share), "{size}: {share} of 1/N moves");
    }
}

#[test]
fn keys_are_spread_as_weights_say() {
    for size in [10, 200] {
        let fleet = Fleet::weighted((1..=size).map(|port| (port, 1 + 2 * (port % 2))));
        let heavy = (0..KEYS).filter(|key| fleet.port(*key) % 2 == 1).count();
        let share = heavy as f64 / KEYS as f64;
        assert!((0.71..0.79).contains(&share), "{size}: {share}");
    }
}

#[test]
fn with_another_seed_keys_lead_elsewhere() {
    let (one, mut other) = (Fleet::new(1..=10), Fleet::new(1..=10));
    other.places.hashing.seed = 8;
    let same = (0..1_000).filter(|key| one.port(*key) == other.port(*key));
    assert!((50..200).contains(&same.count()));
}

#[test]
fn no_endpoint_has_more_than_its_capacity_even_if_all_ask_for_one_key() {
    for size in [1, 2, 3, 10, 16] {
        let fleet = Fleet::new(1..=size);
        let mut held = Vec::new();
        for call in 1..=1_000u32 {
            held.push(fleet.begin(42));
            let most = fleet
                .endpoints
                .iter()
                .map(|e| e.vitals().load().in_flight());
            let room = (1.25 * f64::from(call) / f64::from(size)).ceil() as u32;
            assert!(most.max() <= Some(room), "{size}, {call}");
        }
    }
}

#[test]
fn of_many_endpoints_the_share_may_be_a_moment_old() {
    let (clock, hand) = Clock::manual();
    let fleet = Fleet {
        clock,
        ..Fleet::new(1..=200)
    };
    let mut held = Vec::new();
    for call in 1..=2_000u32 {
        hand.advance(std::time::Duration::from_millis(1));
        held.push(fleet.begin(u64::from(call % 3)));
        let most = fleet
            .endpoints
            .iter()
            .map(|e| e.vitals().load().in_flight());
        let room = (1.25 * f64::from(call) / 200.0).ceil() as u32;
        assert!(most.max() <= Some(room), "{call}");
    }
}

#[test]
fn a_key_stays_where_it_is_while_that_is_well_and_comes_back_to_it() {
    for size in [5, 100] {
        let fleet = Fleet::new(1..=size);
        let home = fleet.find(9).expect("somebody").clone();
        home.vitals().gate().set_draining(true);
        let second = fleet.port(9);
        assert_ne!(second, home.address().port());
        assert_eq!(fleet.port(9), second);
        home.vitals().gate().set_draining(false);
        assert_eq!(fleet.port(9), home.address().port());
    }
}

#[test]
fn without_endpoints_or_with_all_shut_a_key_leads_nowhere() {
    assert!(Fleet::new([]).find(1).is_none());
    let fleet = Fleet::new(1..=3);
    let gates = fleet.endpoints.iter().map(|e| e.vitals().gate());
    gates.for_each(|gate| gate.set_draining(true));
    assert!(fleet.find(1).is_none());
}

#[test]
fn a_call_that_has_been_at_its_home_goes_to_its_second_and_then_to_its_third() {
    for size in [5, 100] {
        let fleet = Fleet::new(1..=size);
        let mut avoid = Avoid::default();
        let mut been = Vec::new();
        for _ in 0..3 {
            let next = fleet.find_but(9, &avoid).expect("another");
            assert!(!been.contains(next));
            avoid.add(next.vitals().key());
            been.push(next.clone());
        }
    }
}
