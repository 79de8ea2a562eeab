//! What a suite has found.

use std::fmt;

/// The rules that were broken, and how.
///
/// It prints as a list, also with `{:?}`, so that `suite.await.expect("…")` shows it.
#[derive(Clone)]
pub struct Violations(Vec<(&'static str, String)>);

impl Violations {
    /// The rules that were broken, in the order of the suite; a rule comes as often as it was broken.
    pub fn rules(&self) -> Vec<&'static str> {
        self.0.iter().map(|(rule, _)| *rule).collect()
    }
}

/// Collects what each rule of a suite has found.
#[derive(Default)]
pub(super) struct Findings(Vec<(&'static str, String)>);

impl Findings {
    pub(super) fn note(&mut self, rule: &'static str, found: Result<(), String>) {
        if let Err(found) = found {
            self.0.push((rule, found));
        }
    }

    /// Notes what was found unless the rule is known to be broken.
    pub(super) fn note_once(&mut self, rule: &'static str, found: String) {
        if self.0.iter().all(|(known, _)| *known != rule) {
            self.0.push((rule, found));
        }
    }

    pub(super) fn result(self) -> Result<(), Violations> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Violations(self.0)),
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rules were broken:")?;
        let mut lines = self.0.iter();
        lines.try_for_each(|(rule, found)| write!(f, "\n- {rule}: {found}"))
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violations {}
