//! Classifications made for each call, out of its request.

use std::{error::Error, fmt};

use http::{HeaderMap, HeaderValue, Request, Response, request, response};
use tower_mesh_core::{Outcome, Verdict};

use crate::grpc;

/// Makes the classification of each call from its request; [`ClassifyLayer`](crate::ClassifyLayer) asks it.
///
/// A closure over what is [`Seen`] is one, and so are tower-http's classifiers (`FromTowerHttp`, feature `tower-http`).
pub trait ClassifyCalls: Clone {
    /// The classification of one call.
    type Call: ClassifyCall;

    /// Begins the classification of the call that `request` makes.
    fn call<B>(&self, request: &Request<B>) -> Self::Call;
}

/// Classifies one call.
///
/// It is called outside any lock. If it panics, so does the call or the read of its body, and the endpoint is counted a
/// failure; where a body is dropped, nothing.
pub trait ClassifyCall: Send + 'static {
    /// What the head of the response says; `usual` is what [`HttpClassify`](crate::HttpClassify) says of it.
    ///
    /// What is deferred is decided by [`end`](Self::end), and handed to the caller: it is not tried again. `end` is not
    /// called of what is decided here.
    fn head<B>(&mut self, response: &Response<B>, usual: Verdict) -> Verdict;

    /// What the end of the call says, and nothing of the endpoint if that is `None`; `usual` is what would be said else.
    fn end(self, end: End<'_>, usual: Option<Outcome>) -> Option<Outcome>;
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum End<'a> {
    /// The body came to its end, with these trailers or without any.
    Complete(Option<&'a HeaderMap>),
    /// The body broke off, or there was no response at all.
    Error(&'a (dyn Error + Send + Sync + 'static)),
    /// The caller dropped the body before its end.
    Dropped,
}

/// What a closure classifies: the request and what came of it so far.
#[non_exhaustive]
pub struct Seen<'a> {
    /// The head of the request, without extensions.
    pub request: &'a request::Parts,
    /// The head of the response, without extensions, unless there was none.
    pub response: Option<&'a response::Parts>,
    /// How it ended, if it has.
    pub end: Option<End<'a>>,
}

impl<'a> Seen<'a> {
    /// The trailers, if it ended with some.
    pub fn trailers(&self) -> Option<&'a HeaderMap> {
        match self.end {
            Some(End::Complete(trailers)) => trailers,
            _ => None,
        }
    }

    /// What gRPC says of it, once that is there: `grpc-status` in the trailers, or in a head without a message.
    pub fn grpc_status(&self) -> Option<&'a HeaderValue> {
        let head = self.response.map(|head| &head.headers);
        let fields = head.into_iter().chain(self.trailers());
        fields.filter_map(|fields| fields.get(grpc::STATUS)).next()
    }

    /// What it broke off with, or failed with before there was a response.
    pub fn error(&self) -> Option<&'a (dyn Error + Send + Sync + 'static)> {
        match self.end {
            Some(End::Error(error)) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Debug for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No headers: some are secrets.
        f.debug_struct("Seen")
            .field("method", &self.request.method)
            .field("status", &self.response.map(|head| head.status))
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// A closure classifies what it answers for, and leaves all else as usual.
///
/// It is asked when the head of the response is there, and, unless that was decided, at its end; of a call without a
/// response once. The heads are copied for it, with their headers.
impl<F> ClassifyCalls for F
where
    F: Fn(&Seen<'_>) -> Option<Outcome> + Clone + Send + 'static,
{
    type Call = ByClosure<F>;

    fn call<B>(&self, request: &Request<B>) -> ByClosure<F> {
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.version = request.version();
        head.headers = request.headers().clone();
        ByClosure {
            classify: self.clone(),
            request: head,
            response: None,
        }
    }
}

/// One call, classified by a closure.
pub struct ByClosure<F> {
    classify: F,
    request: request::Parts,
    response: Option<response::Parts>,
}

impl<F> ClassifyCall for ByClosure<F>
where
    F: Fn(&Seen<'_>) -> Option<Outcome> + Send + 'static,
{
    fn head<B>(&mut self, response: &Response<B>, usual: Verdict) -> Verdict {
        let mut head = Response::new(()).into_parts().0;
        head.status = response.status();
        head.version = response.version();
        head.headers = response.headers().clone();
        self.response = Some(head);
        self.ask(None).map_or(usual, Verdict::Done)
    }

    fn end(self, end: End<'_>, usual: Option<Outcome>) -> Option<Outcome> {
        self.ask(Some(end)).or(usual)
    }
}

impl<F: Fn(&Seen<'_>) -> Option<Outcome>> ByClosure<F> {
    fn ask(&self, end: Option<End<'_>>) -> Option<Outcome> {
        (self.classify)(&Seen {
            request: &self.request,
            response: self.response.as_ref(),
            end,
        })
    }
}

impl<F> fmt::Debug for ByClosure<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByClosure").finish_non_exhaustive()
    }
}
