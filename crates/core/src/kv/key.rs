//! Keys of a store, checked once.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// A key: segments of `[A-Za-z0-9._-]+` joined by `/`, at most 512 bytes.
///
/// No segment is `.` or `..` and none is empty, so no store and no URL can be steered by it: `a/../b`, `a//b`, `/a` and
/// `a?recurse` are not keys.
///
/// # Clone
///
/// A clone shares the text and allocates nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

const MAX_LEN: usize = 512;

impl Key {
    /// Checks `key`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] says which rule it breaks.
    pub fn new(key: &str) -> Result<Self, InvalidKey> {
        match broken(key) {
            Some(why) => Err(InvalidKey::new(key, why)),
            None => Ok(Self(key.into())),
        }
    }

    /// The key `segments` beneath this one.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] if the whole is no key.
    pub fn join(&self, segments: &str) -> Result<Self, InvalidKey> {
        Self::new(&format!("{self}/{segments}"))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, the outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn broken(key: &str) -> Option<Why> {
    if key.len() > MAX_LEN {
        return Some(Why::TooLong);
    }
    if let Some(c) = key.chars().find(|c| !is_allowed(*c)) {
        return Some(Why::Character(c));
    }
    key.split('/').find_map(|segment| match segment {
        "" => Some(Why::EmptySegment),
        "." | ".." => Some(Why::DotSegment),
        _ => None,
    })
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

/// A part of the tree: the keys beneath a key, or all.
///
/// It goes by whole segments: beneath `orders` lies `orders/1`, but neither `orders-old/1` nor `orders` itself.
///
/// # Clone
///
/// A clone shares the text and allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Option<Key>);

impl Prefix {
    /// Every key.
    pub const fn all() -> Self {
        Self(None)
    }

    /// The keys beneath `key`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] says which rule it breaks.
    pub fn new(key: &str) -> Result<Self, InvalidKey> {
        Key::new(key).map(Self::from)
    }

    /// The key beneath which it lies; none if it is every key.
    pub fn key(&self) -> Option<&Key> {
        self.0.as_ref()
    }

    /// Whether `key` lies beneath it.
    pub fn covers(&self, key: &Key) -> bool {
        match &self.0 {
            None => true,
            Some(above) => key
                .0
                .strip_prefix(&*above.0)
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

impl From<Key> for Prefix {
    fn from(key: Key) -> Self {
        Self(Some(key))
    }
}

impl fmt::Display for Prefix {
    /// What all keys beneath it begin with: empty, or a key and a slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(key) => write!(f, "{key}/"),
            None => Ok(()),
        }
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(key: &str) -> Result<Self, InvalidKey> {
        Self::new(key)
    }
}

impl TryFrom<&str> for Key {
    type Error = InvalidKey;

    fn try_from(key: &str) -> Result<Self, InvalidKey> {
        Self::new(key)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A text is no [`Key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey {
    key: Box<str>,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    TooLong,
    Character(char),
    EmptySegment,
    DotSegment,
}

impl InvalidKey {
    fn new(key: &str, why: Why) -> Self {
        // What is refused may be hostile: keep enough to recognise it, no more.
        let key = key.chars().take(40).collect::<String>().into();
        Self { key, why }
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid key {:?}: ", self.key)?;
        match self.why {
            Why::TooLong => write!(f, "it is longer than {MAX_LEN} bytes"),
            Why::Character(c) => write!(
                f,
                "{c:?} is not allowed, only ASCII letters, digits, '-', '_', '.' and '/' between segments"
            ),
            Why::EmptySegment => f.write_str("a segment is empty"),
            Why::DotSegment => f.write_str("a segment is '.' or '..'"),
        }
    }
}

impl std::error::Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    // Row 12 of reference/performance.md (f).
    fn keys_that_would_steer_a_path_or_a_query_are_refused() {
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "../a",
            "a?recurse",
            "a#b",
            "a%2fb",
            "a b",
            "a\\b",
            "a\0",
            "a\r\nb",
            "ключ",
            "a:b",
            "a*",
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Key::new(&"a".repeat(513)).is_err());
        assert!(Key::new(&"a".repeat(512)).is_ok());
        for good in [
            "a",
            "a/b",
            "orders/partition-7/owner",
            "..a",
            "a..b/...",
            "A_1.x",
        ] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn joining_cannot_climb_out() {
        let orders = Key::new("orders").unwrap();
        assert_eq!(orders.join("7/owner").unwrap().as_str(), "orders/7/owner");
        assert!(orders.join("../carts").is_err());
        assert!(orders.join("").is_err());
        assert!(orders.join(&"a".repeat(506)).is_err(), "513 bytes in all");
    }

    #[test]
    fn a_prefix_goes_by_whole_segments() {
        let orders = Prefix::new("orders").unwrap();
        let covers = |key| orders.covers(&Key::new(key).unwrap());
        assert!(covers("orders/1") && covers("orders/1/owner"));
        assert!(!covers("orders") && !covers("orders-old/1") && !covers("a/orders/1"));
        assert!(Prefix::all().covers(&Key::new("orders").unwrap()));
        assert_eq!(
            (orders.to_string(), Prefix::all().to_string()),
            ("orders/".into(), "".into())
        );
    }

    #[test]
    fn the_refusal_says_what_is_wrong_and_stays_short() {
        let error = Key::new(&"?".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
        let error = Key::new("a/../b").unwrap_err().to_string();
        assert!(error.contains("a segment is '.' or '..'"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_safe_in_a_path(key in "[a./?%_ -]{0,12}|.{0,20}|[a/.]{500,530}") {
            let accepted = Key::new(&key);
            let safe = (1..=512).contains(&key.len())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
                && key.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
            prop_assert_eq!(accepted.is_ok(), safe);
            if let Ok(accepted) = accepted {
                prop_assert_eq!(accepted.segments().collect::<Vec<_>>().join("/"), key);
            }
        }

        #[test]
        fn a_prefix_covers_exactly_what_was_joined_to_it(a in "[ab/.]{1,6}", b in "[ab/.]{1,6}") {
            if let (Ok(above), Ok(below)) = (Key::new(&a), Key::new(&b)) {
                let prefix = Prefix::from(above.clone());
                prop_assert!(prefix.covers(&above.join(&b).unwrap()));
                prop_assert_eq!(prefix.covers(&below), b.starts_with(&prefix.to_string()));
            }
        }
    }
}
