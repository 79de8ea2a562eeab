//! One request to Consul, and what it answers.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{ConsulError, quoted};

/// A request, whatever agent it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: Bytes,
    /// The permission that it takes, for when that is denied.
    pub(crate) needs: String,
    /// How long the agent may hold it.
    pub(crate) wait: Duration,
}

impl Request {
    /// A request for `/v1/` and `path`, whose every segment is encoded.
    pub(crate) fn new(method: Method, path: &[&str], needs: impl Into<String>) -> Self {
        let mut target = String::from("/v1");
        for segment in path {
            target.push('/');
            encode(segment, &mut target);
        }
        Self {
            method,
            target,
            body: Bytes::new(),
            needs: needs.into(),
            wait: Duration::ZERO,
        }
    }

    pub(crate) fn get(path: &[&str], needs: impl Into<String>) -> Self {
        Self::new(Method::GET, path, needs)
    }

    pub(crate) fn put(path: &[&str], needs: impl Into<String>) -> Self {
        Self::new(Method::PUT, path, needs)
    }

    /// Adds `name=value` to the query.
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.separate();
        self.target.push_str(name);
        self.target.push('=');
        encode(value.as_ref(), &mut self.target);
        self
    }

    /// Adds `name` to the query.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.separate();
        self.target.push_str(name);
        self
    }

    /// Lets the agent hold the request for `wait`, until something newer than `index` is there.
    pub(crate) fn after(mut self, index: u64, wait: Duration) -> Self {
        if index == 0 {
            return self;
        }
        self.wait = wait;
        self.query("index", index.to_string())
            .query("wait", format!("{}ms", wait.as_millis()))
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, ConsulError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ConsulError::refused("it cannot be put into JSON").caused_by(error))?;
        self.body = body.into();
        Ok(self)
    }

    /// Whether an answer that took so long had been held for as long as it might be.
    pub(crate) fn is_held(&self, took: Duration) -> bool {
        !self.wait.is_zero() && took >= self.wait
    }

    /// Whether sending it twice does no harm.
    pub(crate) fn is_safe(&self) -> bool {
        self.method == Method::GET
    }

    fn separate(&mut self) {
        let separator = match self.target.contains('?') {
            true => '&',
            false => '?',
        };
        self.target.push(separator);
    }
}

/// Percent-encodes all but what stands for itself everywhere in a URL.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// `X-Consul-Index`, if it is a number.
    pub(crate) index: Option<u64>,
    /// How long the agent has heard nothing of a leader.
    pub(crate) last_contact: Duration,
    /// Something was left out that the token may not read.
    pub(crate) filtered: bool,
}

/// What is parsed on the spot; more goes to a thread that may block.
const SMALL: usize = 256 * 1024;

impl Answer {
    pub(crate) fn is_missing(&self) -> bool {
        self.status == 404
    }

    /// The body as JSON; a large one is read where blocking is allowed.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(self) -> Result<T, ConsulError> {
        if self.body.len() <= SMALL {
            return parse(&self.body);
        }
        let parsed = tokio::task::spawn_blocking(move || parse(&self.body));
        parsed.await.map_err(|error| {
            ConsulError::malformed("reading the answer panicked").caused_by(error)
        })?
    }

    /// What it says of what went wrong.
    pub(crate) fn text(&self) -> String {
        quoted(&self.body)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ConsulError> {
    serde_json::from_slice(body)
        .map_err(|error| ConsulError::malformed("the answer is not Consul's JSON").caused_by(error))
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    /// Rows 10 to 12 of reference/performance.md (f).
    #[test]
    fn nothing_that_is_put_into_a_request_steers_it() {
        let request = Request::get(&["kv", "a/../b?recurse#\r\nx"], "key:read")
            .flag("consistent")
            .query("dc", "a&b=c")
            .after(7, Duration::from_secs(2));
        assert_eq!(
            request.target,
            "/v1/kv/a%2F..%2Fb%3Frecurse%23%0D%0Ax?consistent&dc=a%26b%3Dc&index=7&wait=2000ms"
        );
        assert!(request.target.parse::<http::Uri>().is_ok());
    }

    #[test]
    fn a_request_that_waits_for_nothing_is_not_held() {
        let request = Request::get(&["kv"], "").after(0, Duration::from_secs(2));
        assert_eq!((&*request.target, request.wait), ("/v1/kv", Duration::ZERO));
    }
}
