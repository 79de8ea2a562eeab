//! What a source has said of one service, without duplicates and in a stable order: the decision of what callers see.

mod slots;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tower_mesh_core::{Endpoint, Update};

use self::slots::Slots;
use crate::{
    faults::{Fault, Faults, Refused, unusable},
    filter::Filter,
};

/// The endpoints of one service: those that the source names, and those that callers see.
///
/// An update is taken in by [`begin`](Self::begin) and [`work`](Self::work), in portions as large as the caller likes;
/// only [`settle`](Self::settle) makes callers see the result. What stays keeps its place, its `Endpoint` and the state
/// that calls have left; what is new is appended and starts without history, whatever the source attached to it.
///
/// An id stands for one endpoint and an address for one: of two that share either, the one named last wins.
#[derive(Debug)]
pub(crate) struct Table {
    filter: Filter,
    /// By place: the order of the published set.
    slots: Slots,
    by_id: HashMap<Arc<str>, u64>,
    by_address: HashMap<SocketAddr, u64>,
    next_place: u64,
    /// Counts updates, to tell what the present one has named.
    round: u64,
    /// How many endpoints callers could use by the last answer that was believed.
    trusted: usize,
    told: usize,
    filtered: usize,
    dirty: bool,
}

#[derive(Debug)]
struct Slot {
    endpoint: Endpoint,
    /// The last update that named it.
    round: u64,
    /// The source names it.
    told: bool,
    /// The filter keeps it.
    passes: bool,
    /// Callers see it.
    live: bool,
}

/// An update that is being taken in.
#[derive(Debug)]
pub(crate) struct Work {
    rest: Vec<Endpoint>,
    removal: Removal,
    first_place: u64,
    faults: Faults,
}

#[derive(Debug)]
enum Removal {
    /// All that the update does not name.
    Unnamed,
    Ids(Vec<Box<str>>),
}

