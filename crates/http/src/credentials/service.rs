//! Puts the token into requests.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, BoxFuture, Clock, PerCall, frame};
use tower_service::Service;

use super::{
    driver::CredentialsDriver,
    shared::{CredentialsError, Latest, Shared},
    token::TokenProvider,
};

/// Shows the token of one service in each request to it; see [the module](super).
///
/// # Clone
///
/// All that one layer value makes, and all its clones make, have one token.
#[derive(Clone)]
pub struct CredentialsLayer {
    shared: Arc<Shared>,
    clock: Clock,
}

/// A layer and its driver to be; made by [`CredentialsLayer::new`].
pub struct CredentialsBuilder {
    provider: Box<dyn TokenProvider>,
    clock: Clock,
}

impl CredentialsLayer {
    /// Has tokens from `provider`.
    #[allow(clippy::new_ret_no_self)] // A layer without its driver would wait for ever.
    pub fn new(provider: impl TokenProvider) -> CredentialsBuilder {
        CredentialsBuilder {
            provider: Box::new(provider),
            clock: Clock::default(),
        }
    }

    /// Puts it directly over `inner`, which must be always ready and begin nothing before its future is polled, as all of
    /// tower-mesh's.
    pub fn over<S>(&self, inner: S) -> Credentialed<S> {
        Credentialed {
            inner,
            credentials: Some(self.clone()),
        }
    }
}

impl CredentialsBuilder {
    /// Takes time from `clock`; by default from tokio's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The layer, and the driver that has to run for it.
    pub fn build(self) -> (CredentialsLayer, CredentialsDriver) {
        let shared = Shared::new();
        let driver = CredentialsDriver::new(&shared, self.provider, self.clock.clone());
        let layer = CredentialsLayer {
            shared,
            clock: self.clock,
        };
        (layer, driver)
    }
}

impl<S> Layer<S> for CredentialsLayer {
    type Service = Credentialed<PerCall<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}

/// A service that is shown a token, or none; see [`CredentialsLayer`].
#[derive(Clone)]
pub struct Credentialed<S> {
    inner: S,
    credentials: Option<CredentialsLayer>,
}

impl<S> Credentialed<S> {
    /// Shows nothing: for a stack whose type has it either way.
    pub const fn without(inner: S) -> Self {
        Self {
            inner,
            credentials: None,
        }
    }
}

impl<S, B, R> Service<Request<B>> for Credentialed<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = CredentialsFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let credentials = self.credentials.as_ref();
        let Some(credentials) =
            credentials.filter(|_| !request.headers().contains_key(AUTHORIZATION))
        else {
            let call = self.inner.call(request);
            return CredentialsFuture::new(Stage::Called { call, shown: None });
        };
        let shared = Arc::clone(&credentials.shared);
        match shared.now(frame::now(&credentials.clock)) {
            Some(Ok(token)) => {
                request.headers_mut().insert(AUTHORIZATION, token.clone());
                let call = self.inner.call(request);
                let shown = Some((shared, token));
                CredentialsFuture::new(Stage::Called { call, shown })
            }
            Some(Err(error)) => CredentialsFuture::new(Stage::Refused { error: Some(error) }),
            None => CredentialsFuture::new(Stage::Waits {
                token: Box::pin(token(Arc::clone(&shared), credentials.clock.clone())),
                waiting: Some((self.inner.clone(), request, shared)),
            }),
        }
    }
}

/// Waits until there is a token, or will not be one.
async fn token(shared: Arc<Shared>, clock: Clock) -> Result<HeaderValue, CredentialsError> {
    let mut latest = shared.latest.subscribe();
    loop {
        latest.mark_unchanged();
        if let Some(now) = shared.now(clock.now()) {
            return now;
        }
        shared.wanted.notify_one();
        // The sender is held by `shared`.
        if latest.changed().await.is_err() {
            return Err(CredentialsError::new("nobody asks for it".into()));
        }
        if let Latest::Failed { error, .. } = &*latest.borrow() {
            return Err(error.clone());
        }
    }
}

pin_project! {
    /// The future of a [`Credentialed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the call. What the provider was asked for it gives all the same, to whoever calls next.
    #[must_use = "futures do nothing unless polled"]
    pub struct CredentialsFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        stage: Stage<S, Req>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<S, Req>
    where
        S: Service<Req>,
    {
        // Boxed, as few calls wait.
        Waits {
            token: BoxFuture<'static, Result<HeaderValue, CredentialsError>>,
            waiting: Option<(S, Req, Arc<Shared>)>,
        },
        Called {
            #[pin]
            call: S::Future,
            // What was shown, to take it back if it is refused.
            shown: Option<(Arc<Shared>, HeaderValue)>,
        },
        Refused { error: Option<CredentialsError> },
    }
}

impl<S: Service<Req>, Req> CredentialsFuture<S, Req> {
    const fn new(stage: Stage<S, Req>) -> Self {
        Self { stage }
    }
}

impl<S, B, R> Future for CredentialsFuture<S, Request<B>>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            let called = match stage.as_mut().project() {
                StageProj::Refused { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error.into()));
                }
                StageProj::Called { call, shown } => {
                    let answer = ready!(call.poll(cx));
                    if let (Some((shared, token)), Ok(response)) = (shown, &answer)
                        && response.status() == StatusCode::UNAUTHORIZED
                    {
                        shared.refused(token);
                    }
                    return Poll::Ready(answer.map_err(Into::into));
                }
                StageProj::Waits { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let (mut inner, mut request, shared) =
                        waiting.take().expect("polled after completion");
                    let token = token?;
                    request.headers_mut().insert(AUTHORIZATION, token.clone());
                    let call = inner.call(request);
                    let shown = Some((shared, token));
                    Stage::Called { call, shown }
                }
            };
            stage.set(called);
        }
    }
}

impl fmt::Debug for CredentialsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsLayer")
    }
}

impl fmt::Debug for CredentialsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsBuilder")
    }
}

impl<S> fmt::Debug for Credentialed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shows = self.credentials.is_some();
        f.debug_tuple("Credentialed").field(&shows).finish()
    }
}

impl<S: Service<Req>, Req> fmt::Debug for CredentialsFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = matches!(self.stage, Stage::Waits { .. });
        f.debug_struct("CredentialsFuture")
            .field("waits", &waits)
            .finish_non_exhaustive()
    }
}
