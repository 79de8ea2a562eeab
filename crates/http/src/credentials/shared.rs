//! What calls and the driver share: the latest token.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tower_mesh_core::{BoxError, Instant};

/// The latest token, or why there is none.
#[derive(Clone, Default)]
pub(super) enum Latest {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    Token {
        header: HeaderValue,
        until: Instant,
    },
    /// It is not asked again before then.
    Failed {
        error: CredentialsError,
        until: Instant,
    },
}

pub(super) struct Shared {
    pub(super) latest: watch::Sender<Latest>,
    /// A call has to have another token.
    pub(super) wanted: Notify,
    /// A call had one since it was last renewed.
    pub(super) used: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            latest: watch::Sender::new(Latest::default()),
            wanted: Notify::new(),
            used: AtomicBool::new(false),
        })
    }

    /// What a call that begins at `now` is given at once, if anything.
    pub(super) fn now(&self, now: Instant) -> Option<Result<HeaderValue, CredentialsError>> {
        match &*self.latest.borrow() {
            Latest::Token { header, until } if now < *until => {
                self.used.store(true, Relaxed);
                Some(Ok(header.clone()))
            }
            Latest::Failed { error, until } if now < *until => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Whether a call that begins at `now` would have to wait.
    pub(super) fn needs_another(&self, now: Instant) -> bool {
        match &*self.latest.borrow() {
            Latest::Unknown => true,
            Latest::Token { until, .. } | Latest::Failed { until, .. } => now >= *until,
        }
    }

    /// The service has refused this token: it is not used again, unless there is another by now.
    pub(super) fn refused(&self, refused: &HeaderValue) {
        let renew = self.latest.send_if_modified(|latest| {
            let same = matches!(latest, Latest::Token { header, .. } if header == refused);
            if same {
                *latest = Latest::Unknown;
            }
            same
        });
        if renew {
            self.wanted.notify_one();
        }
    }
}

/// There is no token for a service, so the call was not sent.
///
/// What the provider said is its `source()`.
///
/// # Clone
///
/// A clone is the same error: all calls that waited have it.
#[derive(Clone)]
pub struct CredentialsError(Arc<BoxError>);

impl CredentialsError {
    pub(super) fn new(error: BoxError) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Debug for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CredentialsError").field(&self.0).finish()
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no token for the service")
    }
}

impl Error for CredentialsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.0)
    }
}
