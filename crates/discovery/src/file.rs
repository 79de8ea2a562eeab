//! Endpoints out of files that people, editors and orchestrators write.

mod files;
mod follow;
mod settle;
mod stamp;
pub(crate) mod text;

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tower_mesh_core::{Clock, Empties, Instant, Resolve, ServiceName, Updates};

use self::{
    files::{Files, Told},
    follow::Following,
};

/// Endpoints that a file, or the files of a directory, name; a change is seen while the program runs.
///
/// A file is TOML (`*.toml`) or JSON (`*.json`): for each service its endpoints, as in `[discovery.endpoints]` of the
/// mesh's configuration.
///
/// ```toml
/// orders = [
///   { address = "10.0.0.7:8080", weight = 3, zone = "eu-1a", tags = ["canary"] },
///   { address = "10.0.0.8:8080", id = "orders-8", priority = 1, metadata = { version = "2" } },
/// ]
/// carts = []          # it exists, and has no endpoints
/// ```
///
/// Of a directory all such files count whose name does not begin with a dot, in the order of their names; a service
/// may stand in several. A weight is a whole number from 0, which drains, to 65,535. Unknown keys are errors.
///
/// # What happens to a change
///
/// The files are looked at each second ([`every`](Self::every)), by path: editors, deployments and Kubernetes do not
/// write a file, they put another in its place. What has changed is read once it has been the same for a quarter of
/// that time, so half of a file is rarely read, and never kept.
///
/// - A file that cannot be understood changes nothing; the error says the file, the line and the key.
/// - A file that vanishes takes nothing away either, and that is an error until it is back: somebody may be in the
///   middle of replacing it. To take endpoints away, write an empty list; it is obeyed at once.
/// - A service that no file names any more does not exist.
/// - Files of more than 32 MiB in all ([`max_bytes`](Self::max_bytes)), more than 100,000 endpoints in all
///   ([`max_endpoints`](Self::max_endpoints)) or more than 1,000 files are refused.
///
/// The same id or address twice, and addresses at which nothing can listen, are
/// [discovery's](crate#what-happens-to-an-update) to judge.
///
/// # Clone
///
/// Clones share what was read, and look once for all.
///
/// # Panics
///
/// Following a service needs tokio's runtime: files are read where blocking is allowed.
///
/// # Example
///
/// ```no_run
/// use tower_mesh_discovery::{Discovery, File};
///
/// let (discovery, driver) = Discovery::builder(File::new("/etc/mesh/endpoints.toml")).build();
/// ```
#[derive(Clone)]
pub struct File {
    clock: Clock,
    every: Duration,
    limits: Limits,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes: u64,
    endpoints: usize,
}

struct Shared {
    path: PathBuf,
    told: watch::Sender<Told>,
    /// Locked by the one who looks, for as long as he looks.
    files: Mutex<Files>,
    /// Somebody looks.
    looking: AtomicBool,
    /// When to look next.
    due: Mutex<Instant>,
}

impl File {
    /// The endpoints of the file at `path`, or of the files in the directory at `path`.
    ///
    /// It need not be there yet: that is an error until it is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let shared = Shared {
            path: path.into(),
            told: watch::Sender::new(Told::default()),
            files: Mutex::default(),
            looking: AtomicBool::new(false),
            due: Mutex::new(Instant::from_nanos(0)),
        };
        Self {
            clock: Clock::default(),
            every: Duration::from_secs(1),
            limits: Limits {
                bytes: 32 << 20,
                endpoints: 100_000,
            },
            shared: Arc::new(shared),
        }
    }

    /// How often to look; each second unless said otherwise, at least 10 ms.
    ///
    /// A look costs a few system calls for each file. Notifications of the operating system would be sooner, but do not
    /// come from network file systems and not through all mounts of containers.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(10));
        self
    }

    /// How large the files may be, in all and in bytes; 32 MiB unless said otherwise.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// How many endpoints the files may name in all; 100,000 unless said otherwise.
    #[must_use]
    pub fn max_endpoints(mut self, most: NonZeroUsize) -> Self {
        self.limits.endpoints = most.get();
        self
    }

    /// Takes time and timers from `clock`; tokio's unless said otherwise.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The file or the directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Begins to look if it is time to; when it is time again.
    fn look_if_due(&self) -> Instant {
        let now = self.clock.now();
        let mut due = lock(&self.shared.due);
        if now >= *due {
            *due = now + self.every;
            if !self.shared.looking.swap(true, Ordering::AcqRel) {
                let this = self.clone();
                tokio::task::spawn_blocking(move || this.look());
            }
        }
        *due
    }

    fn look(&self) {
        let shared = &self.shared;
        let looked = lock(&shared.files).look(&shared.path, self.limits);
        if looked.again_soon {
            // From now, not from when it began: what has changed must have had time to change again.
            *lock(&shared.due) = self.clock.now() + self.every / 4;
        }
        shared.looking.store(false, Ordering::Release);
        shared.told.send_if_modified(|told| {
            let news = *told != looked.told;
            *told = looked.told;
            // Who follows has set its timer for a later look.
            news || looked.again_soon
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resolve for File {
    fn resolve(&self, service: &ServiceName) -> Updates {
        Following::start(self.clone(), service.clone())
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "file"
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.shared.path)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}
