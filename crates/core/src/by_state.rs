//! Finding endpoints of a set by their state.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use crate::{endpoint::Endpoint, vitals::Vitals};

/// Where endpoints stand in a list, found by the state that those keep which stay
/// ([`Endpoint::keeping`]): for who compares two sets.
///
/// The state is known by its address, which no registry chooses. So a multiplication is hash enough.
#[derive(Debug)]
pub struct ByState(HashMap<*const Vitals, usize, BuildHasherDefault<OfAddress>>);

impl ByState {
    /// Of these, the first of which stands at zero.
    pub fn new<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Self {
        Self(endpoints.into_iter().map(state).zip(0..).collect())
    }

    /// Where the endpoint with the same state stands.
    pub fn find(&self, endpoint: &Endpoint) -> Option<usize> {
        self.0.get(&state(endpoint)).copied()
    }
}

fn state(endpoint: &Endpoint) -> *const Vitals {
    Arc::as_ptr(endpoint.vitals())
}

/// Spreads an address over all bits: the lowest of an address are always zero, and a map goes by the lowest and the
/// uppermost.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let spread = (self.0 ^ address as u64).wrapping_mul(GOLDEN);
        self.0 = spread ^ (spread >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn an_endpoint_is_found_by_its_state_whatever_is_said_of_it() {
        let all: Vec<Endpoint> = (1..=1_000).map(endpoint).collect();
        let places = ByState::new(&all);
        for (nth, known) in all.iter().enumerate() {
            let stays = known.clone().with_zone("elsewhere");
            assert_eq!(places.find(&stays), Some(nth));
        }
        assert_eq!(places.find(&endpoint(1)), None, "the same, with no history");
    }

    #[test]
    fn neighbours_in_memory_are_spread_over_the_buckets() {
        let hash = |address: usize| {
            let mut hasher = OfAddress::default();
            hasher.write_usize(address);
            hasher.finish()
        };
        let mut taken: Vec<_> = (0..1_000).map(|i| hash(i * 208) % 1_024).collect();
        taken.sort_unstable();
        taken.dedup();
        // Chance would leave 640; all in a few buckets is what must not be.
        assert!(taken.len() > 500, "{}", taken.len());
    }
}
