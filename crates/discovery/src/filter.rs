//! Which endpoints callers get to see.

use tower_mesh_core::{Endpoint, Health};

/// Says which of a service's endpoints callers get to see.
///
/// Unless said otherwise those that the registry calls passing or warning. What is filtered out is counted in the
/// status; it comes in with fresh state when its description changes.
///
/// # Example
///
/// ```
/// use tower_mesh_discovery::Filter;
///
/// // Healthy, in the canary or of version 2, and not retired.
/// let filter = Filter::default()
///     .and(Filter::tag("canary").or(Filter::metadata("version", "2")))
///     .and(Filter::tag("retired").negate());
/// # let _ = filter;
/// ```
#[derive(Clone, Debug)]
pub struct Filter(Rule);

#[derive(Clone, Debug)]
enum Rule {
    Everything,
    Health(Health),
    Tag(Box<str>),
    Metadata(Box<str>, Box<str>),
    Not(Box<Rule>),
    Both(Box<Rule>, Box<Rule>),
    Either(Box<Rule>, Box<Rule>),
}

impl Filter {
    /// Keeps every endpoint, critical ones too.
    pub const fn everything() -> Self {
        Self(Rule::Everything)
    }

    /// Keeps endpoints that are no worse than `worst`.
    pub const fn health(worst: Health) -> Self {
        Self(Rule::Health(worst))
    }

    /// Keeps endpoints that have this tag.
    pub fn tag(tag: &str) -> Self {
        Self(Rule::Tag(tag.into()))
    }

    /// Keeps endpoints whose metadata says exactly `value` for `key`.
    pub fn metadata(key: &str, value: &str) -> Self {
        Self(Rule::Metadata(key.into(), value.into()))
    }

    /// Keeps what both keep.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(Rule::Both(self.0.into(), other.0.into()))
    }

    /// Keeps what either keeps.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(Rule::Either(self.0.into(), other.0.into()))
    }

    /// Keeps what this one does not.
    #[must_use]
    pub fn negate(self) -> Self {
        Self(Rule::Not(self.0.into()))
    }

    /// Whether callers get to see `endpoint`.
    pub fn keeps(&self, endpoint: &Endpoint) -> bool {
        self.0.holds(endpoint)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::health(Health::Warning)
    }
}

impl Rule {
    fn holds(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Everything => true,
            Self::Health(worst) => endpoint.health() <= *worst,
            Self::Tag(tag) => endpoint.has_tag(tag),
            Self::Metadata(key, value) => endpoint.metadata(key) == Some(value),
            Self::Not(rule) => !rule.holds(endpoint),
            Self::Both(a, b) => a.holds(endpoint) && b.holds(endpoint),
            Self::Either(a, b) => a.holds(endpoint) || b.holds(endpoint),
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn unless_said_otherwise_only_critical_endpoints_are_kept_from_callers() {
        let keeps = |health| Filter::default().keeps(&endpoint().with_health(health));
        assert_eq!(
            [Health::Passing, Health::Warning, Health::Critical].map(keeps),
            [true, true, false]
        );
        assert!(Filter::everything().keeps(&endpoint().with_health(Health::Critical)));
    }

    #[test]
    fn tags_and_metadata_combine() {
        let filter = Filter::tag("a")
            .or(Filter::metadata("version", "2"))
            .and(Filter::tag("retired").negate());
        let two = endpoint().with_metadata("version", "2");
        assert!(filter.keeps(&endpoint().with_tag("a")));
        assert!(filter.keeps(&two));
        assert!(!filter.keeps(&two.with_tag("retired")));
        assert!(!filter.keeps(&endpoint().with_metadata("version", "20")));
    }
}
