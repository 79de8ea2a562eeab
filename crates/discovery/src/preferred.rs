//! Several sources, in order of preference.

mod choice;
mod part;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tower_mesh_core::{
    Clock, Empties, Instant, Resolve, ResolveError, Rng, ServiceName, Sleep, Update, Updates,
};

use self::{
    choice::{Patience, choose},
    part::Part,
};

/// Several sources in order of preference: the first that knows a service is used for it.
///
/// All are followed from the beginning, so that the next one is there when it is needed.
///
/// - In the beginning a source that fails or does not know the service is passed over at once, one that is silent
///   after 2 s.
/// - A source in use that fails is left for the next one that has endpoints when it has failed for
///   [`patience`](Self::patience). Until then, and for as long as no other has any, what it said last stays.
/// - A source in use that no longer knows the service is left at once.
/// - A better one is used again when it has been good for [`return_after`](Self::return_after), or at once if the one
///   in use is not: one that comes and goes does not draw callers to and fro.
///
/// An empty answer of an authority (memory, a file) is an answer: the service exists and has no endpoints, nobody else
/// is asked. That of a source that is none (Consul, DNS) counts as a failure, since it does not tell a service without
/// endpoints from one that it does not know; if nobody else has endpoints, it is what is reported. If one of the
/// sources is no authority, the whole is none: discovery then holds old endpoints for a while.
///
/// While another than the first is used, the status says so as an error, and what is wrong with the first.
///
/// # Example
///
/// ```
/// use tower_mesh_core::MemoryRegistry;
/// use tower_mesh_discovery::{Discovery, Preferred, Static};
///
/// let sources = Preferred::new(MemoryRegistry::new()).or(Static::new());
/// let (discovery, driver) = Discovery::builder(sources).build();
/// # drop((discovery, driver));
/// ```
#[derive(Clone)]
pub struct Preferred {
    sources: Vec<Arc<dyn Resolve>>,
    clock: Clock,
    rng: Rng,
    patience: Patience,
}

impl Preferred {
    /// With one source, the best.
    pub fn new(best: impl Resolve) -> Self {
        Self {
            sources: vec![Arc::new(best)],
            clock: Clock::default(),
            rng: Rng::default(),
            patience: Patience {
                failing: Duration::from_secs(10),
                back: Duration::from_secs(10),
            },
        }
    }

    /// Adds a source that is used where those before it cannot be.
    #[must_use]
    pub fn or(mut self, next: impl Resolve) -> Self {
        self.sources.push(Arc::new(next));
        self
    }

    /// How long a source in use may fail before the next one is used; 10 s unless said otherwise.
    ///
    /// A registry that elects a leader, or restarts, is back sooner; what it said last is good for so long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience.failing = patience;
        self
    }

    /// How long a better source has to be good before it is used again; 10 s unless said otherwise.
    #[must_use]
    pub fn return_after(mut self, time: Duration) -> Self {
        self.patience.back = time;
        self
    }

    /// Takes time and timers from `clock`; tokio's unless said otherwise.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes chance from `rng`.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }
}

impl Resolve for Preferred {
    fn resolve(&self, service: &ServiceName) -> Updates {
        Box::pin(Preferring {
            parts: self.sources.iter().map(Part::new).collect(),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            patience: self.patience,
            service: service.clone(),
            started: self.clock.now(),
            current: None,
            told: None,
            to_say: None,
            timer: None,
        })
    }

    fn empties(&self) -> Empties {
        let all = |s: &Arc<dyn Resolve>| s.empties() == Empties::Authoritative;
        match self.sources.iter().all(all) {
            true => Empties::Authoritative,
            false => Empties::Suspect,
        }
    }

    fn name(&self) -> &'static str {
        "preferred"
    }
}

impl fmt::Debug for Preferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Preferred")
            .field("sources", &names)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// All sources, followed for one service.
struct Preferring {
    parts: Vec<Part>,
    clock: Clock,
    rng: Rng,
    patience: Patience,
    service: ServiceName,
    started: Instant,
    current: Option<usize>,
    /// Whose answer was told last, and the how-manieth of its answers.
    told: Option<(usize, u64)>,
    /// Why it is not the best that is used; said after its answer.
    to_say: Option<ResolveError>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A source that reports without end, and nothing new, is left alone for a while.
const ROUNDS: usize = 64;

impl Stream for Preferring {
    type Item = Result<Update, ResolveError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            if let Some(error) = this.to_say.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let now = this.clock.now();
            let heard = this.listen(now, cx);
            let (next, alarm) = choose(
                &this
                    .parts
                    .iter()
                    .map(|part| part.standing)
                    .collect::<Vec<_>>(),
                this.current,
                this.started,
                this.patience,
                now,
            );
            this.turn_to(next);
            if let Some(item) = this.news() {
                return Poll::Ready(Some(item));
            }
            let resumes = this.parts.iter().map(|part| part.resume);
            let resume = resumes.filter(|at| *at > now).min();
            let alarm = alarm.min(resume.unwrap_or(Instant::NEVER));
            if !heard && this.poll_timer(alarm, cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Preferring {
    /// Takes in at most one report of each source; whether there was any.
    fn listen(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut heard = false;
        for part in &mut self.parts {
            heard |= part.listen(&self.service, now, &self.rng, cx);
        }
        heard
    }

    fn turn_to(&mut self, next: Option<usize>) {
        let Some(next) = next.filter(|_| next != self.current) else {
            return;
        };
        let [to, best] = [next, 0].map(|at| self.parts[at].name());
        if next == 0 {
            if self.current.is_some() {
                tracing::info!(service = %self.service, source = to, "the best source is used again");
            }
        } else {
            let why = self.parts[0].why().to_owned();
            tracing::warn!(service = %self.service, source = to, %best, %why, "another source is used than the best");
            let text = format!("{best} cannot be used, {to} is instead: {why}");
            self.to_say = Some(ResolveError::new(text));
        }
        self.current = Some(next);
    }

    fn news(&mut self) -> Option<Result<Update, ResolveError>> {
        if let Some(current) = self.current {
            let part = &mut self.parts[current];
            let now = Some((current, part.answers));
            if self.told != now
                && let Some(update) = part.update()
            {
                self.told = now;
                return Some(Ok(update));
            }
            return part.fresh_error().map(Err);
        }
        let errors = self.parts.iter_mut().filter_map(Part::fresh_error);
        errors.map(Err).next()
    }

    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at == Instant::NEVER {
            self.timer = None;
            return Poll::Pending;
        }
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                timer
            }
            None => self.timer.insert(Box::pin(self.clock.sleep_until(at))),
        };
        timer.as_mut().poll(cx)
    }
}
