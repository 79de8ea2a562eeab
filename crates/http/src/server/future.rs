//! A request that is served.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_mesh_core::{BoxError, Instant, Sleep, frame, tried};

use super::{
    answer::{Failure, Id, mark_tried},
    body::{Said, ServerBody},
    counts::{End, InFlight},
    health::{Asked, poll_question},
    inherited::{self, Inherited},
    layer::Settings,
    quiet::Tell,
};
use crate::context;

pin_project! {
    /// The answer of a [`Server`](super::Server).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the handler's future, and counts as a sender who went away.
    pub struct ResponseFuture<F, B> {
        #[pin]
        stage: Stage<F, B>,
        // None: a question about health.
        serving: Option<Serving>,
        inherited: Option<Inherited>,
        timer: Option<Sleep>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<F, B> {
        Asked { asked: Asked, #[pin] body: B, question: Vec<u8>, settings: Arc<Settings> },
        Refused { failure: Failure },
        Running { #[pin] handler: F },
        Over,
    }
}

/// What is known of a request.
pub(super) struct Serving {
    pub(super) settings: Arc<Settings>,
    /// None: it has been answered.
    pub(super) in_flight: Option<InFlight>,
    pub(super) span: tracing::Span,
    pub(super) began: Instant,
    pub(super) at: Instant,
    /// Whether it is the server's own limit that ends it.
    pub(super) own: bool,
    pub(super) grpc: bool,
    /// Whether a call made to serve it has been tried in vain.
    pub(super) tried: bool,
}

impl<F, B> ResponseFuture<F, B> {
    pub(super) fn health(asked: Asked, body: B, settings: Arc<Settings>) -> Self {
        Self::new(
            Stage::Asked {
                asked,
                body,
                question: Vec::new(),
                settings,
            },
            None,
        )
    }

    pub(super) fn refused(failure: Failure, serving: Serving) -> Self {
        Self::new(Stage::Refused { failure }, Some(serving))
    }

    pub(super) fn running(handler: F, serving: Serving, context: context::Context) -> Self {
        let mut this = Self::new(Stage::Running { handler }, None);
        if serving.at != Instant::NEVER || !context.is_empty() {
            let inherited = Inherited::new(serving.at, serving.settings.clock.clone());
            this.inherited = Some(inherited.with_context(context));
        }
        this.serving = Some(serving);
        this
    }

    fn new(stage: Stage<F, B>, serving: Option<Serving>) -> Self {
        Self {
            stage,
            serving,
            inherited: None,
            timer: None,
        }
    }
}

impl<F, B, R, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    B: Body,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ServerBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (failure, error) = match this.stage.as_mut().project() {
            StageProj::Asked {
                asked,
                body,
                question,
                settings,
            } => {
                if asked.is_grpc() {
                    ready!(poll_question(body, question, cx));
                }
                let answer = asked.answer(question, settings);
                this.stage.set(Stage::Over);
                return Poll::Ready(Ok(answer.map(ServerBody::ours)));
            }
            StageProj::Refused { failure } => (*failure, None),
            StageProj::Running { handler } => {
                let serving = this.serving.as_mut().expect("there while it runs");
                let _entered = serving.span.enter();
                // What it leaves behind when it panics is dropped at once.
                let polled = catch_unwind(AssertUnwindSafe(|| {
                    tried::within(&mut serving.tried, || {
                        inherited::within(this.inherited, || handler.poll(cx))
                    })
                }));
                match polled {
                    Ok(Poll::Ready(Ok(response))) => {
                        drop(_entered);
                        let answer = serving.answer(response);
                        // Now, and not with the future: it may hold a permit.
                        this.stage.set(Stage::Over);
                        return Poll::Ready(Ok(answer));
                    }
                    Ok(Poll::Ready(Err(error))) => {
                        let error = error.into();
                        (Failure::of(&*error), Some(error))
                    }
                    Ok(Poll::Pending) => {
                        ready!(serving.poll_time(this.timer, cx));
                        (Failure::EXPIRED, None)
                    }
                    Err(_) => {
                        if let Some(in_flight) = &serving.in_flight {
                            in_flight.counts().panicked();
                        }
                        (Failure::INTERNAL, Some("the handler panicked".into()))
                    }
                }
            }
            StageProj::Over => panic!("`ResponseFuture` polled after it was ready"),
        };
        let out_of_time =
            error.is_none() && this.serving.as_ref().is_some_and(|serving| serving.own);
        let began = !matches!(*this.stage, Stage::Refused { .. });
        // The handler is dropped while the mesh can tell why, and a panic of that is one more of its panics.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // A limit beneath hears of it, but not of the deadlines of senders: by asking for too little time anybody could
            // talk it down.
            if out_of_time {
                frame::timing_out(|| this.stage.set(Stage::Over));
            } else {
                this.stage.set(Stage::Over);
            }
        }));
        let serving = this.serving.as_mut().expect("there until it is answered");
        let answer = serving.failed(failure, began, error);
        Poll::Ready(Ok(answer.map(ServerBody::ours)))
    }
}

impl Serving {
    /// Whether its time is up; looked at when the handler waits.
    fn poll_time(&self, timer: &mut Option<Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        if self.at == Instant::NEVER {
            return Poll::Pending;
        }
        let timer = timer.get_or_insert_with(|| self.settings.clock.sleep_until(self.at));
        Pin::new(timer).poll(cx)
    }

    fn answer<R>(&mut self, mut response: Response<R>) -> Response<ServerBody<R>> {
        if self.tried {
            mark_tried(&mut response);
        }
        let in_flight = self.in_flight.take();
        if let Some(in_flight) = &in_flight {
            let end = if response.status().is_server_error() {
                End::Failed
            } else {
                End::Answered
            };
            self.count(in_flight, end);
        }
        response.map(|body| ServerBody::theirs(body, in_flight))
    }

    #[cold]
    fn failed(&mut self, failure: Failure, began: bool, error: Option<BoxError>) -> Response<Said> {
        let id = Id::random(&self.settings.rng);
        let refused = !began || failure.is_refusal();
        self.log(failure.kind, id, refused, error);
        if let Some(in_flight) = self.in_flight.take() {
            let end = if refused { End::Refused } else { End::Failed };
            self.count(&in_flight, end);
        }
        failure.tried(self.tried).answer(self.grpc, id)
    }

    fn log(&self, kind: &str, id: Id, refused: bool, error: Option<BoxError>) {
        let _entered = self.span.enter();
        match error {
            // Each is one of many: what an overload needs least is a line for every request.
            Some(error) if refused => tracing::debug!(kind, %id, %error, "refused"),
            Some(error) => match self.settings.quiet.tell(self.settings.clock.now()) {
                Tell::It { before: 0 } => tracing::error!(kind, %id, %error, "failed"),
                Tell::It { before } => {
                    tracing::error!(kind, %id, %error, not_logged_before = before, "failed");
                }
                Tell::Nothing => {}
            },
            None => tracing::debug!(kind, %id, "no answer of the handler"),
        }
    }

    fn count(&self, in_flight: &InFlight, end: End) {
        let took = self.settings.clock.now().since(self.began);
        in_flight.counts().end(end, took);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            self.count(&in_flight, End::Abandoned);
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Asked { .. } => "health",
            Stage::Refused { .. } => "refused",
            Stage::Running { .. } => "running",
            Stage::Over => "over",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}
