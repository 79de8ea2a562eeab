//! The future that compares endpoints, and lets them come back.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{Instant, Sleep};

use crate::outlier::group::Group;

/// Compares the endpoints of one service once in each interval, and lets ejected ones come back when their time is over.
///
/// Spawn it, or poll it beside other work; nobody is ejected until then. It ends when every layer and handle is gone.
///
/// # Cancel safety
///
/// When it is dropped, or ends, everybody who is ejected takes calls again, and nobody will be ejected any more: there
/// would be nobody to let them back.
#[must_use = "nobody is ejected until the driver is polled"]
pub struct OutlierDriver {
    group: Arc<Group>,
    /// When endpoints are compared next; nothing before the first poll.
    next: Option<Instant>,
    sleep: Option<Sleep>,
}

impl OutlierDriver {
    pub(crate) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            next: None,
            sleep: None,
        }
    }

    /// Does what is due; says when there is more to do.
    fn work(&mut self, now: Instant) -> Instant {
        let interval = self.group.policy().interval;
        let mut next = self.next.unwrap_or(now + interval);
        // A shorter interval holds at once. Turns that were missed are not made up for.
        next = next.min(now + interval);
        let mut back = self.group.lift_due(now);
        if next <= now {
            self.group.evaluate(now);
            back = self.group.lift_due(now);
            next = now + interval;
        }
        self.next = Some(next);
        back.map_or(next, |back| back.min(next))
    }
}

impl Future for OutlierDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if !this.group.runs(cx.waker()) {
                this.group.stopped();
                return Poll::Ready(());
            }
            let at = this.work(this.group.clock().now());
            let sleep = this
                .sleep
                .get_or_insert_with(|| this.group.clock().sleep_until(at));
            if sleep.deadline() != at {
                Pin::new(&mut *sleep).reset(at);
            }
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
        }
    }
}

impl Drop for OutlierDriver {
    fn drop(&mut self) {
        self.group.stopped();
    }
}

impl fmt::Debug for OutlierDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierDriver")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
