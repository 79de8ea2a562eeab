//! Has the next token ready before the last one expires.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{BoxError, BoxFuture, Clock, Instant};

use super::{
    shared::{CredentialsError, Latest, Shared},
    token::{Token, TokenProvider},
};

/// The provider is asked no more often, whatever it gives.
const GAP: Duration = Duration::from_secs(1);
/// As long as a token may take.
const LIMIT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Asks the provider of a [`CredentialsLayer`](super::CredentialsLayer): to be spawned. It never ends by itself.
///
/// # Cancel safety
///
/// Dropped, it ends what it is asking for; calls that wait for a token fail, and so do all that need another one.
#[must_use = "without it there is no token"]
pub struct CredentialsDriver(BoxFuture<'static, ()>);

impl CredentialsDriver {
    pub(super) fn new(
        shared: &Arc<Shared>,
        provider: Box<dyn TokenProvider>,
        clock: Clock,
    ) -> Self {
        let guard = Gone(Arc::clone(shared));
        Self(Box::pin(async move {
            drive(&guard.0, &*provider, &clock).await;
        }))
    }
}

impl Future for CredentialsDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// Tells those who wait that there will be no token.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        let error = CredentialsError::new("what asks for it has ended".into());
        let until = Instant::NEVER;
        self.0.latest.send_replace(Latest::Failed { error, until });
    }
}

async fn drive(shared: &Shared, provider: &dyn TokenProvider, clock: &Clock) {
    let mut pause = GAP;
    let mut renew_at = Instant::NEVER;
    loop {
        let wanted = clock.before(renew_at, shared.wanted.notified()).await;
        if wanted.is_some() {
            if !shared.needs_another(clock.now()) {
                continue; // It has come meanwhile.
            }
        } else if !shared.used.load(Relaxed) {
            // Nobody has called since the last one: who calls next asks for it.
            renew_at = Instant::NEVER;
            continue;
        }
        let asked = clock.now();
        let given = ask(provider, clock).await;
        let now = clock.now();
        match given {
            Ok(token) => {
                let until = token
                    .lifetime
                    .map_or(Instant::NEVER, |life| asked + life * 9 / 10);
                renew_at = token
                    .lifetime
                    .map_or(Instant::NEVER, |life| asked + life * 4 / 5);
                let header = token.header;
                shared.used.store(false, Relaxed);
                shared.latest.send_replace(Latest::Token { header, until });
                pause = GAP;
            }
            Err(error) => {
                tracing::debug!(%error, "no token");
                renew_at = now + pause;
                shared.latest.send_if_modified(|latest| {
                    // One that still holds is better than none.
                    let holds = matches!(latest, Latest::Token { until, .. } if now < *until);
                    if !holds {
                        let error = CredentialsError::new(error);
                        *latest = Latest::Failed {
                            error,
                            until: renew_at,
                        };
                    }
                    !holds
                });
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
        clock.sleep_until(now + GAP).await;
    }
}

/// Asks once, no longer than it may take.
async fn ask(provider: &dyn TokenProvider, clock: &Clock) -> Result<Token, BoxError> {
    let panicked = || BoxError::from("the provider panicked");
    let mut token = catch_unwind(AssertUnwindSafe(|| provider.token())).map_err(|_| panicked())?;
    let token = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| token.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    });
    let answer = clock.within(LIMIT, token).await;
    answer.unwrap_or_else(|| Err(format!("the provider gave none in {LIMIT:?}").into()))
}

impl fmt::Debug for CredentialsDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsDriver")
    }
}
