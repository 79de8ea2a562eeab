//! The one future that does all look-ups.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream::{FuturesUnordered, Stream};

use crate::{follow::Follow, shared::Shared};

/// Looks services up and follows them, for every handle of one [`Discovery`](crate::Discovery).
///
/// Spawn it, or poll it beside other work; nothing is looked up until then. It ends when every handle, layer and
/// stream of changes is gone, or after [`Discovery::shutdown`](crate::Discovery::shutdown). A source that panics fails
/// for the service that it was asked for, nothing else.
///
/// # Cancel safety
///
/// Dropping it ends all look-ups. What is known stays, without further changes; a call that waits for a first answer
/// fails at once, and so does each call to a service that was not known by then.
#[derive(Debug)]
#[must_use = "nothing is looked up until the driver is polled"]
pub struct Driver {
    shared: Arc<Shared>,
    follows: FuturesUnordered<Follow>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            follows: FuturesUnordered::new(),
        }
    }

    fn stop(&mut self) {
        self.follows.clear();
        self.shared.stopped();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(new) = this.shared.poll_new(cx.waker()) else {
            this.stop();
            return Poll::Ready(());
        };
        for entry in new {
            let follow = Follow::new(Arc::clone(&this.shared), entry);
            this.follows.push(follow);
        }
        // One that ends has been evicted; there is nothing left of it.
        while let Poll::Ready(Some(())) = Pin::new(&mut this.follows).poll_next(cx) {}
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}
