//! What a mesh knows, on disk: for a process that starts while the registry is away.

mod disk;
mod source;
pub(crate) mod text;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use serde::Serialize;
use tower_mesh_core::{Clock, Resolution, Resolve, ServiceName};

use self::{
    source::{Offer, Remembered},
    text::{Known, MOST, Memory, Unread},
};
use crate::{
    mesh::Services,
    service::State,
    snapshot::{Snapshot, now},
};

/// How often it is written.
const EVERY: Duration = Duration::from_secs(30);
/// Endpoints that the registry has not stood by for longer are forgotten.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

/// What is remembered of endpoints, in a [`Status`](crate::Status).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RememberStatus {
    /// Services whose endpoints are remembered.
    pub services: usize,
    /// Why the file could not be read or written last, if so.
    pub error: Option<String>,
}

/// The memory of a mesh, and the file that holds it.
#[derive(Debug)]
pub(crate) struct Remember {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Locked by the one who writes.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<ServiceName, Known>,
    learned: Option<Snapshot>,
    heard: HashMap<ServiceName, Heard>,
    error: Option<String>,
    /// The file is somebody else's: nothing is written.
    foreign: bool,
}

/// How the registry stands with a service.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Answering,
    /// It has answered, and fails since then.
    Failing(u64),
    /// It has not answered: what is remembered is used.
    Recalled,
}

impl Remember {
    /// Reads the file. Whatever is wrong with it is logged, and no reason not to start.
    pub(crate) fn open(path: PathBuf) -> Arc<Self> {
        let mut inner = Inner::default();
        match disk::read(&path, MOST) {
            Ok(None) => {}
            Ok(Some(text)) => match text::read(&text) {
                Ok(memory) => inner.take(memory, now()),
                Err(Unread::Foreign) => {
                    inner.foreign = true;
                    inner.error = Some("it is somebody else's, and left alone".to_owned());
                }
                Err(Unread::Damaged(what)) => inner.error = Some(format!("it is ignored: {what}")),
            },
            Err(error) => inner.error = Some(format!("it cannot be read: {error}")),
        }
        if let Some(error) = &inner.error {
            let file = path.display();
            tracing::warn!(%file, error, "nothing is remembered of the process before this one");
        }
        Arc::new(Self {
            path,
            inner: Mutex::new(inner),
            writing: Mutex::default(),
        })
    }

    /// What was learned by the process before this one.
    pub(crate) fn learned(&self) -> Option<Snapshot> {
        self.lock().learned.take()
    }

    /// `source`, whose endpoints are remembered when it does not answer in the beginning.
    pub(crate) fn over(self: &Arc<Self>, source: Arc<dyn Resolve>, clock: &Clock) -> impl Resolve {
        Remembered {
            inner: source,
            remember: Arc::clone(self),
            clock: clock.clone(),
        }
    }

    pub(crate) fn status(&self) -> RememberStatus {
        let inner = self.lock();
        RememberStatus {
            services: inner.known.len(),
            error: inner.error.clone(),
        }
    }

    /// How old the endpoints of `service` are, if they are remembered ones.
    pub(crate) fn recalled(&self, service: &ServiceName) -> Option<Duration> {
        let inner = self.lock();
        let recalled = matches!(inner.heard.get(service), Some(Heard::Recalled));
        let known = inner.known.get(service).filter(|_| recalled)?;
        Some(age(known, now()))
    }

    /// Writes what is known now and then, as long as the mesh is there.
    pub(crate) async fn keep(self: Arc<Self>, clock: Clock, services: Weak<Services>) {
        loop {
            clock.sleep(EVERY).await;
            let Some(services) = services.upgrade() else {
                return;
            };
            self.save(&services.all()).await;
        }
    }

