//! Endpoints whose behaviour the test decides.

use std::{
    collections::HashMap,
    future::{pending, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_mesh_balance::{Balance, BalanceLayer, SlowStart};
use tower_mesh_core::{
    BoxError, Clock, Endpoint, Endpoints, Instant, Judge, JudgeKind, Outcome, Resolution, Rng,
    ServiceName, Shut, Standing, Ticket,
};

/// What an endpoint does with a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Does {
    #[default]
    Answer,
    AnswerAfter(Duration),
    Fail,
    Hang,
    PanicInCall,
    PanicInPoll,
    PanicInReady,
    /// Becomes ready when it does something else.
    NotReady,
    FailReady,
}

/// What has happened at an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) made: usize,
    pub(crate) ready_polls: usize,
    pub(crate) calls: usize,
}

#[derive(Default)]
struct State {
    does: HashMap<u16, Does>,
    seen: HashMap<u16, Seen>,
    wakers: Vec<Waker>,
}

/// The endpoints, by port.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) endpoints: Endpoints,
    pub(crate) clock: Clock,
    state: Arc<Mutex<State>>,
}

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into())
}

pub(crate) fn name() -> ServiceName {
    ServiceName::new("orders").unwrap()
}

impl Fleet {
    pub(crate) fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self::of(ports.into_iter().map(endpoint))
    }

    pub(crate) fn of(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            endpoints: Endpoints::fixed(name(), endpoints),
            clock: Clock::tokio(),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// From now on, what the endpoint at `port` does.
    pub(crate) fn let_it(&self, port: u16, does: Does) {
        let wakers = {
            let mut state = self.state();
            state.does.insert(port, does);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn seen(&self, port: u16) -> Seen {
        self.state().seen.get(&port).copied().unwrap_or_default()
    }

    pub(crate) fn calls(&self, port: u16) -> usize {
        self.seen(port).calls
    }

    pub(crate) fn layer(&self) -> BalanceLayer {
        // Most tests are not about who is new.
        BalanceLayer::new(self.endpoints.clone())
            .slow_start(SlowStart::OFF)
            .clock(self.clock.clone())
            .rng(Rng::seeded(11))
    }

    /// Makes the service of an endpoint.
    pub(crate) fn connect(&self) -> impl Fn(&Endpoint) -> Backend + Clone + use<> {
        let fleet = self.clone();
        move |endpoint| {
            let port = endpoint.address().port();
            fleet.state().seen.entry(port).or_default().made += 1;
            Backend {
                port,
                fleet: fleet.clone(),
            }
        }
    }

    pub(crate) fn balance(&self) -> Balance<Backend> {
        self.layer().layer(self.connect())
    }

    pub(crate) fn publish(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let old = self.endpoints.current();
        let keep = |new: Endpoint| match old.endpoints().iter().find(|old| **old == new) {
            Some(old) => new.keeping(old),
            None => new,
        };
        let new = endpoints.into_iter().map(keep).collect();
        self.endpoints.publish(Resolution::Found, new);
    }

    pub(crate) fn at(&self, port: u16) -> Endpoint {
        let set = self.endpoints.current();
        let found = set.endpoints().iter().find(|e| e.address().port() == port);
        found.unwrap().clone()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        let set = self.endpoints.current();
        set.endpoints()
            .iter()
            .map(|endpoint| endpoint.vitals().load().in_flight())
            .sum()
    }

    /// Attaches a judge to the endpoint at `port` that says `standing`.
    pub(crate) fn judge(&self, port: u16, standing: Standing) -> Arc<Says> {
        let says = Arc::new(Says::new(standing));
        self.at(port).vitals().attach(JudgeKind::Breaker, |handle| {
            handle.set(true);
            says.clone()
        });
        says
    }
}

/// The service of an endpoint; it answers with its port.
#[derive(Clone)]
pub(crate) struct Backend {
    port: u16,
    fleet: Fleet,
}

#[derive(Debug)]
pub(crate) struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("played failure")
    }
}

impl std::error::Error for Failed {}

impl Service<()> for Backend {
    type Response = u16;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<u16, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let does = {
            let mut state = self.fleet.state();
            state.seen.entry(self.port).or_default().ready_polls += 1;
            let does = state.does.get(&self.port).copied().unwrap_or_default();
            if does == Does::NotReady {
                state.wakers.push(cx.waker().clone());
            }
            does
        };
        match does {
            Does::NotReady => Poll::Pending,
            Does::FailReady => Poll::Ready(Err(Failed.into())),
            Does::PanicInReady => panic!("poll_ready"),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let port = self.port;
        let does = {
            let mut state = self.fleet.state();
            state.seen.entry(port).or_default().calls += 1;
            state.does.get(&port).copied().unwrap_or_default()
        };
        let clock = self.fleet.clock.clone();
        assert!(does != Does::PanicInCall, "call");
        Box::pin(async move {
            match does {
                Does::AnswerAfter(time) => clock.sleep(time).await,
                Does::Hang => pending().await,
                Does::Fail => return Err(Failed.into()),
                Does::PanicInPoll => poll_fn(|_| panic!("poll")).await,
                _ => {}
            }
            Ok(port)
        })
    }
}

/// A judge that says what the test wants, and remembers what it was told.
#[derive(Debug)]
pub(crate) struct Says {
    pub(crate) standing: Mutex<Standing>,
    pub(crate) reports: Mutex<Vec<Outcome>>,
    /// How many more probes it admits.
    pub(crate) places: Mutex<usize>,
}

impl Says {
    pub(crate) fn new(standing: Standing) -> Self {
        Self {
            standing: Mutex::new(standing),
            reports: Mutex::default(),
            places: Mutex::new(usize::MAX),
        }
    }
}

impl Judge for Says {
    fn standing(&self, _: Instant) -> Standing {
        *self.standing.lock().unwrap()
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        let mut places = self.places.lock().unwrap();
        match *self.standing.lock().unwrap() {
            Standing::Shut(shut) => Err(shut),
            _ if *places == 0 => Err(Shut::new(JudgeKind::Breaker, None)),
            _ => {
                *places -= 1;
                Ok(Ticket::new(0, true))
            }
        }
    }

    fn report(&self, _: Ticket, outcome: Outcome, _: Duration, _: Instant) {
        self.reports.lock().unwrap().push(outcome);
    }

    fn release(&self, _: Ticket) {
        *self.places.lock().unwrap() += 1;
    }
}
