//! Servers as HTTP services, and what calls to them come to.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::Service;
use tower_mesh::{
    Body, Endpoint, Error,
    core::{Kind, Refusal, Sent as Reached},
    http::ReportLoad,
};
use tower_mesh_sim::{Connection, Exchange};

use super::log::{Began, Log};

/// What a server that fails answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// 503: it says that it has too much to do.
    Overloaded,
    /// 500.
    Broken,
    /// Nothing: it takes no connections.
    Unreachable,
}

/// A server as an HTTP service.
#[derive(Clone)]
pub(crate) struct Server {
    pub(super) connection: Connection,
    pub(super) endpoint: Endpoint,
    pub(super) client: usize,
    pub(super) failing: Failing,
    pub(super) log: Option<Arc<Log>>,
}

/// The same, and it says how busy it is. It is counted where the client stands, so the 200 us on the wire are in it.
pub(super) type Reporting = ReportLoad<Server>;

/// No body: a verdict at the head, as for any answer without one.
type Empty = http_body_util::Empty<bytes::Bytes>;

impl Service<Request<Body>> for Server {
    type Response = Response<Empty>;
    type Error = Refusal;
    type Future = Reply;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Reply {
        let noted = self.log.as_ref().map(|log| {
            let probes = !self.endpoint.vitals().gate().is_open();
            let begun = log.sends(self.client, self.connection.server(), probes);
            (Arc::clone(log), begun)
        });
        Reply {
            exchange: self.connection.send(),
            failing: self.failing,
            noted,
        }
    }
}

pub(crate) struct Reply {
    exchange: Exchange,
    failing: Failing,
    noted: Option<(Arc<Log>, Began)>,
}

impl Future for Reply {
    type Output = Result<Response<Empty>, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.exchange).poll(cx));
        if let Some((log, began)) = self.noted.take() {
            log.sent(&began, answer.is_ok());
        }
        let mut response = Response::new(Empty::new());
        if answer.is_err() {
            *response.status_mut() = match self.failing {
                Failing::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
                Failing::Broken => StatusCode::INTERNAL_SERVER_ERROR,
                Failing::Unreachable => {
                    return Poll::Ready(Err(Refusal::remote(Kind::Connect, Reached::Never)));
                }
            };
        }
        Poll::Ready(Ok(response))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((log, began)) = self.noted.take() {
            log.sent(&began, false);
        }
    }
}

pin_project! {
    /// A call of a client.
    pub(crate) struct Got<F> {
        #[pin]
        pub(super) future: F,
        pub(super) log: Option<Arc<Log>>,
        pub(super) begun: Duration,
    }
}

/// A call was refused, or answered with a status that is none of success.
pub(crate) struct Lost;

impl<F, B> Future for Got<F>
where
    F: Future<Output = Result<Response<B>, Error>>,
{
    type Output = Result<(), Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        let (result, how) = match &answer {
            Ok(response) if response.status().is_success() => (Ok(()), ""),
            Ok(_) => (Err(Lost), "status"),
            Err(error) => (Err(Lost), error.kind().map_or("other", Kind::as_str)),
        };
        if let Some(log) = this.log {
            log.ended(*this.begun, how);
        }
        Poll::Ready(result)
    }
}
