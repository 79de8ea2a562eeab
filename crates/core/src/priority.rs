//! What is to be done first, and what may be left undone.

use std::{cell::Cell, fmt};

thread_local! {
    static HERE: Cell<Priority> = const { Cell::new(Priority::Default) };
}

/// How much it matters that a request is answered: what has more than it can do does the more important first, and leaves
/// the less important undone.
///
/// Three classes, as Google's: more, and nobody can say of a request which it is.
///
/// | class | for | when there is too much to do |
/// |---|---|---|
/// | `Critical` | what somebody waits for and cannot do without: a payment | goes before all others |
/// | `Default` | what nobody said anything of | |
/// | `Sheddable` | what can be done later or not at all: a prefetch, a report, a job | is refused first |
///
/// The order is that of importance: `Sheddable < Default < Critical`, so `min` bounds what somebody claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Priority {
    /// Refused first.
    Sheddable,
    /// Neither.
    #[default]
    Default,
    /// Refused last.
    Critical,
}

impl Priority {
    /// All of them, by the name that configurations and headers give them; the most important first.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("critical", Self::Critical),
        ("default", Self::Default),
        ("sheddable", Self::Sheddable),
    ];

    /// The class of this name, exactly so written.
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(known, _)| *known == name);
        named.map(|(_, priority)| *priority)
    }

    /// That of the work which is being done here: what [`within`](Self::within) says, and else `Default`.
    pub fn here() -> Self {
        HERE.get()
    }

    /// Runs `step`, a poll say, as work of this priority; after it, also on panic, the one before holds again.
    pub fn within<T>(self, step: impl FnOnce() -> T) -> T {
        struct Restore(Priority);

        impl Drop for Restore {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }

        let _restore = Restore(HERE.replace(self));
        step()
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_found_by_its_name_and_by_no_other() {
        for (name, priority) in Priority::NAMES {
            assert_eq!(priority.as_str(), name);
            assert_eq!(Priority::named(name), Some(priority));
        }
        for other in ["", "Critical", "critical ", "high", "0"] {
            assert_eq!(Priority::named(other), None, "{other:?}");
        }
    }

    #[test]
    fn it_holds_within_a_step_and_no_longer_also_if_that_panics() {
        Priority::Critical.within(|| {
            let panicked = std::panic::catch_unwind(|| Priority::Sheddable.within(|| panic!()));
            assert!(panicked.is_err());
            assert_eq!(Priority::here(), Priority::Critical);
        });
        assert_eq!(Priority::here(), Priority::Default);
    }

    #[test]
    fn the_less_important_is_the_lesser() {
        assert!(Priority::Sheddable < Priority::default());
        assert!(Priority::default() < Priority::Critical);
    }
}
