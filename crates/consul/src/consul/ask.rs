//! Asking an agent: which one, over which connection, and what its answer means.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, header::HOST};
use http_body_util::Full;

use super::Consul;
#[cfg(feature = "tls")]
use crate::tls::{Secured, Tls};
use crate::{
    address::Address,
    connection::{Broken, Connection},
    error::{ConsulError, ErrorKind, quoted},
    request::{Answer, Request},
};

/// What an agent may take beyond the time that it was told to hold a request.
const SLACK: Duration = Duration::from_secs(10);

impl Consul {
    /// Sends `request` and reads its answer, unless that is a refusal; the next agent is asked where it does no harm.
    pub(crate) async fn call(&self, request: &Request) -> Result<Answer, ConsulError> {
        let first = self.agents.current.load(Ordering::Relaxed);
        let many = self.agents.addresses.len();
        let mut turn = 0;
        let mut refreshed = false;
        loop {
            let at = (first + turn) % many;
            let error = match self.ask(at, request).await {
                Ok(answer) => {
                    self.agents.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(Broken { error, sent }) => {
                    let denied = error.kind() == ErrorKind::Denied;
                    if denied && !refreshed && self.token.is_renewed() {
                        refreshed = true;
                        continue;
                    }
                    let elsewhere =
                        may_be_had_elsewhere(error.kind()) && (!sent || request.is_safe());
                    turn += 1;
                    // The index of one agent means nothing to another, which would hold the request for it.
                    if elsewhere && turn < many && request.wait.is_zero() {
                        continue;
                    }
                    if elsewhere {
                        // Whoever asks next begins with another.
                        self.agents
                            .current
                            .store((at + 1) % many, Ordering::Relaxed);
                    }
                    error
                }
            };
            return Err(error);
        }
    }

    /// Calls for something that an agent has; none if it says that it does not know it.
    ///
    /// Version 1.8 says so with 500 and a text, later ones with 404.
    pub(crate) async fn call_known(
        &self,
        request: &Request,
    ) -> Result<Option<Answer>, ConsulError> {
        match self.call(request).await {
            Ok(answer) if answer.is_missing() => Ok(None),
            Err(error) if is_unknown(&error.to_string()) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn ask(&self, at: usize, request: &Request) -> Result<Answer, Broken> {
        let address = &self.agents.addresses[at];
        let limit = request.wait + request.wait / 16 + SLACK;
        let idle = &self.agents.idle;
        let mut reused = idle.take(at, self.clock.now()).await;
        loop {
            let is_reused = reused.is_some();
            let mut connection = match reused.take() {
                Some(connection) => connection,
                None => self.connect(address).await?,
            };
            let message = self.message(address, request)?;
            let exchanged = connection
                .exchange(message, limit, self.max_answer, &self.clock)
                .await;
            match exchanged {
                Ok(response) => {
                    idle.put(at, self.clock.now(), connection);
                    return answer(response, request).map_err(|error| Broken { error, sent: true });
                }
                // The agent has closed it while nobody looked; a fresh one tells what there is to tell.
                Err(broken) if is_reused && (!broken.sent || request.is_safe()) => {}
                Err(broken) => return Err(broken),
            }
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn connect(&self, address: &Address) -> Result<Connection, Broken> {
        Connection::open(address, &self.clock).await
    }

    #[cfg(feature = "tls")]
    async fn connect(&self, address: &Address) -> Result<Connection, Broken> {
        if !address.is_secure() {
            return Connection::open(address, &self.clock).await;
        }
        let secured = self.secured().map_err(Broken::unsent)?;
        Connection::open_secure(address, &self.clock, secured).await
    }

    #[cfg(feature = "tls")]
    fn secured(&self) -> Result<&Secured, ConsulError> {
        if let Some(secured) = self.secured.get() {
            return Ok(secured);
        }
        let secured = Secured::new(Tls::new())?;
        Ok(self.secured.get_or_init(|| secured))
    }

    fn message(
        &self,
        address: &Address,
        request: &Request,
    ) -> Result<http::Request<Full<Bytes>>, Broken> {
        let mut request = request.clone();
        for (name, value) in [("dc", &self.datacenter), ("ns", &self.namespace)] {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        let mut message = http::Request::builder()
            .method(request.method)
            .uri(request.target)
            .header(HOST, address.to_string());
        if let Some(token) = self.token.header() {
            message = message.header("x-consul-token", token);
        }
        message.body(Full::new(request.body)).map_err(|error| {
            let error = ConsulError::refused("it cannot be put into a request").caused_by(error);
            Broken::unsent(error)
        })
    }
}

/// One of several that cannot prove who it is says nothing about the others.
fn may_be_had_elsewhere(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Untrusted(_))
}

fn answer(response: http::Response<Bytes>, request: &Request) -> Result<Answer, ConsulError> {
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let text = || quoted(&body);
    match status {
        200 | 404 | 409 => {}
        403 => return Err(ConsulError::denied(&request.needs, &text())),
        429 => {
            return Err(ConsulError::unavailable(
                "the agent asks to be asked less often (429)",
            ));
        }
        // An agent says so of what it does not know, and of a cluster without a leader.
        500..=599 => {
            return Err(ConsulError::unavailable(format!(
                "the agent failed ({status}): {}",
                text()
            )));
        }
        _ => {
            return Err(ConsulError::refused(format!(
                "the agent refused ({status}): {}",
                text()
            )));
        }
    }
    Ok(Answer {
        status,
        index: number(&head.headers, "x-consul-index"),
        last_contact: Duration::from_millis(
            number(&head.headers, "x-consul-lastcontact").unwrap_or(0),
        ),
        filtered: head
            .headers
            .get("x-consul-results-filtered-by-acls")
            .is_some_and(|value| value == "true"),
        body,
    })
}

fn is_unknown(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "unknown check",
        "unknown service",
        "does not have associated ttl",
    ]
    .iter()
    .any(|unknown| text.contains(unknown))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
