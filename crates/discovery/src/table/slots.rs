//! The slots of a table, in the order of their places.

use super::Slot;

/// Slots by place: their order is that of the published set, and a removal moves nothing.
///
/// Places rise from update to update, and within one come from the back. So they are two lists, each in order by itself, and
/// a place is found by bisection. A map takes half as much again for each, and more time for all than the rest of an
/// update.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Rising. None: it was removed, and its room is taken back when the update is settled.
    settled: Vec<Place>,
    /// Of the update that is being taken in: above the others, and falling.
    named: Vec<Place>,
}

type Place = (u64, Option<Slot>);

impl Slots {
    pub(super) fn get(&self, place: u64) -> Option<&Slot> {
        match self.settled.binary_search_by_key(&place, |(at, _)| *at) {
            Ok(nth) => self.settled[nth].1.as_ref(),
            Err(_) => {
                let nth = self.named.binary_search_by(|(at, _)| place.cmp(at)).ok()?;
                self.named[nth].1.as_ref()
            }
        }
    }

    pub(super) fn get_mut(&mut self, place: u64) -> Option<&mut Slot> {
        self.at(place)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: u64) -> Option<Slot> {
        self.at(place)?.take()
    }

    fn at(&mut self, place: u64) -> Option<&mut Option<Slot>> {
        match self.settled.binary_search_by_key(&place, |(at, _)| *at) {
            Ok(nth) => Some(&mut self.settled[nth].1),
            Err(_) => {
                let nth = self.named.binary_search_by(|(at, _)| place.cmp(at)).ok()?;
                Some(&mut self.named[nth].1)
            }
        }
    }

    /// Adds one at a place beneath the last that was added, and above all that were there before the update.
    pub(super) fn insert(&mut self, place: u64, slot: Slot) {
        debug_assert!(self.named.last().is_none_or(|(last, _)| place < *last));
        self.named.push((place, Some(slot)));
    }

    /// The next to be added belong to another update.
    pub(super) fn close(&mut self) {
        if !self.named.is_empty() {
            self.settled.retain(|(_, slot)| slot.is_some());
            let named = std::mem::take(&mut self.named);
            self.settled.extend(named.into_iter().rev());
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Slot> {
        let all = self.settled.iter().chain(self.named.iter().rev());
        all.filter_map(|(_, slot)| slot.as_ref())
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let all = self.settled.iter_mut().chain(self.named.iter_mut().rev());
        all.filter_map(|(_, slot)| slot.as_mut())
    }

    /// Drops those that are not to stay.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&mut Slot) -> bool) {
        self.close();
        self.settled
            .retain_mut(|(_, slot)| slot.as_mut().is_some_and(&mut stays));
    }

    #[cfg(all(test, not(mesh_loom)))]
    pub(super) fn len(&self) -> usize {
        self.values().count()
    }
}
