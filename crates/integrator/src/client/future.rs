//! The future of a call whose service the request has named.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body_util::Either;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_mesh_core::{BoxError, BoxFuture, Kind, Refusal, Sent};
use tower_mesh_http::{IdleTimeout, server::Inherited};

use crate::{error::Error, mesh::Core, stack::ResponseBody};

/// The body of a response: of a service, or of a host outside the mesh.
pub type ClientBody<B> = Either<ResponseBody<B>, IdleTimeout<Incoming>>;

pin_project! {
    /// The future of a [`MeshClient`](crate::MeshClient).
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ClientFuture<F> {
        #[pin]
        way: Way<F>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<F> {
        Service { #[pin] call: F },
        // On the heap: it would make every call larger.
        Outside { call: BoxFuture<'static, Result<Response<IdleTimeout<Incoming>>, Error>> },
        Refused { error: Option<Error> },
    }
}

impl<F> ClientFuture<F> {
    pub(super) const fn service(call: F) -> Self {
        Self {
            way: Way::Service { call },
        }
    }

    #[cold]
    pub(super) const fn refused(error: Error) -> Self {
        let error = Some(error);
        Self {
            way: Way::Refused { error },
        }
    }

    /// Within `limit`, and within what is left of the deadline that holds here.
    pub(super) fn outside<E: Into<BoxError>>(
        call: impl Future<Output = Result<Response<IdleTimeout<Incoming>>, E>> + Send + 'static,
        core: &Arc<Core>,
        limit: Duration,
    ) -> Self {
        let core = Arc::clone(core);
        let limit = Inherited::left_here().map_or(limit, |left| left.min(limit));
        let call = Box::pin(async move {
            match core.clock.within(limit, call).await {
                Some(Ok(response)) => Ok(response),
                Some(Err(error)) => Err(Error::new(&core.name, error.into())),
                None => {
                    let late = Refusal::remote(Kind::DeadlineExceeded, Sent::Maybe);
                    let late = late.with_context(format!("a host outside the mesh took {limit:?}"));
                    Err(Error::refused(&core.name, late))
                }
            }
        });
        Self {
            way: Way::Outside { call },
        }
    }
}

impl<F, B> Future for ClientFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<B>>, Error>>,
{
    type Output = Result<Response<ClientBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            WayProj::Service { call } => {
                let answer = call.poll(cx);
                answer.map_ok(|response| response.map(Either::Left))
            }
            WayProj::Outside { call } => {
                let answer = call.as_mut().poll(cx);
                answer.map_ok(|response| response.map(Either::Right))
            }
            WayProj::Refused { error } => {
                Poll::Ready(Err(error.take().expect("not polled after its end")))
            }
        }
    }
}

impl<F> fmt::Debug for ClientFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}