impl Table {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            filter,
            slots: Slots::default(),
            by_id: HashMap::new(),
            by_address: HashMap::new(),
            next_place: 0,
            round: 0,
            trusted: 0,
            told: 0,
            filtered: 0,
            dirty: false,
        }
    }

    /// Begins to take in `update`, unless the source would then name more than `most` endpoints.
    pub(crate) fn begin(&mut self, update: Update, most: usize) -> Result<Work, Refused> {
        let (rest, removal) = match update {
            Update::Replace(endpoints) => (endpoints, Removal::Unnamed),
            Update::Patch { upsert, remove } => (upsert, Removal::Ids(remove)),
            Update::Absent => (Vec::new(), Removal::Unnamed),
            _ => return Err(Refused::Unknown),
        };
        let named = match &removal {
            Removal::Unnamed => rest.len(),
            Removal::Ids(remove) => self.named_after(&rest, remove, most),
        };
        if named > most {
            return Err(Refused::TooMany { named, most });
        }
        self.round += 1;
        self.slots.close();
        let first_place = self.next_place;
        self.next_place += rest.len() as u64;
        Ok(Work {
            rest,
            removal,
            first_place,
            faults: Faults::default(),
        })
    }

    /// How many endpoints the source names after a patch; counted exactly only if it may be more than `most`.
    fn named_after(&self, upsert: &[Endpoint], remove: &[Box<str>], most: usize) -> usize {
        let at_most = self.told + upsert.len();
        if at_most <= most {
            return at_most;
        }
        let known = |id: &str| self.by_id.contains_key(id);
        let new = upsert.iter().filter(|e| !known(e.id())).count();
        let gone = remove.iter().filter(|id| known(id)).count();
        (self.told + new).saturating_sub(gone)
    }

    /// Takes in up to `portion` endpoints; whether the update is taken in completely.
    pub(crate) fn work(&mut self, work: &mut Work, portion: usize) -> bool {
        for _ in 0..portion {
            // From the back: so the last of several is met first, and the others find its id or its address taken.
            let Some(endpoint) = work.rest.pop() else {
                self.remove_told(&work.removal);
                return true;
            };
            let place = work.first_place + work.rest.len() as u64;
            if let Err((endpoint, fault)) = self.upsert(endpoint, place) {
                work.faults.note(endpoint.id(), fault);
            }
        }
        false
    }

    fn upsert(&mut self, endpoint: Endpoint, place: u64) -> Result<(), (Endpoint, Fault)> {
        if let Some(fault) = unusable(endpoint.address()) {
            return Err((endpoint, fault));
        }
        let same_address = self.by_address.get(&endpoint.address()).copied();
        // The common case costs one look-up: who has the address has the id, too.
        if let Some(slot) = same_address.and_then(|place| self.slots.get_mut(place))
            && slot.endpoint.id() == endpoint.id()
        {
            if slot.round == self.round {
                return Err((endpoint, Fault::Duplicate));
            }
            self.dirty |= slot.describe(endpoint, self.round, &self.filter);
            return Ok(());
        }
        let same_id = self.by_id.get(endpoint.id()).copied();
        let rivals = [same_address, same_id];
        let named = |place: &u64| {
            self.slots
                .get(*place)
                .is_some_and(|s| s.round == self.round)
        };
        if rivals.iter().flatten().any(named) {
            return Err((endpoint, Fault::Duplicate));
        }
        for rival in rivals.into_iter().flatten() {
            self.replaced(rival, &endpoint);
        }
        self.by_id.insert(endpoint.share_id(), place);
        self.by_address.insert(endpoint.address(), place);
        let slot = Slot {
            passes: self.filter.keeps(&endpoint),
            endpoint,
            round: self.round,
            told: true,
            live: false,
        };
        self.slots.insert(place, slot);
        Ok(())
    }

    /// `by` takes its id or its address: where it stood by that, the other will.
    fn replaced(&mut self, place: u64, by: &Endpoint) {
        if let Some(Slot { endpoint, live, .. }) = self.slots.remove(place) {
            if endpoint.id() != by.id() {
                self.by_id.remove(endpoint.id());
            }
            if endpoint.address() != by.address() {
                self.by_address.remove(&endpoint.address());
            }
            self.dirty |= live;
        }
    }

    fn remove_told(&mut self, removal: &Removal) {
        let round = self.round;
        match removal {
            Removal::Unnamed => {
                for slot in self.slots.values_mut() {
                    slot.told = slot.round == round;
                }
            }
            Removal::Ids(ids) => {
                for id in ids {
                    let place = self.by_id.get(&**id);
                    if let Some(slot) = place.and_then(|place| self.slots.get_mut(*place)) {
                        // What the same update names as well is not gone.
                        slot.told &= slot.round == round;
                    }
                }
            }
        }
    }

    /// Whether callers would lose more than half of what the last believed answer gave them.
    pub(crate) fn loses_most(&self) -> bool {
        let wanted = self.slots.values().filter(|slot| slot.is_wanted()).count();
        wanted * 2 < self.trusted
    }

    /// Makes what was taken in what callers see, and says whether that differs from what they saw.
    ///
    /// With `hold` nothing is taken away from them: what the source no longer names stays, beside what it does name.
    pub(crate) fn settle(&mut self, hold: bool) -> bool {
        let mut dirty = std::mem::take(&mut self.dirty);
        let (mut told, mut wanted) = (0, 0);
        let (by_id, by_address) = (&mut self.by_id, &mut self.by_address);
        self.slots.retain(|slot| {
            told += usize::from(slot.told);
            wanted += usize::from(slot.is_wanted());
            let live = slot.is_wanted() || (hold && slot.live);
            dirty |= slot.set_live(live);
            let stays = slot.told || live;
            if !stays {
                by_id.remove(slot.endpoint.id());
                by_address.remove(&slot.endpoint.address());
            }
            stays
        });
        (self.told, self.filtered) = (told, told - wanted);
        if !hold {
            self.trusted = wanted;
        }
        dirty
    }

    /// What callers see.
    pub(crate) fn live(&self) -> Vec<Endpoint> {
        let live = self.slots.values().filter(|slot| slot.live);
        live.map(|slot| slot.endpoint.clone()).collect()
    }

    /// How many endpoints the filter keeps from callers.
    pub(crate) fn filtered(&self) -> usize {
        self.filtered
    }
}

impl Slot {
    /// Takes in what the source says of it now; whether callers see a difference.
    fn describe(&mut self, endpoint: Endpoint, round: u64, filter: &Filter) -> bool {
        self.round = round;
        self.told = true;
        if self.endpoint.same_description(&endpoint) {
            return false;
        }
        self.passes = filter.keeps(&endpoint);
        self.endpoint = endpoint.keeping(&self.endpoint);
        self.live
    }

    fn is_wanted(&self) -> bool {
        self.told && self.passes
    }

    /// Shows it to callers or hides it; whether that is a change.
    fn set_live(&mut self, live: bool) -> bool {
        if live && !self.live {
            // Never resurrected: if callers saw it before, it has been drained since.
            self.endpoint.forget();
        }
        std::mem::replace(&mut self.live, live) != live
    }
}

impl Work {
    pub(crate) fn into_faults(self) -> Faults {
        self.faults
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
