//! Holding a guard to the end of a response's body.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::{BoxError, Finish, Outcome, Promises, Verdict};

use crate::{
    classify::{Asked, Meaning},
    error,
};

/// Holds a guard until the response's body has ended, and finishes it with what the end says.
///
/// | the body | the guard |
/// |---|---|
/// | ends | is finished: a success, for gRPC what `grpc-status` in the trailers says; then released |
/// | breaks | is finished with a failure, then released |
/// | is dropped before its end | is released without an outcome |
/// | has ended before it began (204, HEAD) | is finished and released at once |
///
/// A response that has a [classification](crate::ClassifyLayer) of its own is finished as that says.
///
/// "Released" is dropped: that gives back load and permits. A guard that was finished at the head stays so, and is only
/// held. The body passes through unchanged and is never buffered, however long it takes; holding the guard allocates
/// nothing.
///
/// Two may be nested: the inner one for the attempt, the outer one for a permit of the whole call.
///
/// # Errors
///
/// The errors of the body become `BoxError`; those of hyper become [`TransportError`](crate::TransportError).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CompleteOnBody;

impl CompleteOnBody {
    /// The completion.
    pub const fn new() -> Self {
        Self
    }
}

impl Promises<Outcome> for CompleteOnBody {}

impl Promises<Verdict> for CompleteOnBody {}

impl<G, B> TrackCompletion<G, Response<B>> for CompleteOnBody
where
    G: Finish,
    B: Body,
{
    type Output = Response<TrackedBody<B, G>>;

    fn track_completion(&self, guard: G, response: Response<B>) -> Self::Output {
        let ending = match G::LISTENS {
            true => Meaning::of(&response),
            false => Meaning::PLAIN,
        };
        let mut held = Some(guard);
        if response.body().is_end_stream() {
            release(&mut held, ending.at_end(None));
        }
        response.map(|inner| TrackedBody {
            inner,
            held,
            ending,
        })
    }
}

pin_project! {
    /// A response's body that holds a guard until it ends; made by [`CompleteOnBody`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it before its end drops the guard without an outcome: nothing can be said of the endpoint.
    pub struct TrackedBody<B, G>
    where
        G: Finish,
    {
        #[pin]
        inner: B,
        // Beneath `inner`, so that a body which is dropped has let go of its stream when the permit is given back.
        held: Option<G>,
        ending: Meaning,
    }

    impl<B, G> PinnedDrop for TrackedBody<B, G>
    where
        G: Finish,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if G::LISTENS
                && let Meaning::Asked(asked) = this.ending
                && let Some(guard) = this.held
            {
                dropped(guard, asked);
            }
        }
    }
}

/// The guard itself is dropped after this.
#[cold]
fn dropped(guard: &mut impl Finish, asked: &Asked) {
    // What is asked may panic, which it must not twice.
    if !std::thread::panicking()
        && let Some(outcome) = asked.at_drop()
    {
        guard.finish(outcome);
    }
}

impl<B, G: Finish> TrackedBody<B, G> {
    /// A body that holds nothing.
    pub(crate) fn untracked(inner: B) -> Self {
        Self {
            inner,
            held: None,
            ending: Meaning::PLAIN,
        }
    }
}

impl<B, G> Body for TrackedBody<B, G>
where
    B: Body,
    B::Error: Into<BoxError>,
    G: Finish,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if this.held.is_none() {
            // Nobody waits for the end any more.
            let polled = this.inner.poll_frame(cx);
            return polled.map_err(|error| error::of_body(error.into()));
        }
        let bomb = Bomb(this.held);
        let polled = poll_inner(this.inner, this.ending, cx);
        bomb.defuse();
        let (frame, end) = ready!(polled);
        if let Some(outcome) = end {
            release(this.held, outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

type Polled<D> = Option<Result<Frame<D>, BoxError>>;

/// The next frame, and what it says if it is the last.
fn poll_inner<B>(
    mut inner: Pin<&mut B>,
    ending: &Meaning,
    cx: &mut Context<'_>,
) -> Poll<(Polled<B::Data>, Option<Outcome>)>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let frame = ready!(inner.as_mut().poll_frame(cx));
    let frame = frame.map(|frame| frame.map_err(|error| error::of_body(error.into())));
    let end = match &frame {
        None => Some(ending.at_end(None)),
        Some(Err(error)) => Some(ending.at_break(error)),
        Some(Ok(frame)) => match frame.trailers_ref() {
            Some(trailers) => Some(ending.at_end(Some(trailers))),
            // Whoever sees this need not poll again, and mostly does not.
            None => inner.is_end_stream().then(|| ending.at_end(None)),
        },
    };
    Poll::Ready((frame, end))
}

fn release<G: Finish>(held: &mut Option<G>, outcome: Outcome) {
    if let Some(mut guard) = held.take() {
        guard.finish(outcome);
    }
}

/// Dropped while a body panics, it makes that a failure: a guard that is only dropped would say that the caller went
/// away.
struct Bomb<'a, G: Finish>(&'a mut Option<G>);

impl<G: Finish> Bomb<'_, G> {
    fn defuse(self) {
        mem::forget(self);
    }
}

impl<G: Finish> Drop for Bomb<'_, G> {
    fn drop(&mut self) {
        release(self.0, Outcome::failure());
    }
}

impl<B, G: Finish> fmt::Debug for TrackedBody<B, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("ended", &self.held.is_none())
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
