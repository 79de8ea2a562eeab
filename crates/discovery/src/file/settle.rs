//! When a file that changes is worth reading.

/// Decides whether to read a file, from what it looked like each time.
///
/// It is read at once when it is new, and again when it has settled: looked the same twice. The second reading is not
/// only for what was written in between: file systems count time in steps, so what is written within the step in which
/// it was first seen may look the same.
#[derive(Debug)]
pub(super) struct Settle<S> {
    seen: Option<S>,
    settled: bool,
    /// How often it looked different in a row.
    restless: u8,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    Leave,
    /// Look again soon.
    Wait,
    Read,
    /// It may be half of a file: look again soon as well.
    ReadAndWait,
}

/// A file that is written to all the time is read as it is.
const PATIENCE: u8 = 8;

impl<S> Default for Settle<S> {
    fn default() -> Self {
        Self {
            seen: None,
            settled: false,
            restless: 0,
        }
    }
}

impl<S: PartialEq> Settle<S> {
    pub(super) fn look(&mut self, stamp: S) -> Advice {
        let Some(seen) = self.seen.replace(stamp) else {
            return Advice::ReadAndWait;
        };
        if self.seen.as_ref() != Some(&seen) {
            self.settled = false;
            self.restless += 1;
            if self.restless < PATIENCE {
                return Advice::Wait;
            }
            self.restless = 0;
            return Advice::ReadAndWait;
        }
        if std::mem::replace(&mut self.settled, true) {
            return Advice::Leave;
        }
        self.restless = 0;
        Advice::Read
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use Advice::{Leave, Read, ReadAndWait, Wait};

    fn advice(stamps: &[u32]) -> Vec<Advice> {
        let mut settle = Settle::default();
        stamps.iter().map(|stamp| settle.look(*stamp)).collect()
    }

    #[test]
    fn a_new_file_is_read_at_once_and_again_when_it_has_settled() {
        assert_eq!(advice(&[1, 1, 1, 1]), [ReadAndWait, Read, Leave, Leave]);
    }

    #[test]
    fn a_change_is_read_when_it_looks_the_same_twice() {
        let all = advice(&[1, 1, 2, 3, 3, 3, 2, 2]);
        assert_eq!(all[2..], [Wait, Wait, Read, Leave, Wait, Read]);
    }

    #[test]
    fn a_file_that_never_settles_is_read_all_the_same() {
        let stamps: Vec<_> = (0..20).collect();
        let reads = advice(&stamps)
            .iter()
            .filter(|a| **a == ReadAndWait)
            .count();
        assert_eq!(reads, 3);
    }
}