    /// Writes what is known. Dropped half-way, it is written all the same.
    pub(crate) async fn save(self: &Arc<Self>, services: &[Arc<State>]) {
        let Some(memory) = self.lock().collect(services, now()) else {
            return;
        };
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || this.write(&memory));
        // It does not panic; and where the runtime ends, nobody waits for it.
        let _ = written.await;
    }

    fn write(&self, memory: &Memory) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = text::write(memory)
            .and_then(|text| disk::replace(&self.path, &text).map_err(|error| error.to_string()));
        let error = written
            .err()
            .map(|error| format!("it cannot be written: {error}"));
        let mut inner = self.lock();
        if error.is_some() && error != inner.error {
            let file = self.path.display();
            tracing::warn!(%file, error, "what is known would not survive a restart");
        }
        inner.error = error;
    }

    /// What is remembered of `service`, unless its source has answered in this process.
    fn offer(&self, service: &ServiceName) -> Option<Offer> {
        let inner = self.lock();
        if let Some(Heard::Answering | Heard::Failing(_)) = inner.heard.get(service) {
            return None;
        }
        let known = inner.known.get(service)?;
        let age = age(known, now());
        (age < OLDEST).then(|| (known.endpoints(), age))
    }

    fn answering(&self, service: &ServiceName) {
        let mut inner = self.lock();
        inner.heard.insert(service.clone(), Heard::Answering);
    }

    fn failing(&self, service: &ServiceName) {
        if let Some(heard @ Heard::Answering) = self.lock().heard.get_mut(service) {
            *heard = Heard::Failing(now());
        }
    }

    fn serving(&self, service: &ServiceName) {
        let mut inner = self.lock();
        inner.heard.insert(service.clone(), Heard::Recalled);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, memory: Memory, now: u64) {
        let services = memory.services.into_iter();
        // Names that none is are somebody's accident, and nobody would ask for them.
        let named =
            services.filter_map(|(name, known)| Some((ServiceName::new(&name).ok()?, known)));
        self.known = named
            .filter(|(_, known)| age(known, now) < OLDEST)
            .collect();
        self.learned = Some(memory.learned);
    }

    /// What is to be written, if anything.
    fn collect(&mut self, services: &[Arc<State>], now: u64) -> Option<Memory> {
        // Who is not in use any more comes to nobody's mind again.
        let in_use: BTreeMap<_, _> = services.iter().map(|state| (state.name(), state)).collect();
        self.heard.retain(|name, _| in_use.contains_key(name));
        for (name, state) in in_use {
            let confirmed = match self.heard.get(name) {
                Some(Heard::Answering) => now,
                Some(Heard::Failing(since)) => *since,
                Some(Heard::Recalled) | None => continue,
            };
            let set = state.endpoints().current();
            match set.resolution() {
                Resolution::Pending => {}
                Resolution::Found if !set.endpoints().is_empty() => {
                    let known = Known::new(confirmed, set.endpoints());
                    self.known.insert(name.clone(), known);
                }
                Resolution::Found | Resolution::Absent => drop(self.known.remove(name)),
            }
        }
        self.known.retain(|_, known| age(known, now) < OLDEST);
        let learned = Snapshot::of(services);
        if self.foreign || (self.known.is_empty() && services.is_empty()) {
            return None;
        }
        let known = self.known.iter();
        Some(Memory {
            learned,
            services: known
                .map(|(name, known)| (name.to_string(), known.clone()))
                .collect(),
        })
    }
}

/// How long ago the registry stood by it. A clock that was set back in between makes nothing older.
fn age(known: &Known, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(known.confirmed))
}

#[cfg(test)]
mod tests {
    use tower_mesh_core::Endpoint;

    use super::*;

    #[test]
    fn endpoints_are_forgotten_a_day_after_the_registry_stood_by_them() {
        let day = OLDEST.as_millis() as u64;
        let known = Known::new(1_000, &[Endpoint::new(([10, 0, 0, 1], 80).into())]);
        let after = |time: u64| {
            let services = BTreeMap::from([("orders".to_owned(), known.clone())]);
            let mut inner = Inner::default();
            let learned = Snapshot::default();
            inner.take(Memory { learned, services }, 1_000 + time);
            let first = inner.known.len();
            // Nobody has heard of it since: that it is written again makes it no younger.
            let left = inner.collect(&[], 1_000 + time);
            (first, left.map_or(0, |memory| memory.services.len()))
        };
        assert_eq!(after(day - 1), (1, 1));
        assert_eq!(after(day), (0, 0));
    }
}
