//! Tokens, and where they come from.

use std::{fmt, future::Future, time::Duration};

use http::HeaderValue;
use tower_mesh_core::{BoxError, BoxFuture};

use crate::server::is_token;

/// Gives tokens for one service. A closure that gives a future of a [`Token`] is one.
pub trait TokenProvider: Send + Sync + 'static {
    /// A new token. It is asked for by one task, and dropped if it takes too long.
    ///
    /// # Errors
    ///
    /// Why there is none. It is told to callers in this process, and to nobody else: the token should not stand in it.
    fn token(&self) -> BoxFuture<'_, Result<Token, BoxError>>;
}

impl<F, Fut> TokenProvider for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, BoxError>> + Send + 'static,
{
    fn token(&self) -> BoxFuture<'_, Result<Token, BoxError>> {
        Box::pin(self())
    }
}

impl TokenProvider for Box<dyn TokenProvider> {
    fn token(&self) -> BoxFuture<'_, Result<Token, BoxError>> {
        (**self).token()
    }
}

/// What is shown to a service. It is not printed.
#[derive(Clone)]
pub struct Token {
    pub(super) header: HeaderValue,
    pub(super) lifetime: Option<Duration>,
}

impl Token {
    /// A bearer token (RFC 6750), which does not expire.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] if it is none: letters, digits and `-._~+/`, then perhaps `=`, 8 KiB at most.
    pub fn bearer(token: &str) -> Result<Self, InvalidToken> {
        if !is_token(token) {
            return Err(InvalidToken(()));
        }
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| InvalidToken(()))?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            lifetime: None,
        })
    }

    /// The same, which expires so long after the provider has given it.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// What is no bearer token. It does not say what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken(());

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no bearer token: it is empty, too long, or has other than letters, digits and -._~+/=",
        )
    }
}

impl std::error::Error for InvalidToken {}
