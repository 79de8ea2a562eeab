//! Between clients and servers: what is sent, and what comes back.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tower_mesh_core::{Instant, Rng};
use tower_service::Service;

use crate::{
    event::{Event, Events},
    policy::Call,
    server::{Begun, Machine, Reached, Speeds},
    work::Work,
};

/// What a client calls a server by; each call of it is one attempt.
///
/// # Clone
///
/// A clone leads to the same server.
#[derive(Clone)]
pub struct Connection {
    wire: Arc<Wire>,
    server: usize,
}

impl Connection {
    pub(crate) fn new(wire: &Arc<Wire>, server: usize) -> Self {
        let wire = Arc::clone(wire);
        Self { wire, server }
    }

    /// The number of the server it leads to.
    pub fn server(&self) -> usize {
        self.server
    }

    /// Sends one attempt to the server: what [`Service::call`] does, for those who have no [`Call`] at hand.
    pub fn send(&self) -> Exchange {
        let attempt = self.wire.lock().send(self.server);
        self.exchange(attempt)
    }

    /// Asks the server how busy it is: this takes no slot, and no time but that on the wire.
    ///
    /// A server that fails answers such questions all the same; one that hangs or stands still never does.
    pub fn probe(&self) -> Exchange {
        let attempt = self.wire.lock().probe(self.server);
        self.exchange(attempt)
    }

    fn exchange(&self, attempt: usize) -> Exchange {
        Exchange {
            wire: Arc::clone(&self.wire),
            attempt: Some(attempt),
        }
    }
}

impl Service<Call> for Connection {
    type Response = Answer;
    type Error = Failed;
    type Future = Exchange;

    /// Always ready: servers have queues.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Exchange {
        self.send()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The answer of a server, with what a server may say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The number of the server.
    pub server: usize,
    /// Calls that are left at the server, this one aside.
    pub in_flight: usize,
    /// How long the call was at the server, its wait for a slot included.
    pub took: Duration,
    /// How long the server thinks that a call would be there which came now; zero if it cannot tell yet.
    pub outlook: Duration,
}

/// A server answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    server: usize,
}

impl Failed {
    /// The number of the server.
    pub fn server(&self) -> usize {
        self.server
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} answered with an error", self.server)
    }
}

impl Error for Failed {}

/// The future of one attempt.
///
/// # Cancel safety
///
/// Dropping it gives the attempt up; the server goes on with it all the same.
#[must_use = "futures do nothing unless polled"]
pub struct Exchange {
    wire: Arc<Wire>,
    /// Nothing once it has been answered.
    attempt: Option<usize>,
}

impl Future for Exchange {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let attempt = self.attempt.expect("polled after completion");
        let mut state = self.wire.lock();
        let entry = &mut state.attempts[attempt];
        if let Stage::Arrived(answer) = entry.stage {
            state.attempts.remove(attempt);
            drop(state);
            self.attempt = None;
            return Poll::Ready(answer);
        }
        let known = entry.waker.as_ref();
        if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {
            let old = entry.waker.replace(cx.waker().clone());
            drop(state);
            drop(old); // Outside the lock: dropping a waker may run user code.
        }
        Poll::Pending
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            let waker = self.wire.lock().give_up(attempt);
            drop(waker);
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// All servers, and all that is on its way to and from them.
pub(crate) struct Wire(Mutex<State>);

pub(crate) struct State {
    pub(crate) now: Instant,
    pub(crate) events: Events,
    pub(crate) servers: Vec<Machine>,
    /// What came of the attempts at each server since the last reset.
    pub(crate) tried: Vec<Tried>,
    attempts: Slab<Attempt>,
    delay: Duration,
    work: Work,
    /// What second attempts are drawn from.
    rng: Rng,
    /// The work of the call that is being polled, until its first attempt takes it.
    pub(crate) current: Option<f64>,
    begun: Vec<Begun>,
}

/// What came of the attempts at one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    pub(crate) answers: u64,
    pub(crate) unheard: u64,
}

struct Attempt {
    server: usize,
    /// Nothing for a question.
    work: Option<f64>,
    reached: Instant,
    stage: Stage,
    waker: Option<Waker>,
    given_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// On its way, or at the server.
    Sent,
    /// At a server that never answers.
    Lost,
    /// The answer is on its way.
    Answered(Result<Answer, Failed>),
    Arrived(Result<Answer, Failed>),
}

