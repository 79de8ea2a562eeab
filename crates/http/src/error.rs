//! Errors of HTTP clients, said in the mesh's terms.

use std::{error::Error, fmt, io, net::SocketAddr};

use hyper_util::client::legacy;
use tower_mesh_core::{BoxError, ClassifyErrors, Kind, Outcome, Refusal, Sent};

use crate::classify::ClassifiedError;

/// A request could not be brought to an endpoint, or its answer not back.
///
/// Its source is the [`Refusal`] that says whether the request may have been sent; what the client said is its
/// [`cause`](Self::cause).
#[derive(Debug)]
pub struct TransportError {
    refusal: Refusal,
    cause: BoxError,
}

impl TransportError {
    fn new(refusal: Refusal, at: impl fmt::Display, cause: BoxError) -> Self {
        let context = format!("{at}: {}", Told(&*cause));
        Self {
            refusal: refusal.with_context(context),
            cause,
        }
    }

    /// Whether no connection could be made.
    pub fn is_connect(&self) -> bool {
        self.refusal.kind() == Kind::Connect
    }

    /// Whether the request may have reached the endpoint.
    pub fn sent(&self) -> Sent {
        self.refusal.sent()
    }

    /// What the HTTP client said.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// Says in the mesh's terms why a request to `address` failed, if it was hyper that failed.
pub(crate) fn of_request(error: BoxError, address: SocketAddr) -> BoxError {
    match refusal(&*error) {
        Some(refusal) => TransportError::new(refusal, address, error).into(),
        None => error,
    }
}

/// Says in the mesh's terms why a response broke after its head. So the request has arrived, whatever else the error
/// says.
pub(crate) fn of_body(error: BoxError) -> BoxError {
    match refusal(&*error) {
        Some(refusal) => {
            TransportError::new(refusal.maybe_sent(), "the response broke off", error).into()
        }
        None => error,
    }
}

/// What an error says of the endpoint.
pub(crate) fn outcome(error: &(dyn Error + Send + Sync + 'static)) -> Outcome {
    if let Some(outcome) = classified(error) {
        return outcome;
    }
    if let Some(refusal) = refusal(error) {
        return refusal.outcome();
    }
    #[cfg(feature = "grpc")]
    if let Some(status) = find::<tonic::Status>(error) {
        return crate::grpc::of_status(&(status.code() as i32).into());
    }
    ClassifyErrors::error(error)
}

/// What a classification said of it. Not of what stands beneath an error of hyper, which may be that of another call, nor
/// beneath a refusal, which speaks for itself.
fn classified(error: &(dyn Error + 'static)) -> Option<Outcome> {
    chain(error)
        .take_while(|error| {
            !error.is::<legacy::Error>() && !error.is::<hyper::Error>() && !error.is::<Refusal>()
        })
        .find_map(|error| error.downcast_ref::<ClassifiedError>())
        .map(|error| error.outcome)
}

/// What an error of hyper, or of a tonic channel that cannot connect, means; nothing if it is not hyper's, or if a [`Refusal`], which ends a chain, already says it.
///
/// The outermost counts: beneath an error of a request's body may stand the error of another call, whose body it was.
fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    for error in chain(error) {
        if let Some(client) = error.downcast_ref() {
            return Some(of_client(client));
        }
        if let Some(wire) = error.downcast_ref() {
            return Some(on_the_wire(wire));
        }
        #[cfg(feature = "grpc")]
        if error.is::<tonic::ConnectError>() {
            return Some(Refusal::remote(Kind::Connect, Sent::Never));
        }
    }
    None
}

fn of_client(error: &legacy::Error) -> Refusal {
    // What the connector itself refuses, for want of a place, is nothing that the endpoint has done.
    if error.is_connect()
        && let Some(refusal) = Refusal::of(error)
    {
        return refusal.clone();
    }
    // An error that names no connection comes from before there was one: from the handshake, or because a connection
    // that it waited for went away.
    if error.is_connect() || error.connect_info().is_none() {
        return Refusal::remote(Kind::Connect, Sent::Never);
    }
    match find(error) {
        Some(wire) => on_the_wire(wire),
        // There was a connection, but the client would not write this request to it.
        None => Refusal::local(Kind::Transport),
    }
}

fn on_the_wire(error: &hyper::Error) -> Refusal {
    if error.is_user() {
        // The request's body broke, or the task of the connection was stopped: neither is the endpoint's doing.
        return Refusal::local(Kind::Transport).maybe_sent();
    }
    // hyper cancels only what it has not begun to write.
    let sent = if error.is_canceled() || was_refused(error) {
        Sent::Never
    } else {
        Sent::Maybe
    };
    Refusal::remote(Kind::Transport, sent)
}

/// RFC 9113, 8.7: a server surely has not looked at a stream that it refuses, or that is beyond the last one which it
/// names when it goes away in good order. Streams up to that one do not end with this error, they go on.
fn was_refused(error: &hyper::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let beyond_last = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || beyond_last)
    })
}

/// The outermost error of type `E` in the chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What a person wants to know of an error of hyper: what the system said, or else the innermost error. The layers
/// above it say "client error" and the like.
struct Told<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match find::<io::Error>(self.0) {
            // Tokio's own words are about a deadline, which elsewhere is that of the call.
            Some(error) if error.kind() == io::ErrorKind::TimedOut => f.write_str("timed out"),
            Some(error) => fmt::Display::fmt(error, f),
            None => fmt::Display::fmt(chain(self.0).last().unwrap_or(self.0), f),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower_mesh_core::Class;

    use super::*;

    #[test]
    fn what_is_not_hypers_passes_unchanged() {
        let address = ([127, 0, 0, 1], 80).into();
        let error = of_request("no".into(), address);
        assert_eq!(error.to_string(), "no");
        assert!(error.downcast_ref::<TransportError>().is_none());
        assert_eq!(outcome(&*error).class(), Class::Failure);
    }

    #[test]
    fn a_refusal_is_believed_as_it_stands() {
        let open = Refusal::local(Kind::CircuitOpen);
        let error = of_body(open.clone().into());
        assert_eq!(error.downcast_ref(), Some(&open));
        assert_eq!(outcome(&*error).class(), Class::Neutral);
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn a_status_from_beneath_is_judged_as_if_it_had_come_in_a_response() {
        use tonic::{Code, Status};
        let wrapped = |code| -> BoxError { Box::new(Wrapped(Status::new(code, "no"))) };
        for (code, class) in [
            (Code::Unavailable, Class::Failure),
            (Code::Unknown, Class::Failure),
            (Code::ResourceExhausted, Class::Overload),
            (Code::NotFound, Class::Success),
            (Code::Cancelled, Class::Neutral),
        ] {
            assert_eq!(outcome(&*wrapped(code)).class(), class, "{code:?}");
        }
        let error: BoxError = tonic::ConnectError("refused".into()).into();
        assert_eq!(outcome(&*error), Outcome::failure().never_sent());
    }

    #[cfg(feature = "grpc")]
    #[derive(Debug)]
    struct Wrapped(tonic::Status);

    #[cfg(feature = "grpc")]
    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("somebody's own error")
        }
    }

    #[cfg(feature = "grpc")]
    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_message_says_what_the_system_said_and_a_timeout_is_no_deadline() {
        let elapsed = io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (cause, words) in [(elapsed, "timed out"), (refused, "connection refused")] {
            let refusal = Refusal::remote(Kind::Connect, Sent::Never);
            let error = TransportError::new(refusal, "10.0.0.7:80", cause.into());
            let message = format!("cannot connect: 10.0.0.7:80: {words}");
            assert_eq!(error.to_string(), message);
        }
    }
}
