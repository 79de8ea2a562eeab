//! The endpoints' services, kept in step with the registry.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use tower_mesh_core::{
    Attempt, Clock, Endpoint, EndpointSet, Endpoints, Instant, NewService, Shut, Subscriber,
};

use crate::{
    error::{NoEndpoint, Reason, Tally},
    hash::{Places, mix},
    levels::Ranking,
    pick::{Avoid, Chance, Field, pick},
    snapshot::Snapshot,
    strategy::Strategy,
    subset::Subset,
};

/// What all clones of a balancer and their calls share. `J` is the pair of classifier and completion.
pub(crate) struct Pool<S, J> {
    snapshot: ArcSwap<Snapshot<S>>,
    pub(crate) settings: Settings,
    pub(crate) judging: J,
    endpoints: Endpoints,
    make: Make<S>,
}

/// The `NewService` runs only when endpoints change, so its type need not be everyone's.
type Make<S> = Arc<dyn NewService<Endpoint, Service = S> + Send + Sync>;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) strategy: Strategy,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) ranking: Ranking,
    pub(crate) subset: Option<Subset>,
}

/// How often the updater lets others run before it frees a snapshot that is still being read.
const PATIENCE: usize = 1_000;

/// Whom a pick is made from, and how.
#[derive(Clone, Copy)]
struct Whom<'a> {
    field: Field<'a>,
    chance: &'a Chance,
    /// Whether an endpoint on probation may be tried.
    probe: bool,
}

impl<S, J> Pool<S, J>
where
    S: Send + Sync + 'static,
    J: Send + Sync + 'static,
{
    /// A pool that follows `endpoints` as long as it lives.
    pub(crate) fn new(
        endpoints: Endpoints,
        make: Make<S>,
        settings: Settings,
        judging: J,
    ) -> Arc<Self> {
        let set = current(&endpoints);
        let first = Snapshot::new(None, set, &settings, |endpoint| made(&*make, endpoint));
        Self::following(endpoints, make, settings, judging, first)
    }

    /// A pool of the same services under other settings.
    pub(crate) fn again(&self, settings: Settings, judging: J) -> Arc<Self> {
        let (endpoints, make) = (self.endpoints.clone(), Arc::clone(&self.make));
        let old = self.snapshot.load();
        let set = current(&endpoints);
        let first = Snapshot::new(Some(&old), set, &settings, |endpoint| {
            made(&*make, endpoint)
        });
        Self::following(endpoints, make, settings, judging, first)
    }

    fn following(
        endpoints: Endpoints,
        make: Make<S>,
        settings: Settings,
        judging: J,
        first: Snapshot<S>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(first),
            settings,
            judging,
            endpoints: endpoints.clone(),
            make,
        });
        endpoints.subscribe(&pool);
        pool
    }
}

impl<S, J> Pool<S, J> {
    /// Makes the snapshot of the newest set, unless that is there already.
    ///
    /// Services are made under no lock. Of several who update at once, one wins and the others look again.
    fn update(&self) {
        loop {
            let old = self.snapshot.load_full();
            let set = current(&self.endpoints);
            if set.revision() <= old.set.revision() {
                return;
            }
            let make = |endpoint: &Endpoint| made(&*self.make, endpoint);
            let new = Snapshot::new(Some(&old), set, &self.settings, make);
            let seen = self.snapshot.compare_and_swap(&old, Arc::new(new));
            if Arc::ptr_eq(&seen, &old) {
                drop(seen);
                return retire(old);
            }
        }
    }
}

impl<S: Send + Sync, J: Send + Sync> Subscriber for Pool<S, J> {
    fn changed(&self, _: &EndpointSet) {
        self.update();
    }
}

fn current(endpoints: &Endpoints) -> Arc<EndpointSet> {
    Guard::into_inner(endpoints.current())
}

fn made<S>(make: &dyn NewService<Endpoint, Service = S>, endpoint: &Endpoint) -> Option<S> {
    // The endpoint is left out until the next change of the set, when its service is tried again.
    catch_unwind(AssertUnwindSafe(|| make.new_service(endpoint)))
        .inspect_err(|_| {
            tracing::error!(
                endpoint = endpoint.id(),
                "making the service of an endpoint panicked, it takes no calls"
            );
        })
        .ok()
}

