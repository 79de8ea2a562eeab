//! What follows a request from one process to the next, beside its [deadline](crate::timeout_of): its trace, how much it
//! matters, and which attempt it is.
//!
//! | header | says | read | written |
//! |---|---|---|---|
//! | `traceparent`, `tracestate` | which trace it belongs to: [W3C's](https://www.w3.org/TR/trace-context/) | strictly, `tracestate` to 512 bytes | as it came: the mesh records no spans of its own, and a parent that nobody records is one that nobody finds |
//! | [`x-mesh-priority`](PRIORITY_HEADER) | `critical`, `default` or `sheddable` | exactly so | what was [believed](crate::server::ServerLayer::believe_priority) |
//! | [`x-mesh-attempt`](ATTEMPT_HEADER), for gRPC its own `grpc-previous-rpc-attempts` | which attempt of its call it is | digits, at most [`MOST_ATTEMPTS`] | from the second attempt on |
//!
//! And one thing comes back: [whether it has been tried already](RETRY_HEADER).
//!
//! What is not as it should be, or is there twice, says nothing: a request is served all the same. Baggage is not
//! followed: it is anybody's, and has no bound.
//!
//! A [`ServerLayer`](crate::server::ServerLayer) reads it and lets it hold for what the handler does
//! ([`Inherited`](crate::server::Inherited)); what holds is [written](set_context) into the requests that are sent then.

mod attempt;
mod trace;

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_mesh_core::Priority;

pub use self::{
    attempt::{ATTEMPT_HEADER, MOST_ATTEMPTS, attempt_of, set_attempt},
    trace::TraceContext,
};

/// How much it matters that the request is answered: `critical`, `default` or `sheddable`.
pub const PRIORITY_HEADER: HeaderName = HeaderName::from_static("x-mesh-priority");

/// In a response that tells of a failure: [`NO_RETRY`] if the request is not to be tried again, since whoever answers has
/// tried already. gRPC has `grpc-retry-pushback-ms: -1` for it.
///
/// Where each of three services in a chain makes three attempts, the last one gets 27. So a
/// [`ServerLayer`](crate::server::ServerLayer) says it with a failure once a call that the handler has made through a mesh was
/// tried in vain, whether the handler fails, hands the response on or makes one of its own; and
/// [`HttpClassify`](crate::HttpClassify) heeds it. What a handler says in this header itself stays. Of calls in a task that the
/// handler has spawned only their errors tell.
pub const RETRY_HEADER: HeaderName = HeaderName::from_static("x-mesh-retry");

/// What [`RETRY_HEADER`] says.
pub const NO_RETRY: HeaderValue = HeaderValue::from_static("no");

/// What follows a request to the calls that are made to serve it, beside its deadline.
///
/// # Clone
///
/// A few words; `tracestate` is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    trace: Option<TraceContext>,
    priority: Option<Priority>,
}

impl Context {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            trace: None,
            priority: None,
        }
    }

    /// What `headers` say. A priority as well: bound it before it is believed.
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            trace: TraceContext::of(headers),
            priority: priority_of(headers),
        }
    }

    /// The trace that it belongs to.
    pub const fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// How much it matters, if that was said.
    pub const fn priority(&self) -> Option<Priority> {
        self.priority
    }

    /// The same, in another trace or in none.
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<Option<TraceContext>>) -> Self {
        self.trace = trace.into();
        self
    }

    /// The same, as important as that.
    #[must_use]
    pub fn with_priority(mut self, priority: impl Into<Option<Priority>>) -> Self {
        self.priority = priority.into();
        self
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.trace.is_none() && self.priority.is_none()
    }

    /// Says it in `headers`, where they do not speak of it themselves: who has set a header means it.
    ///
    /// Costs an allocation for the trace, and what the map needs for more headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.write(headers);
        }
        if let Some(priority) = self.priority
            && !headers.contains_key(&PRIORITY_HEADER)
        {
            let value = HeaderValue::from_static(priority.as_str());
            headers.insert(PRIORITY_HEADER, value);
        }
    }
}

/// How much it matters that the request is answered, if its headers say so, once and in a word that there is.
pub fn priority_of(headers: &HeaderMap) -> Option<Priority> {
    let value = only(headers, &PRIORITY_HEADER)?;
    Priority::named(value.to_str().ok()?)
}

/// Says in `headers` what [holds here](crate::server::Inherited::context_here), where they do not speak of it themselves.
///
/// Where nothing holds, as outside of a server's handler, it costs one look at a thread-local.
pub fn set_context(headers: &mut HeaderMap) {
    crate::server::Inherited::look_at_context(|context| context.write(headers));
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
