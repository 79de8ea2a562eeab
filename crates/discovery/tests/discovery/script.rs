//! A source that says what the test tells it to, and what the tests share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::stream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tower_mesh_core::{
    BoxError, Clock, Empties, Endpoint, Endpoints, Kind, Refusal, Resolve, ResolveError,
    ServiceName, Update, Updates,
};
use tower_mesh_discovery::{Builder, Discovery, Driver, ServiceStatus};

/// What a look-up brings.
#[derive(Debug)]
pub(crate) enum Say {
    Update(Update),
    Fail(&'static str),
    End,
    /// Panics when polled, and again when dropped.
    Panic,
    /// Panics instead of giving a stream.
    PanicAtOnce,
}

/// Clones are one source.
#[derive(Clone)]
pub(crate) struct Script {
    lines: Arc<Mutex<HashMap<ServiceName, Line>>>,
    /// What a look-up of any service brings for which nothing is scripted.
    otherwise: fn() -> Option<Say>,
    empties: Empties,
}

#[derive(Default)]
struct Line {
    lookups: usize,
    next: VecDeque<Say>,
    open: Option<UnboundedSender<Say>>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            lines: Arc::default(),
            otherwise: || None,
            empties: Empties::Authoritative,
        }
    }

    pub(crate) fn suspect() -> Self {
        Self {
            empties: Empties::Suspect,
            ..Self::new()
        }
    }

    pub(crate) fn otherwise(otherwise: fn() -> Option<Say>) -> Self {
        Self {
            otherwise,
            ..Self::new()
        }
    }

    /// Says it to the look-up that is under way, or else to the next.
    pub(crate) fn say(&self, service: &ServiceName, say: Say) {
        let mut lines = self.lines.lock().unwrap();
        let line = lines.entry(service.clone()).or_default();
        match &line.open {
            Some(open) if !open.is_closed() => {
                let ends = matches!(say, Say::End | Say::Panic);
                open.send(say).unwrap();
                if ends {
                    line.open = None;
                }
            }
            _ => line.next.push_back(say),
        }
    }

    pub(crate) fn replace(&self, service: &ServiceName, endpoints: &[Endpoint]) {
        self.say(service, Say::Update(Update::Replace(endpoints.to_vec())));
    }

    pub(crate) fn patch(&self, service: &ServiceName, upsert: &[Endpoint], remove: &[&str]) {
        let update = Update::Patch {
            upsert: upsert.to_vec(),
            remove: remove.iter().map(|id| (*id).into()).collect(),
        };
        self.say(service, Say::Update(update));
    }

    pub(crate) fn lookups(&self, service: &ServiceName) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.get(service).map_or(0, |line| line.lookups)
    }

    /// How many look-ups are under way, of all services.
    pub(crate) fn open(&self) -> usize {
        let lines = self.lines.lock().unwrap();
        let open = |line: &&Line| line.open.as_ref().is_some_and(|open| !open.is_closed());
        lines.values().filter(open).count()
    }
}

impl Resolve for Script {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let (send, mut receive) = unbounded_channel();
        let panics = {
            let mut lines = self.lines.lock().unwrap();
            let line = lines.entry(service.clone()).or_default();
            line.lookups += 1;
            let panics = matches!(line.next.front(), Some(Say::PanicAtOnce));
            if panics {
                line.next.pop_front();
            }
            let mut open = true;
            if line.next.is_empty() {
                line.next.extend((self.otherwise)());
            }
            while open && let Some(say) = line.next.pop_front() {
                open = !matches!(say, Say::End | Say::Panic);
                send.send(say).unwrap();
            }
            line.open = open.then_some(send);
            panics
        };
        assert!(!panics, "no stream for you");
        let mut dies = PanicsWhenDropped(false);
        Box::pin(stream::poll_fn(move |cx| {
            let dies = &mut dies; // All of it, not the flag alone.
            receive.poll_recv(cx).map(|say| match say {
                Some(Say::Update(update)) => Some(Ok(update)),
                Some(Say::Fail(why)) => Some(Err(ResolveError::new(why))),
                Some(Say::Panic | Say::PanicAtOnce) => {
                    dies.0 = true;
                    panic!("the registry's client has a bug")
                }
                Some(Say::End) | None => None,
            })
        }))
    }

    fn empties(&self) -> Empties {
        self.empties
    }

    fn name(&self) -> &'static str {
        "script"
    }
}

struct PanicsWhenDropped(bool);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(
            !self.0 || std::thread::panicking(),
            "a bug in a destructor, too"
        );
    }
}

/// Spawns the driver on the runtime of the test.
pub(crate) fn start<R: Resolve>(builder: Builder<R>) -> Discovery {
    let (discovery, driver): (Discovery, Driver) = builder.build();
    tokio::spawn(driver);
    discovery
}

pub(crate) fn name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn orders() -> ServiceName {
    name("orders")
}

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([127, 0, 0, 1], port).into())
}

pub(crate) fn ports(endpoints: &Endpoints) -> Vec<u16> {
    let set = endpoints.current();
    set.endpoints().iter().map(|e| e.address().port()).collect()
}

pub(crate) fn status_of(discovery: &Discovery, service: &ServiceName) -> ServiceStatus {
    let mut all = discovery.status();
    all.retain(|status| status.service == *service);
    all.pop().expect("it is followed")
}

/// Lets time pass, and all that is due happen.
pub(crate) async fn pass(time: Duration) {
    Clock::tokio().sleep(time).await;
}

pub(crate) async fn moment() {
    pass(Duration::from_millis(10)).await;
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn kind(error: &BoxError) -> Kind {
    Refusal::of(&**error).expect("a refusal").kind()
}
