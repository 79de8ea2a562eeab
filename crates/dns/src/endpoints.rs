//! What records mean as endpoints. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use tower_mesh_core::{Endpoint, Weight};

/// An SRV record, with the addresses of its target.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The endpoints, sorted by address, and an example of what is none.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) unusable: Option<SocketAddr>,
}

/// Those of addresses that share a port.
pub(crate) fn of_addresses(addresses: Vec<IpAddr>, port: u16) -> Named {
    of_targets(vec![Target {
        priority: 0,
        weight: 0,
        port,
        addresses,
    }])
}

/// Those of SRV records.
///
/// Priorities become ranks, since only their order means something. Among weights that are not zero, zero stays what it is:
/// RFC 2782 leaves it "a very small chance", the mesh none. Where all are zero they say nothing, and all are equal. An
/// address that is named twice counts by the record that comes first.
pub(crate) fn of_targets(mut targets: Vec<Target>) -> Named {
    targets.sort_by_key(|t| (t.priority, std::cmp::Reverse(t.weight), t.port));
    let mut weighted: BTreeMap<u16, bool> = BTreeMap::new();
    for target in &targets {
        *weighted.entry(target.priority).or_default() |= target.weight > 0;
    }
    let better = |priority| weighted.range(..priority).take(u8::MAX.into());
    let rank = |priority| better(priority).count() as u8;
    let (mut named, mut seen) = (Named::default(), HashSet::new());
    for target in targets {
        let (rank, weight) = match weighted[&target.priority] {
            true => (rank(target.priority), target.weight),
            false => (rank(target.priority), 1),
        };
        for ip in target.addresses {
            let address = SocketAddr::new(ip, target.port);
            if !is_usable(address) {
                named.unusable = Some(address);
            } else if seen.insert(address) {
                let endpoint = Endpoint::new(address).with_priority(rank);
                named
                    .endpoints
                    .push(endpoint.with_weight(Weight::new(weight)));
            }
        }
    }
    // Servers turn their answers round; the order is no news.
    named.endpoints.sort_by_key(Endpoint::address);
    named
}

/// 0.0.0.0 is how filters say that a name is blocked, and reaches this machine itself.
fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    fn target(priority: u16, weight: u16, last: u8) -> Target {
        Target {
            priority,
            weight,
            port: 80,
            addresses: vec![IpAddr::from([10, 0, 0, last])],
        }
    }

    /// Last byte, rank, weight.
    fn described(targets: Vec<Target>) -> Vec<(u8, u8, u16)> {
        let last = |e: &Endpoint| match e.address().ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        let named = of_targets(targets);
        let endpoints = named.endpoints.iter();
        endpoints
            .map(|e| (last(e), e.priority(), e.weight().get()))
            .collect()
    }

    #[test]
    fn priorities_become_ranks_in_their_order() {
        let targets = vec![target(500, 1, 3), target(10, 7, 1), target(20, 2, 2)];
        assert_eq!(described(targets), [(1, 0, 7), (2, 1, 2), (3, 2, 1)]);
        let many = (0..1_000).map(|p| Target {
            addresses: vec![IpAddr::from([10, 0, (p >> 8) as u8, p as u8])],
            ..target(p, 1, 0)
        });
        let named = of_targets(many.collect());
        let ranks = named.endpoints.iter().map(Endpoint::priority);
        assert_eq!(ranks.max(), Some(u8::MAX), "cut off, never turned round");
    }

    #[test]
    fn a_weight_of_zero_counts_only_beside_others_of_its_priority() {
        let targets = vec![target(1, 0, 1), target(1, 0, 2), target(2, 0, 3)];
        let all_zero = [(1, 0, 1), (2, 0, 1), (3, 1, 1)];
        assert_eq!(described(targets), all_zero);
        let mixed = vec![target(1, 0, 1), target(1, 9, 2), target(2, 0, 3)];
        assert_eq!(described(mixed), [(1, 0, 0), (2, 0, 9), (3, 1, 1)]);
    }

    #[test]
    fn an_address_that_is_named_twice_is_one_endpoint_of_its_best_record() {
        let twice = vec![target(2, 5, 1), target(1, 3, 1), target(1, 4, 1)];
        assert_eq!(described(twice), [(1, 0, 4)]);
    }

    #[test]
    fn what_nobody_can_be_reached_at_is_left_out() {
        let bad = [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::ffff:0.0.0.0",
        ];
        for bad in bad {
            let bad: IpAddr = bad.parse().unwrap();
            let good = IpAddr::from([10, 0, 0, 1]);
            let named = of_addresses(vec![bad, good], 80);
            assert_eq!(named.endpoints.len(), 1, "{bad}");
            assert_eq!(named.unusable, Some((bad, 80).into()));
        }
        let no_port = Target {
            port: 0,
            ..target(1, 1, 1)
        };
        assert!(of_targets(vec![no_port]).endpoints.is_empty());
    }

    #[test]
    fn the_order_of_an_answer_is_no_news() {
        let turned = |by: usize| {
            let mut all: Vec<_> = (1..=5).map(|last| target(1, 1, last)).collect();
            all.rotate_left(by);
            described(all)
        };
        assert_eq!(turned(0), turned(3));
    }
}
