//! The services that were called through one client, bounded and let go when nobody calls them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use http::{Uri, uri::Scheme};
use tower_mesh_core::{Clock, Kind, Refusal, Resolution, ServiceName};

use crate::{error::Error, mesh::Mesh, service::MeshService, stacks::lock, tasks::Held};

/// More services than that through one client is somebody calling names out of requests.
const MOST: usize = 1_024;

/// A service is let go that nobody has called for so long, or up to twice that. Long enough for what is learned of an endpoint
/// to outlive a pause; connections are closed long before.
const IDLE: Duration = Duration::from_secs(600);

type Targets<S> = BTreeMap<Box<str>, Arc<Target<S>>>;

/// What was called, as it was when it was looked at.
pub(super) type Seen<S> = Guard<Arc<Targets<S>>>;

type Make<S> = Box<dyn Fn(&Mesh, &str) -> Result<MeshService<S>, Error> + Send + Sync>;

/// What the clones of a client share.
pub(super) struct Shared<S> {
    pub(super) mesh: Mesh,
    make: Make<S>,
    /// By what stands in a URI. Replaced as a whole, so that nobody who reads it waits. A tree, as nobody has to be kept from
    /// choosing names that collide, and a few names are compared sooner than one is hashed.
    targets: ArcSwap<Targets<S>>,
    /// Taken by who replaces them.
    changing: Mutex<()>,
}

pub(super) struct Target<S> {
    pub(super) service: MeshService<S>,
    /// A clone, for whoever has it first: to clone one for each call and drop it again takes longer than this lock, for which
    /// nobody waits.
    pub(super) spare: Mutex<MeshService<S>>,
    secure: bool,
    /// Since it was last looked at.
    used: AtomicBool,
}

impl<S: Clone + Send + Sync + 'static> Shared<S> {
    pub(super) fn new(
        mesh: &Mesh,
        make: impl Fn(&Mesh, &str) -> Result<MeshService<S>, Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            mesh: mesh.clone(),
            make: Box::new(make),
            targets: ArcSwap::default(),
            changing: Mutex::default(),
        })
    }

    /// Lets go of services as long as what it returns is held. Not by what is shared itself: the task could be the last to
    /// drop that, and must not end itself.
    pub(super) fn sweeping(self: &Arc<Self>) -> Arc<Held> {
        let core = &self.mesh.core;
        let sweep = sweep(Arc::downgrade(self), core.clock.clone());
        Arc::new(core.tasks.spawn_held(sweep))
    }

    /// What was called so far; no lock, no allocation.
    pub(super) fn seen(&self) -> Seen<S> {
        self.targets.load()
    }

    /// The service of a name that was checked, called before or not.
    pub(super) fn target(&self, name: &str, uri: &Uri) -> Result<Arc<Target<S>>, Error> {
        let known = self.targets.load().get(name).cloned();
        let target = match known {
            Some(target) if !target.service.is_outdated() => target,
            _ => self.add(name)?,
        };
        target.touch();
        if target.fits(uri) {
            return Ok(target);
        }
        let plain = "it is called in plain text, and https was asked for: set `tls` for it, or ask for http";
        let refusal = Refusal::local(Kind::ServiceNotFound).with_context(plain);
        Err(Error::refused(target.service.name(), refusal))
    }

    fn add(&self, name: &str) -> Result<Arc<Target<S>>, Error> {
        let service = (self.make)(&self.mesh, name)?;
        let target = Arc::new(Target {
            secure: self.mesh.core.secure.is_secure(service.name()),
            used: AtomicBool::new(true),
            spare: Mutex::new(service.clone()),
            service,
        });
        let gone = {
            let _changing = lock(&self.changing);
            let mut targets = BTreeMap::clone(&self.targets.load());
            let mut gone = Vec::new();
            if targets.len() >= MOST && !targets.contains_key(name) {
                // Whoever names services that do not exist makes room first, then who was not called of late.
                gone = take(&mut targets, |target| target.is_unknown());
                if gone.is_empty() {
                    gone = take(&mut targets, |target| !target.used.load(Ordering::Relaxed));
                }
                if gone.is_empty() {
                    let full = Refusal::local(Kind::Overloaded)
                        .with_context(format!("{MOST} services are called through one client"));
                    return Err(Error::refused(target.service.name(), full));
                }
            }
            targets.insert(name.into(), Arc::clone(&target));
            self.targets.store(Arc::new(targets));
            gone
        };
        self.forget(gone);
        Ok(target)
    }

    /// Lets go of what was not called since it was last asked.
    fn sweep(&self) {
        let gone = {
            let _changing = lock(&self.changing);
            let mut targets = BTreeMap::clone(&self.targets.load());
            let gone = take(&mut targets, |target| {
                !target.used.swap(false, Ordering::Relaxed)
            });
            if !gone.is_empty() {
                self.targets.store(Arc::new(targets));
            }
            gone
        };
        self.forget(gone);
    }

    /// Outside of the lock: what is dropped may be a user's.
    fn forget(&self, gone: Vec<Arc<Target<S>>>) {
        for target in gone {
            let name: ServiceName = target.service.name().clone();
            drop(target);
            self.mesh.services.let_go(&name);
        }
    }
}

/// The service that `uri` names, if it was called before and nothing has changed since.
pub(super) fn find<'a, S>(seen: &'a Seen<S>, uri: &Uri) -> Option<&'a Target<S>> {
    let target = seen.get(uri.authority()?.as_str())?;
    if !target.fits(uri) || target.service.is_outdated() {
        return None;
    }
    target.touch();
    Some(target)
}

impl<S> Target<S> {
    fn touch(&self) {
        // Looked at first: a write would take the line away from all other processors.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Nobody gets plain text who has asked for https.
    fn fits(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme();
        scheme == Some(&Scheme::HTTP) || self.secure && scheme == Some(&Scheme::HTTPS)
    }

    fn is_unknown(&self) -> bool {
        self.service.endpoints().resolution() == Resolution::Absent
    }
}

fn take<S>(targets: &mut Targets<S>, which: impl Fn(&Target<S>) -> bool) -> Vec<Arc<Target<S>>> {
    let mut gone = Vec::new();
    targets.retain(|_, target| {
        let goes = which(target);
        if goes {
            gone.push(Arc::clone(target));
        }
        !goes
    });
    gone
}

async fn sweep<S: Clone + Send + Sync + 'static>(shared: Weak<Shared<S>>, clock: Clock) {
    loop {
        clock.sleep(IDLE).await;
        match shared.upgrade() {
            Some(shared) => shared.sweep(),
            None => return,
        }
    }
}
