//! A source whose endpoints are remembered, for when it is away as the process starts.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{
    Clock, Empties, Endpoint, Resolve, ResolveError, ServiceName, Sleep, Update, Updates,
};

use super::Remember;

/// How long a source may be silent before its endpoints are remembered. A first call waits for 5 s.
const SILENT: Duration = Duration::from_secs(2);
/// How long after its first error: where there are several sources, the next one may be about to answer.
const FAILED: Duration = Duration::from_millis(250);
/// A source that reports errors without end is left alone for a while.
const ROUNDS: usize = 16;

pub(crate) struct Remembered {
    pub(super) inner: Arc<dyn Resolve>,
    pub(super) remember: Arc<Remember>,
    pub(super) clock: Clock,
}

impl Resolve for Remembered {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let inner = self.inner.resolve(service);
        // Nothing to fall back on, or the source was heard in this process: discovery has its last answer.
        if self.remember.offer(service).is_none() {
            return Box::pin(Noting {
                inner,
                remember: Arc::clone(&self.remember),
                service: service.clone(),
                waiting: None,
                next: None,
            });
        }
        Box::pin(Noting {
            inner,
            remember: Arc::clone(&self.remember),
            service: service.clone(),
            waiting: Some(Waiting {
                suspect: self.inner.empties() == Empties::Suspect,
                timer: Box::pin(self.clock.sleep(SILENT)),
                error: None,
                clock: self.clock.clone(),
            }),
            next: None,
        })
    }

    fn empties(&self) -> Empties {
        self.inner.empties()
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }
}

/// Notes when the source answers and when it fails.
struct Noting {
    inner: Updates,
    remember: Arc<Remember>,
    service: ServiceName,
    /// Until the source answers, or is not waited for any more.
    waiting: Option<Waiting>,
    next: Option<Result<Update, ResolveError>>,
}

struct Waiting {
    /// Whether an empty answer may be an accident.
    suspect: bool,
    timer: Pin<Box<Sleep>>,
    error: Option<ResolveError>,
    clock: Clock,
}

type Item = Result<Update, ResolveError>;

impl futures_core::Stream for Noting {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            if let Some(next) = this.next.take() {
                return Poll::Ready(Some(next));
            }
            match this.inner.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(update))) => return Poll::Ready(Some(this.answered(update))),
                Poll::Ready(Some(Err(error))) => {
                    this.remember.failing(&this.service);
                    match &mut this.waiting {
                        None => return Poll::Ready(Some(Err(error))),
                        Some(waiting) => waiting.failed(error),
                    }
                }
                Poll::Ready(None) => return Poll::Ready(this.recall()),
                Poll::Pending => {
                    let Some(waiting) = &mut this.waiting else {
                        return Poll::Pending;
                    };
                    if waiting.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if let Some(item) = this.recall() {
                        return Poll::Ready(Some(item));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Waiting {
    fn failed(&mut self, error: ResolveError) {
        if self.error.is_none() {
            let soon = self.clock.now() + FAILED;
            if soon < self.timer.deadline() {
                self.timer.as_mut().reset(soon);
            }
        }
        self.error = Some(error);
    }
}

impl Noting {
    fn answered(&mut self, update: Update) -> Item {
        let suspect = self.waiting.take().is_some_and(|waiting| waiting.suspect);
        let is_empty = match &update {
            Update::Replace(endpoints) => endpoints.is_empty(),
            Update::Absent => true,
            _ => false,
        };
        // A registry that has come back without its state knows nothing yet: discovery holds against it what it is told
        // first, for its grace.
        let recalled = (suspect && is_empty).then(|| self.remember.offer(&self.service));
        self.remember.answering(&self.service);
        match recalled.flatten() {
            Some((endpoints, _)) => {
                self.next = Some(Ok(update));
                Ok(Update::Replace(endpoints))
            }
            None => Ok(update),
        }
    }

    /// What is remembered, and then why.
    fn recall(&mut self) -> Option<Item> {
        let error = self.waiting.take()?.error;
        let Some((endpoints, age)) = self.remember.offer(&self.service) else {
            return error.map(Err);
        };
        self.remember.serving(&self.service);
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        let service = &self.service;
        tracing::warn!(%service, %age, "the registry is away, remembered endpoints are used");
        let text = format!("endpoints of {age} ago are used, which were remembered");
        self.next = Some(Err(match error {
            Some(error) => ResolveError::new(text).caused_by(error),
            None => ResolveError::new(text),
        }));
        Some(Ok(Update::Replace(endpoints)))
    }
}

/// Endpoints, and how long ago the registry stood by them.
pub(super) type Offer = (Vec<Endpoint>, Duration);