/// Frees a snapshot that has been replaced.
///
/// Readers hold it for less than a microsecond; whoever is last frees it, and that should be the updater, not a call.
fn retire<S>(old: Arc<Snapshot<S>>) {
    for _ in 0..PATIENCE {
        if Arc::strong_count(&old) == 1 {
            break;
        }
        std::thread::yield_now();
    }
}

impl<S: Clone, J> Pool<S, J> {
    /// Picks an endpoint that is not to be avoided, begins an attempt there and gives its service; nothing if there is
    /// none.
    // The attempt is written to where it stays, since moving it about is a tenth of what a call costs.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        now: Instant,
        probe: bool,
        avoid: &Avoid,
        attempt: &mut Option<Attempt>,
    ) -> Option<S> {
        let snapshot = self.snapshot.load();
        if !snapshot.is_plain {
            return self.admit_specially(&snapshot, now, probe, avoid, attempt);
        }
        let whom = Whom {
            field: snapshot.field(),
            chance: &self.settings.chance,
            probe,
        };
        self.admit_one(&snapshot, whom, now, avoid, attempt)
    }

    /// As [`admit`](Self::admit), where a key leads to and on the level whose turn it is; if nobody is found there, on any
    /// other.
    #[cold]
    #[inline(never)]
    fn admit_specially(
        &self,
        snapshot: &Snapshot<S>,
        now: Instant,
        probe: bool,
        avoid: &Avoid,
        attempt: &mut Option<Attempt>,
    ) -> Option<S> {
        let endpoints = snapshot.set.endpoints();
        let chance = &self.settings.chance;
        let Some(levels) = snapshot.levels.as_deref() else {
            let whom = Whom {
                field: snapshot.field(),
                chance,
                probe,
            };
            let places = snapshot.places.as_deref();
            return self.admit_by_key(snapshot, whom, places, now, avoid, attempt);
        };
        // So a key stays on its level, too, as long as shares do.
        let random = match avoid.key {
            0 => chance.rng.next_u64(),
            key => mix(key),
        };
        let drawn = levels.draw(endpoints, random, now);
        let others = levels.iter().filter(|level| level.rank != drawn.rank);
        [drawn].into_iter().chain(others).find_map(|level| {
            let whom = Whom {
                field: level.field(endpoints),
                chance: &level.chance,
                probe,
            };
            let places = level.places.as_ref();
            self.admit_by_key(snapshot, whom, places, now, avoid, attempt)
        })
    }

    /// As [`admit_one`](Self::admit_one), at the endpoint that the key leads to if there is a key.
    fn admit_by_key(
        &self,
        snapshot: &Snapshot<S>,
        whom: Whom<'_>,
        places: Option<&Places>,
        now: Instant,
        avoid: &Avoid,
        attempt: &mut Option<Attempt>,
    ) -> Option<S> {
        let Settings {
            strategy, clock, ..
        } = &self.settings;
        let places = places.filter(|_| avoid.key != 0);
        let found = places.and_then(|places| places.find(whom.field, avoid.key, avoid, now));
        if let Some(index) = found {
            let vitals = snapshot.set.endpoints()[index].vitals();
            // Its gate may have shut just now.
            if let Ok(admitted) = vitals.attempt_at(now, clock, strategy.sampling()) {
                *attempt = Some(admitted);
                return snapshot.service(index).cloned();
            }
        }
        self.admit_one(snapshot, whom, now, avoid, attempt)
    }

    #[inline(always)]
    fn admit_one(
        &self,
        snapshot: &Snapshot<S>,
        whom: Whom<'_>,
        now: Instant,
        avoid: &Avoid,
        attempt: &mut Option<Attempt>,
    ) -> Option<S> {
        let Settings {
            strategy, clock, ..
        } = &self.settings;
        let index = pick(whom.field, *strategy, whom.chance, now, whom.probe, avoid)?;
        let vitals = snapshot.set.endpoints()[index].vitals();
        match vitals.attempt_at(now, clock, strategy.sampling()) {
            Ok(admitted) => *attempt = Some(admitted),
            Err(_) => return self.admit_even_so(snapshot, whom, index, now, avoid, attempt),
        }
        snapshot.service(index).cloned()
    }

    /// Goes on after the gate of an endpoint has refused that was picked: there is a panic, its last place on probation
    /// went to someone else, or it was removed just now.
    #[cold]
    #[inline(never)]
    fn admit_even_so(
        &self,
        snapshot: &Snapshot<S>,
        whom: Whom<'_>,
        index: usize,
        now: Instant,
        avoid: &Avoid,
        attempt: &mut Option<Attempt>,
    ) -> Option<S> {
        if whom.chance.panic.alarm(whom.field, now).is_on()
            && let Ok(admitted) = self.attempt_in_panic(snapshot, index, now)
        {
            *attempt = Some(admitted);
            return snapshot.service(index).cloned();
        }
        let mut avoid = *avoid;
        if avoid.add(snapshot.set.endpoints()[index].vitals().key()) {
            self.admit_one(snapshot, whom, now, &avoid, attempt)
        } else {
            None
        }
    }

    #[cold]
    fn attempt_in_panic(
        &self,
        snapshot: &Snapshot<S>,
        index: usize,
        now: Instant,
    ) -> Result<Attempt, Shut> {
        let Settings {
            strategy, clock, ..
        } = &self.settings;
        let vitals = snapshot.set.endpoints()[index].vitals();
        vitals.attempt_in_panic(now, clock, strategy.sampling())
    }

    /// Begins an attempt at any endpoint that admits one, beginning anywhere; in a panic at any that may be tried even so.
    ///
    /// # Errors
    ///
    /// [`NoEndpoint`] if each of them refuses, with what keeps it.
    #[cold]
    pub(crate) fn admit_any(
        &self,
        now: Instant,
        attempt: &mut Option<Attempt>,
    ) -> Result<S, NoEndpoint> {
        let Settings {
            strategy,
            clock,
            chance,
            ..
        } = &self.settings;
        let snapshot = self.snapshot.load();
        let endpoints = snapshot.set.endpoints();
        let mut tally = Tally::default();
        for index in 0..endpoints.len() {
            if !snapshot.is_member(index) {
                tally.count(Reason::NotInSubset, None);
            } else if snapshot.service(index).is_none() {
                tally.count(Reason::NotMade, None);
            } else if !snapshot.table.contains(index) {
                tally.count(Reason::Weightless, None);
            }
        }
        for (field, chance) in snapshot.fields(chance) {
            let mut alarm = None;
            // In a panic: one that is as good as dead, if nobody else will have it.
            let mut last = None;
            let first = chance.rng.below(endpoints.len());
            let all = (first..endpoints.len()).chain(0..first);
            for index in all.filter(|index| field.table.contains(*index)) {
                let vitals = endpoints[index].vitals();
                let mut admitted = vitals.attempt_at(now, clock, strategy.sampling());
                if admitted.is_err() {
                    let alarm = *alarm.get_or_insert_with(|| chance.panic.count(field, now));
                    if alarm.overrides(vitals.gate()) {
                        admitted = self.attempt_in_panic(&snapshot, index, now);
                    } else if alarm.is_on() {
                        last = Some(index);
                    }
                }
                let service = snapshot.service(index);
                match (admitted, service) {
                    (Ok(admitted), Some(service)) => {
                        *attempt = Some(admitted);
                        return Ok(service.clone());
                    }
                    (Err(shut), _) => {
                        let back_in = shut.until().map(|until| until.since(now));
                        tally.count(Reason::Judge(shut.by()), back_in);
                    }
                    // Who has no service has no place either.
                    (Ok(_), None) => {}
                }
            }
            if let Some(index) = last
                && let Ok(admitted) = self.attempt_in_panic(&snapshot, index, now)
                && let Some(service) = snapshot.service(index)
            {
                *attempt = Some(admitted);
                return Ok(service.clone());
            }
        }
        Err(NoEndpoint::new(
            self.endpoints.service(),
            &snapshot.set,
            tally,
        ))
    }
}

impl<S, J> fmt::Debug for Pool<S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("service", self.endpoints.service())
            .field("snapshot", &*self.snapshot.load())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
