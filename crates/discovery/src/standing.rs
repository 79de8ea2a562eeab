//! Whether calls may pass: one word that every call reads.

use tower_mesh_core::{
    EndpointSet, Resolution,
    sync::{AtomicU64, Ordering},
};

/// The latest resolution of a service, with the revision that it is of.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU64);

const PENDING: u64 = 0;
const FOUND: u64 = 1;
const ABSENT: u64 = 2;

impl Standing {
    /// One load.
    pub(crate) fn resolution(&self) -> Resolution {
        match self.0.load(Ordering::Acquire) & 3 {
            PENDING => Resolution::Pending,
            ABSENT => Resolution::Absent,
            _ => Resolution::Found,
        }
    }

    pub(crate) fn record_set(&self, set: &EndpointSet) {
        self.record(set.revision(), set.resolution());
    }

    /// News may come out of order; the word grows with the revision, so the latest wins.
    fn record(&self, revision: u64, resolution: Resolution) {
        let resolution = match resolution {
            Resolution::Pending => PENDING,
            Resolution::Found => FOUND,
            Resolution::Absent => ABSENT,
        };
        self.0
            .fetch_max(revision << 2 | resolution, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_latest_revision_decides_whatever_the_order() {
        let standing = Standing::default();
        assert_eq!(standing.resolution(), Resolution::Pending);
        standing.record(2, Resolution::Found);
        standing.record(1, Resolution::Absent);
        assert_eq!(standing.resolution(), Resolution::Found);
        standing.record(3, Resolution::Absent);
        assert_eq!(standing.resolution(), Resolution::Absent);
    }
}

#[cfg(all(test, mesh_loom))]
mod loom_tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn two_that_bring_news_at_once_leave_the_later() {
        loom::model(|| {
            let standing = Arc::new(Standing::default());
            let other = Arc::clone(&standing);
            let thread = loom::thread::spawn(move || other.record(1, Resolution::Absent));
            standing.record(2, Resolution::Found);
            assert_eq!(standing.resolution(), Resolution::Found);
            thread.join().unwrap();
            assert_eq!(standing.resolution(), Resolution::Found);
        });
    }
}
