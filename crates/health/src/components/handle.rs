//! Who knows how all components are, and who says how one is.

use std::{error::Error, fmt, future::Future, num::NonZeroUsize, sync::Arc, time::Duration};

use tower_mesh_core::{BoxError, Clock, Ratio, Rng};

use crate::{
    components::{
        board::{Ask, Shared},
        driver::ComponentsDriver,
        snapshot::ComponentsSnapshot,
        status::{Criticality, Report, Status},
    },
    schedule::Pace,
    text::bounded,
};

/// Knows how the components of a process are, each and together.
///
/// A component says itself how it is ([`push`](Self::push)), or is asked ([`check`](Self::check)). Until it has said
/// otherwise it is unhealthy, so a process is not ready before its critical components have reported.
///
/// # Clone
///
/// A clone is the same. The driver ends when the last of them is gone.
///
/// # Example
///
/// ```
/// use tower_mesh_health::{Components, Criticality, Report, Status};
///
/// let (components, driver) = Components::builder().build();
/// # drop(driver);
/// let cache = components.push("cache", Criticality::Optional)?;
/// let orders = components.push("orders", Criticality::Critical)?;
/// assert!(!components.ready());
///
/// orders.report(Report::healthy());
/// cache.report(Report::unhealthy("connection refused"));
/// assert!(components.ready());
/// assert_eq!(components.status(), Status::Degraded);
/// # Ok::<(), tower_mesh_health::RegisterError>(())
/// ```
#[derive(Clone)]
pub struct Components(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One component: says how it is. Dropped, the component is no longer there.
#[must_use = "dropping it takes the component away"]
pub struct Component {
    shared: Arc<Shared>,
    name: Arc<str>,
    id: u64,
}

/// How often components are asked; from [`Components::builder`].
#[derive(Debug)]
#[must_use = "it makes nothing before `build`"]
pub struct ComponentsBuilder {
    pace: Pace,
    capacity: usize,
    clock: Clock,
    rng: Rng,
}

impl Components {
    /// Begins with no components.
    pub fn builder() -> ComponentsBuilder {
        ComponentsBuilder {
            pace: Pace {
                interval: Duration::from_secs(10),
                jitter: Ratio::percent(10),
                // A process that starts waits for them.
                first: Duration::ZERO,
                limit: Duration::from_secs(1),
                at_once: 32,
            },
            capacity: 256,
            clock: Clock::default(),
            rng: Rng::default(),
        }
    }

    /// Adds a component that says itself how it is.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if there is one of this name, or there are too many.
    pub fn push(&self, name: &str, criticality: Criticality) -> Result<Component, RegisterError> {
        self.insert(name, criticality, None)
    }

    /// Adds a component that is asked: `check` takes nothing and gives a future of a [`Report`], or of `()` if it has no
    /// more to say than that all is well. One that gives an error, panics or hangs is unhealthy.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if there is one of this name, or there are too many.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when its time is over, or the component goes.
    pub fn check<F, A, R, E>(
        &self,
        name: &str,
        criticality: Criticality,
        check: F,
    ) -> Result<Component, RegisterError>
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Report>,
        E: Into<BoxError>,
    {
        let ask: Ask = Arc::new(move || {
            let answer = check();
            Box::pin(async move { answer.await.map(Into::into).map_err(Into::into) })
        });
        self.insert(name, criticality, Some(ask))
    }

    fn insert(
        &self,
        name: &str,
        criticality: Criticality,
        ask: Option<Ask>,
    ) -> Result<Component, RegisterError> {
        let shared = Arc::clone(&self.0.0);
        let name = bounded(name);
        let error = |full| RegisterError {
            name: Arc::clone(&name),
            full,
        };
        let full = Some(shared.capacity);
        let id = shared.insert(&name, criticality, ask, || error(full), || error(None))?;
        Ok(Component { shared, name, id })
    }

    /// How all of them are together: as the worst of the critical ones; what is optional makes it degraded at worst.
    /// Without any it is healthy.
    pub fn status(&self) -> Status {
        self.0.0.overall().0
    }

    /// Whether the process can do its work: no critical component is unhealthy.
    pub fn ready(&self) -> bool {
        self.0.0.overall().1
    }

    /// How each of them is, of one moment.
    pub fn snapshot(&self) -> ComponentsSnapshot {
        self.0.0.snapshot()
    }
}

impl Component {
    /// Says how it is. For a component that is asked, until it is asked again.
    pub fn report(&self, report: Report) {
        self.shared.report(self.id, report);
    }

    /// Its name; cut to 256 bytes.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.shared.remove(self.id);
    }
}

impl ComponentsBuilder {
    /// The time from the end of one check of a component to the beginning of the next; 10 s unless said, as for
    /// endpoints. At least 1 ms.
    pub fn interval(mut self, time: Duration) -> Self {
        self.pace.interval = time.max(Duration::from_millis(1));
        self
    }

    /// A check that has not answered after this time has failed; 1 s unless said.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.pace.limit = time;
        self
    }

    /// So many checks are under way at once at most; 32 unless said.
    pub fn at_once(mut self, checks: NonZeroUsize) -> Self {
        self.pace.at_once = checks.get();
        self
    }

    /// How many components there may be; 256 unless said.
    pub fn capacity(mut self, components: usize) -> Self {
        self.capacity = components;
        self
    }

    /// Takes time from `clock`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes jitter from `rng`.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// The handle, and the driver that asks.
    pub fn build(self) -> (Components, ComponentsDriver) {
        let shared = Shared::new(self.clock, self.rng, self.pace, self.capacity);
        let driver = ComponentsDriver::new(Arc::clone(&shared));
        (Components(Arc::new(Handle(shared))), driver)
    }
}

/// A component cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterError {
    name: Arc<str>,
    /// How many there may be, if that is why.
    full: Option<usize>,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.full {
            Some(most) => write!(f, "component {name}: there are {most} already (capacity)"),
            None => write!(f, "component {name}: there is one of this name"),
        }
    }
}

impl Error for RegisterError {}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, ready) = self.0.0.overall();
        f.debug_struct("Components")
            .field("status", &status)
            .field("ready", &ready)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Component").field(&self.name).finish()
    }
}