impl Wire {
    pub(crate) fn new(
        now: Instant,
        servers: Vec<Machine>,
        delay: Duration,
        work: Work,
        rng: Rng,
    ) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            now,
            events: Events::default(),
            tried: vec![Tried::default(); servers.len()],
            servers,
            attempts: Slab::new(),
            delay,
            work,
            rng,
            current: None,
            begun: Vec::new(),
        })))
    }

    // Nobody else has it at any time: the simulation has one thread. The lock is for services that have to be `Sync`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.events.schedule(self.now + after, event);
    }

    fn send(&mut self, server: usize) -> usize {
        let drawn = self.current.take();
        let work = drawn.unwrap_or_else(|| self.work.draw(&self.rng));
        self.tried[server].attempts += 1;
        self.insert(server, Some(work))
    }

    fn probe(&mut self, server: usize) -> usize {
        self.insert(server, None)
    }

    fn insert(&mut self, server: usize, work: Option<f64>) -> usize {
        let attempt = self.attempts.insert(Attempt {
            server,
            work,
            reached: self.now,
            stage: Stage::Sent,
            waker: None,
            given_up: false,
        });
        self.schedule(self.delay, Event::Reaches { attempt });
        attempt
    }

    pub(crate) fn reaches(&mut self, attempt: usize) {
        let this = &mut self.attempts[attempt];
        this.reached = self.now;
        let server = this.server;
        let Some(work) = this.work else {
            return self.tell(attempt, server);
        };
        let begun = &mut self.begun;
        match self.servers[server].take(attempt, work, self.now, begun) {
            Reached::Taken => self.foretell(server),
            Reached::Refused(after) => {
                self.tried[server].failures += 1;
                self.answer(attempt, after, Err(Failed { server }));
            }
            Reached::Lost => self.lost(attempt),
        }
    }

    /// Answers a question.
    fn tell(&mut self, attempt: usize, server: usize) {
        let machine = &self.servers[server];
        if machine.is_silent() {
            return self.lost(attempt);
        }
        let answer = Answer {
            server,
            in_flight: machine.in_flight.level(),
            took: Duration::ZERO,
            outlook: machine.outlook(),
        };
        self.answer(attempt, Duration::ZERO, Ok(answer));
    }

    pub(crate) fn leaves(&mut self, server: usize, attempt: usize, epoch: u64) {
        let machine = &mut self.servers[server];
        if !machine.finish(attempt, epoch, self.now, &mut self.begun) {
            return;
        }
        let answer = Answer {
            server,
            in_flight: machine.in_flight.level(),
            took: self.now.since(self.attempts[attempt].reached),
            outlook: machine.outlook(),
        };
        self.foretell(server);
        self.tried[server].answers += 1;
        self.tried[server].unheard += u64::from(self.attempts[attempt].given_up);
        self.answer(attempt, Duration::ZERO, Ok(answer));
    }

    fn answer(&mut self, attempt: usize, after: Duration, answer: Result<Answer, Failed>) {
        self.attempts[attempt].stage = Stage::Answered(answer);
        self.schedule(after + self.delay, Event::Answered { attempt });
    }

    /// The answer has come: whoever waits for it is to be woken, outside the lock.
    #[must_use]
    pub(crate) fn answered(&mut self, attempt: usize) -> Option<Waker> {
        let this = &mut self.attempts[attempt];
        if this.given_up {
            self.attempts.remove(attempt);
            return None;
        }
        if let Stage::Answered(answer) = this.stage {
            this.stage = Stage::Arrived(answer);
        }
        this.waker.take()
    }

    fn lost(&mut self, attempt: usize) {
        let this = &mut self.attempts[attempt];
        this.stage = Stage::Lost;
        if this.given_up {
            self.attempts.remove(attempt);
        }
    }

    #[must_use]
    fn give_up(&mut self, attempt: usize) -> Option<Waker> {
        let this = &mut self.attempts[attempt];
        this.given_up = true;
        let waker = this.waker.take();
        // Nothing will come back that could clear it away.
        if matches!(this.stage, Stage::Lost | Stage::Arrived(_)) {
            self.attempts.remove(attempt);
        }
        waker
    }

    /// How many attempts are under way, given up or not.
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.len()
    }

    pub(crate) fn change(&mut self, server: usize, change: impl FnOnce(&mut Speeds<'_>)) {
        self.servers[server].change(self.now, &mut self.begun, change);
        self.foretell(server);
    }

    /// Schedules the ends of what `server` has begun.
    fn foretell(&mut self, server: usize) {
        while let Some(Begun {
            attempt,
            done_in,
            epoch,
        }) = self.begun.pop()
        {
            let leaves = Event::Leaves {
                server,
                attempt,
                epoch,
            };
            self.schedule(done_in, leaves);
        }
    }
}
