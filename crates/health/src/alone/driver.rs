use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{checks::HealthDriver, outlier::OutlierDriver};

/// Judges the service of one [`HealthLayer`](crate::HealthLayer), and checks it if there is a check.
///
/// Spawn it, or poll it beside other work; no call is refused until then. It ends when every layer and service is gone.
///
/// # Cancel safety
///
/// When it is dropped, or ends, no call is refused any more.
#[derive(Debug)]
#[must_use = "no call is refused until the driver is polled"]
pub struct HealthLayerDriver {
    ejecting: Option<OutlierDriver>,
    checking: Option<HealthDriver>,
}

impl HealthLayerDriver {
    pub(crate) fn new(ejecting: OutlierDriver, checking: Option<HealthDriver>) -> Self {
        Self {
            ejecting: Some(ejecting),
            checking,
        }
    }
}

impl Future for HealthLayerDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        poll_to_its_end(&mut this.ejecting, cx);
        poll_to_its_end(&mut this.checking, cx);
        match (&this.ejecting, &this.checking) {
            (None, None) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

fn poll_to_its_end<F: Future<Output = ()> + Unpin>(driver: &mut Option<F>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && Pin::new(running).poll(cx).is_ready()
    {
        *driver = None;
    }
}
