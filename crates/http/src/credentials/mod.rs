//! What a client shows to one service, and to no other.
//!
//! A [`TokenProvider`] gives tokens for one service. [`CredentialsLayer`] keeps the latest, puts it into each request, and
//! its [`CredentialsDriver`] has the next one ready before that one expires.
//!
//! # What happens to a request
//!
//! | | |
//! |---|---|
//! | there is a token | it goes along at once, marked as sensitive, unless the request has an `Authorization` of its own |
//! | there is none, or it has expired | the call waits for the provider, with all others that do, for as long as the call may take |
//! | the provider fails | those who wait fail with [`CredentialsError`], before anything was sent; so do those who come within the pause before it is asked again |
//! | the service answers 401 | the answer goes to the caller, and the token is not used again |
//!
//! # How often the provider is asked
//!
//! When the first call needs a token; then, as long as there are calls, when four fifths of a token's time have passed, and
//! after a 401. Never twice at once, never more than once a second, no longer than 10 s at a time; after a failure with
//! a pause that doubles from 1 s to 30 s. A service that is not called costs no token.
//!
//! # Where a token goes
//!
//! The layer stands in the stack of one service, beneath all that chooses services. Nothing here follows redirects; a client
//! of your own that does is one that sends tokens where a service tells it to.
//!
//! ```
//! use std::time::Duration;
//! use tower_mesh_http::credentials::{CredentialsLayer, Token};
//!
//! // Asks whoever gives tokens away; here one is made up.
//! let provider = || async {
//!     let token = Token::bearer("made-up")?;
//!     Ok::<_, tower::BoxError>(token.expires_in(Duration::from_secs(3600)))
//! };
//! let (layer, driver) = CredentialsLayer::new(provider).build();
//! // The driver is spawned, the layer put beneath a limit and above retries.
//! # let _ = (layer, driver);
//! ```

mod driver;
mod service;
mod shared;
mod token;

pub use self::{
    driver::CredentialsDriver,
    service::{Credentialed, CredentialsBuilder, CredentialsFuture, CredentialsLayer},
    shared::CredentialsError,
    token::{InvalidToken, Token, TokenProvider},
};

#[cfg(test)]
mod tests;
