//! Each client calls some of the endpoints only.

use std::num::NonZeroUsize;

use tower_mesh_core::Endpoint;

use crate::{hash::mix, levels::Rank};

/// Which of the endpoints a client calls, so that not all of many clients are connected to all of many endpoints, and
/// each makes enough calls of one to know how it is.
///
/// Of each priority and distance a client has the endpoints that rank highest by a hash of both their names
/// ([rendezvous][1]): the same whenever it is asked, and from the registry's answer alone. When an endpoint goes, those
/// who had it get one more, and nobody else notices; when one comes, it takes the place of one with its share of the clients.
/// Endpoints of weight zero take nobody's place. Weights decide how many calls an endpoint gets of a client that has it, not
/// how many clients have it.
///
/// Clients need not know of each other, so how many have an endpoint is left to chance: of 500 clients with 20 of 100
/// endpoints each, 100 have one in the mean, give or take 9, and between 81 and 125 in a test. Balancing by load makes up for
/// much of that.
///
/// What keeps all of a client's endpoints from taking calls keeps the client from calling, however many there are beside
/// them: do not choose few. Where there are no more than [`size`](Self::size) there is no difference.
///
/// [1]: https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf
///
/// # Example
///
/// ```
/// use tower_mesh_balance::{BalanceLayer, Subset};
/// use tower_mesh_core::{Endpoints, ServiceName};
///
/// # fn main() -> Result<(), tower::BoxError> {
/// # let endpoints = Endpoints::fixed(ServiceName::new("orders")?, []);
/// let balance = BalanceLayer::new(endpoints).subset(Subset::of("storefront-7f9c"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    client: u64,
    size: NonZeroUsize,
}

/// Enough for three candidates to differ and for some to fail; Google's SRE book finds 20 to 100 to be usual, Finagle's
/// aperture begins with 12.
const SIZE: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

impl Subset {
    /// That of this client: a name that no other process has, and that it should keep when it starts again. Twenty
    /// endpoints.
    pub fn of(client: &str) -> Self {
        let fold = |hash: u64, byte: u8| mix(hash ^ u64::from(byte)).wrapping_add(1);
        Self {
            client: client.bytes().fold(0, fold),
            size: SIZE,
        }
    }

    /// Sets how many endpoints of each priority and distance it has.
    #[must_use]
    pub const fn size(mut self, endpoints: NonZeroUsize) -> Self {
        self.size = endpoints;
        self
    }

    /// For each endpoint whether it is one of the client's.
    pub(crate) fn members(
        self,
        endpoints: &[Endpoint],
        ranks: &[Rank],
        weights: &[u16],
    ) -> Box<[bool]> {
        // As in a table: if none weighs anything, all are equal.
        let weightless = weights.iter().all(|weight| *weight == 0);
        let mut order: Vec<(Rank, u64, usize)> = (0..endpoints.len())
            .filter(|index| weightless || weights[*index] > 0)
            .map(|index| {
                let key = u64::from(endpoints[index].vitals().key());
                (ranks[index], mix(self.client ^ mix(key)), index)
            })
            .collect();
        order.sort_unstable();
        let mut members = vec![false; endpoints.len()];
        for level in order.chunk_by(|one, next| one.0 == next.0) {
            for (_, _, index) in level.iter().take(self.size.get()) {
                members[*index] = true;
            }
        }
        members.into()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
