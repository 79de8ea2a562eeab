//! When a server is told to end, and to end at once.

use std::{collections::VecDeque, future::pending, io};

use tower_mesh_core::BoxFuture;

/// What tells a server to end: the first time in good order, the second time at once.
pub(super) enum Stop {
    /// SIGTERM, and ctrl-c.
    #[cfg(feature = "signals")]
    Signals,
    #[cfg(feature = "signals")]
    Listening(Signals),
    Given(VecDeque<BoxFuture<'static, ()>>),
}

impl Stop {
    pub(super) fn new() -> Self {
        #[cfg(feature = "signals")]
        return Self::Signals;
        #[cfg(not(feature = "signals"))]
        return Self::Given(VecDeque::new());
    }

    /// Adds one more time, in the place of signals.
    pub(super) fn given(&mut self, stop: BoxFuture<'static, ()>) {
        match self {
            Self::Given(given) => given.push_back(stop),
            #[cfg(feature = "signals")]
            _ => *self = Self::Given(VecDeque::from([stop])),
        }
    }

    /// Signals are heard from now on; before, they end the process.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        #[cfg(feature = "signals")]
        if let Self::Signals = self {
            *self = Self::Listening(Signals::new()?);
        }
        Ok(())
    }

    /// Waits for the next time.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn next(&mut self) {
        match self {
            #[cfg(feature = "signals")]
            Self::Listening(signals) => signals.next().await,
            Self::Given(given) => {
                let Some(next) = given.front_mut() else {
                    return pending().await;
                };
                next.await;
                given.pop_front();
            }
            #[cfg(feature = "signals")]
            Self::Signals => pending().await,
        }
    }
}

#[cfg(all(feature = "signals", unix))]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(all(feature = "signals", unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(all(feature = "signals", not(unix)))]
pub(super) struct Signals;

#[cfg(all(feature = "signals", not(unix)))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending().await
        }
    }
}
