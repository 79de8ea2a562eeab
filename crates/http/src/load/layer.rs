//! The layer that says it in each response.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_layer::Layer;
use tower_mesh_core::{Clock, Finish, Outcome, Verdict};
use tower_service::Service;

use super::{
    header::set_load,
    meter::{Meter, Metered},
};
use crate::{
    complete::{CompleteOnBody, TrackedBody},
    verdict,
};

/// Says in each response how busy the server is, so that clients of the mesh that listen
/// (`Strategy::Reported` of `tower-mesh-balance`) send their calls where they are answered soonest.
///
/// It goes around all that a request waits for: what waits above it is not seen. A call counts from its arrival to the end
/// of the response's body, and what is said with the head is what was known then: [`LOAD_HEADER`](crate::LOAD_HEADER).
/// Of calls that fail (5xx, 429, errors, bodies that break) only the share counts; calls whose caller goes away say
/// nothing. A response takes two allocations more, and a call two readings of the clock.
///
/// # Clone
///
/// All that one layer value makes, and all its clones make, count together: it is one server.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_http::{Body, LOAD_HEADER, ReportLoadLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let server = ServiceBuilder::new()
///     .layer(ReportLoadLayer::new())
///     .service(service_fn(async |_: Request<Body>| {
///         Ok::<_, BoxError>(Response::new(Body::empty()))
///     }));
///
/// let response = server.oneshot(Request::new(Body::empty())).await?;
/// assert_eq!(response.headers()[LOAD_HEADER], "rif=0, us=0");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReportLoadLayer {
    meter: Meter,
    silent: bool,
}

impl ReportLoadLayer {
    /// A server that has served nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the time comes from, and forgets what was counted.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self {
            meter: Meter::new(clock),
            ..self
        }
    }

    /// Counts nothing and says nothing: for a stack whose type has it either way.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// What it counts.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl Default for ReportLoadLayer {
    fn default() -> Self {
        Self {
            meter: Meter::new(Clock::default()),
            silent: false,
        }
    }
}

impl<S> Layer<S> for ReportLoadLayer {
    type Service = ReportLoad<S>;

    fn layer(&self, inner: S) -> ReportLoad<S> {
        ReportLoad {
            inner,
            meter: (!self.silent).then(|| self.meter.clone()),
        }
    }
}

/// A service that says how busy it is, see [`ReportLoadLayer`].
#[derive(Clone, Debug)]
pub struct ReportLoad<S> {
    inner: S,
    /// None: it is silent.
    meter: Option<Meter>,
}

impl<S, Req, B> Service<Req> for ReportLoad<S>
where
    S: Service<Req, Response = Response<B>>,
    B: Body,
{
    type Response = Response<TrackedBody<B, Metered>>;
    type Error = S::Error;
    type Future = ReportLoadFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ReportLoadFuture {
            call: self.meter.as_ref().map(Meter::begin),
            future: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of a [`ReportLoad`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the call, which then says nothing of the server.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReportLoadFuture<F> {
        #[pin]
        future: F,
        call: Option<Metered>,
    }
}

impl<F, B, E> Future for ReportLoadFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<TrackedBody<B, Metered>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        let Some(mut call) = this.call.take() else {
            return Poll::Ready(answer.map(|response| response.map(TrackedBody::untracked)));
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                call.finish(Outcome::failure());
                return Poll::Ready(Err(error));
            }
        };
        let ended = response.body().is_end_stream();
        let (status, headers) = (response.status(), response.headers_mut());
        if let Verdict::Done(outcome) =
            verdict::at_head(status, headers, ended, || SystemTime::UNIX_EPOCH)
        {
            call.finish(outcome);
        }
        set_load(headers, call.report_of_others());
        Poll::Ready(Ok(CompleteOnBody::new().track_completion(call, response)))
    }
}
