//! Tokens that callers show.

use std::fmt;

use http::{HeaderMap, header::AUTHORIZATION};
use subtle::ConstantTimeEq;

use super::authorize::{Access, Authorize, Caller, Denied};

/// The token in `Authorization: Bearer …` (RFC 6750). It is not printed.
#[derive(Clone, Copy)]
pub struct Bearer<'a>(&'a str);

/// More no token has; those of OpenID Connect have 1 to 2 KiB.
const LONGEST: usize = 8 * 1024;

impl<'a> Bearer<'a> {
    /// The one that is there, if exactly one is, and is well-formed: letters, digits and `-._~+/`, then perhaps `=`.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next()?.to_str().ok()?;
        if values.next().is_some() {
            return None;
        }
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim_matches(' ');
        let well_formed = scheme.eq_ignore_ascii_case("bearer") && is_token(token);
        well_formed.then_some(Self(token))
    }

    /// Whether it is `token`. How long it takes says how long `token` is, and nothing else of it.
    pub fn is(&self, token: &str) -> bool {
        self.0.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// The token itself, for who verifies a signature. It is a secret: print it nowhere.
    pub const fn expose(&self) -> &'a str {
        self.0
    }
}

/// Whether it can be sent as a bearer token.
pub(crate) fn is_token(token: &str) -> bool {
    let known = token.trim_end_matches('=');
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !known.is_empty() && token.len() <= LONGEST && known.bytes().all(of_token)
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

/// Callers that are known by their tokens, and what each may do. None of it is printed.
///
/// ```
/// use tower_mesh_http::server::BearerTokens;
///
/// # let (storefront, reports) = ("token-of-the-storefront", "token-of-the-reports");
/// let callers = BearerTokens::new()
///     .allow("storefront", storefront, [""; 0])
///     .allow("reports", reports, ["/orders/summary", "/shop.Reports/"]);
/// ```
///
/// # Clone
///
/// A clone knows the same callers.
#[derive(Clone, Default)]
pub struct BearerTokens(Vec<Known>);

#[derive(Clone)]
struct Known {
    caller: Caller,
    token: String,
    operations: Vec<String>,
}

impl BearerTokens {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows whoever shows `token` as `caller`, who may do `operations`: paths, and with a slash at their end all that begin
    /// with them; everything, if none are named.
    ///
    /// A caller may have several tokens, as it does while one is replaced. What is no token (empty, or with a space in it)
    /// nobody can show.
    #[must_use]
    pub fn allow<O: Into<String>>(
        mut self,
        caller: &str,
        token: impl Into<String>,
        operations: impl IntoIterator<Item = O>,
    ) -> Self {
        self.0.push(Known {
            caller: Caller::new(caller),
            token: token.into(),
            operations: operations.into_iter().map(Into::into).collect(),
        });
        self
    }
}

impl Authorize for BearerTokens {
    fn authorize(&self, access: &Access<'_>) -> Result<Caller, Denied> {
        let bearer = access.bearer();
        let bearer = bearer.ok_or_else(|| Denied::unauthenticated("it shows no bearer token"))?;
        // All are looked at, so that how long it takes does not say which it was.
        let mut found = None;
        for known in &self.0 {
            if bearer.is(&known.token) {
                found = found.or(Some(known));
            }
        }
        let known = found.ok_or_else(|| Denied::unauthenticated("nobody has this token"))?;
        if known.may(access.operation()) {
            Ok(known.caller.clone())
        } else {
            let name = known.caller.name().unwrap_or_default();
            Err(Denied::forbidden(format!("{name} may not do this")))
        }
    }
}

impl Known {
    fn may(&self, operation: &str) -> bool {
        let begins = |allowed: &String| {
            operation == allowed || allowed.ends_with('/') && operation.starts_with(allowed)
        };
        self.operations.is_empty()
            // What a path with dots comes to is for whoever resolves them to say.
            || self.operations.iter().any(begins) && !operation.contains("/..")
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callers = self.0.iter().map(|known| known.caller.name());
        f.debug_list().entries(callers).finish()
    }
}
