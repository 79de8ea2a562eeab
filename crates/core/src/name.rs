//! Names of services, checked once.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The name of a service in the mesh: `[A-Za-z0-9]`, `-`, `_` and `.`, at most 253 bytes.
///
/// It holds no path, port, space, percent sign or control character, and no empty part between dots, so it can stand
/// in a URL, a header, a metric label or a key without steering any of them.
///
/// # Clone
///
/// A clone shares the text and allocates nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// The longest name: that of DNS.
const MAX_LEN: usize = 253;

impl ServiceName {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says which character or rule it breaks.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let refuse = |why| Err(InvalidName::new(name, why));
        if name.is_empty() {
            return refuse(Why::Empty);
        }
        if name.len() > MAX_LEN {
            return refuse(Why::TooLong);
        }
        if let Some(c) = name.chars().find(|c| !is_allowed(*c)) {
            return refuse(Why::Character(c));
        }
        if name.split('.').any(str::is_empty) {
            return refuse(Why::EmptyPart);
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return refuse(Why::Start);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ServiceName {
    type Error = InvalidName;

    fn try_from(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(&name)
    }
}

impl From<&ServiceName> for ServiceName {
    fn from(name: &ServiceName) -> Self {
        name.clone()
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A text is no [`ServiceName`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    name: Box<str>,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Empty,
    TooLong,
    Character(char),
    EmptyPart,
    Start,
}

impl InvalidName {
    fn new(name: &str, why: Why) -> Self {
        // What is refused may be hostile: keep enough to recognise it, no more.
        let name = name.chars().take(40).collect::<String>().into();
        Self { name, why }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid service name {:?}: ", self.name)?;
        match self.why {
            Why::Empty => f.write_str("it is empty"),
            Why::TooLong => write!(f, "it is longer than {MAX_LEN} bytes"),
            Why::Character(c) => {
                write!(
                    f,
                    "{c:?} is not allowed, only ASCII letters, digits, '-', '_' and '.'"
                )
            }
            Why::EmptyPart => f.write_str("a part between dots is empty"),
            Why::Start => f.write_str("it must start with a letter or a digit"),
        }
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_steer_a_url_or_a_log_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "a/b",
            "a%2fb",
            "a?b",
            "a#b",
            "a:80",
            "a b",
            "a\r\nb",
            "a\0",
            "оrders",
            "-a",
            "_a",
            "user@host",
        ] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(ServiceName::new(&"a".repeat(254)).is_err());
        assert!(ServiceName::new(&"a".repeat(253)).is_ok());
        assert!(ServiceName::new("orders.v2_eu-1").is_ok());
    }

    #[test]
    fn the_refusal_says_what_is_wrong_and_stays_short() {
        let error = ServiceName::new(&"/".repeat(10_000))
            .unwrap_err()
            .to_string();
        assert!(error.len() < 200, "{error}");
        let error = ServiceName::new("a/b").unwrap_err().to_string();
        assert!(error.contains("'/' is not allowed"), "{error}");
    }

    proptest! {
        #[test]
        fn exactly_what_is_safe_in_a_url_is_accepted(name in "[a.-]{0,6}|[a-zA-Z0-9_.-]{1,300}|.{0,40}|\\PC{250,256}") {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            let safe = (1..=253).contains(&name.len())
                && name.bytes().all(allowed)
                && name.as_bytes()[0].is_ascii_alphanumeric()
                && name.split('.').all(|part| !part.is_empty());
            match ServiceName::new(&name) {
                Ok(accepted) => {
                    prop_assert!(safe, "{:?} was accepted", name);
                    prop_assert_eq!(accepted.as_str(), name);
                }
                Err(refused) => {
                    prop_assert!(!safe, "{:?} was refused: {}", name, refused);
                    let message = refused.to_string();
                    prop_assert!(message.len() < 600 && !message.chars().any(char::is_control));
                }
            }
        }
    }
}
