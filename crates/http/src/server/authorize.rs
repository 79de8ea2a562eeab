//! Who may do what.

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, HeaderMap, Method, Request};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::BoxError;
use tower_service::Service;

use super::bearer::Bearer;

/// Decides whether a caller may have what it asks for. A closure from an [`Access`] is one.
///
/// It is asked once for each request that is let in, on its path: it should know the answer, not go and ask for it. It
/// sees no body. A panic of it denies, as any panic of a handler does.
///
/// [`BearerTokens`](super::BearerTokens) is one for a few callers that are known by their tokens.
pub trait Authorize: Send + Sync + 'static {
    /// Who the caller is, if it may.
    ///
    /// # Errors
    ///
    /// [`Denied`] if it may not.
    fn authorize(&self, access: &Access<'_>) -> Result<Caller, Denied>;
}

impl<F> Authorize for F
where
    F: Fn(&Access<'_>) -> Result<Caller, Denied> + Send + Sync + 'static,
{
    fn authorize(&self, access: &Access<'_>) -> Result<Caller, Denied> {
        self(access)
    }
}

/// What a caller asks for, and what it shows for it.
///
/// It prints method and path only.
pub struct Access<'a> {
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> Access<'a> {
    fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// The method of the request; `POST` of any gRPC call.
    pub const fn method(&self) -> &Method {
        self.method
    }

    /// The operation: the path of the request, which for gRPC is `/package.Service/Method`.
    ///
    /// As it came: not decoded, dots not resolved. What is allowed by it should be the whole of it, or begin with it up to a
    /// slash.
    pub const fn operation(&self) -> &str {
        self.path
    }

    /// The one bearer token that the caller shows, if it is well-formed.
    pub fn bearer(&self) -> Option<Bearer<'a>> {
        Bearer::of(self.headers)
    }

    /// All that it shows.
    pub const fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// What the server found out about its connection, if it did: a certificate, an address.
    pub const fn extensions(&self) -> &Extensions {
        self.extensions
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("method", self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Who a caller is; the handler finds it among the extensions of the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(Option<Arc<str>>);

impl Caller {
    /// The caller of this name.
    pub fn new(name: &str) -> Self {
        Self(Some(name.into()))
    }

    /// Somebody: may do it, and says no name. The handler finds none.
    pub const fn anonymous() -> Self {
        Self(None)
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// A caller may not have what it asks for.
///
/// The caller is told which of the two it is and an id, the log why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    unauthenticated: bool,
    reason: Cow<'static, str>,
}

impl Denied {
    /// Nobody can tell who it is: 401, `UNAUTHENTICATED`. It may come again with other credentials.
    pub fn unauthenticated(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            unauthenticated: true,
            reason: reason.into(),
        }
    }

    /// It is known, and may not: 403, `PERMISSION_DENIED`.
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            unauthenticated: false,
            reason: reason.into(),
        }
    }

    /// Whether nobody can tell who it is.
    pub const fn is_unauthenticated(&self) -> bool {
        self.unauthenticated
    }

    /// The one in a chain of errors.
    pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |&error| error.source())
            .find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.unauthenticated {
            true => "unauthenticated",
            false => "permission denied",
        };
        write!(f, "{what}: {}", self.reason)
    }
}

impl Error for Denied {}

/// Lets only those through who [may](Authorize): beneath a [`ServerLayer`](super::ServerLayer), which makes the answer of
/// it.
///
/// Beneath a limit as well: to find out who somebody is takes more than to turn them away.
///
/// # Clone
///
/// Clones ask the same.
#[derive(Clone, Default)]
pub struct AuthorizeLayer(Option<Arc<dyn Authorize>>);

impl AuthorizeLayer {
    /// Asks `authorize` for each request.
    pub fn new(authorize: impl Authorize) -> Self {
        Self(Some(Arc::new(authorize)))
    }

    /// Lets everybody through.
    pub const fn off() -> Self {
        Self(None)
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized {
            inner,
            authorize: self.0.clone(),
        }
    }
}

/// A service for those who may; see [`AuthorizeLayer`].
#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
    authorize: Option<Arc<dyn Authorize>>,
}

impl<S, B> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = AuthorizedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(authorize) = &self.authorize {
            match authorize.authorize(&Access::of(&request)) {
                Err(denied) => {
                    return AuthorizedFuture {
                        allowed: None,
                        denied: Some(denied),
                    };
                }
                Ok(Caller(None)) => {
                    // Nobody may pose as one by what stood there before.
                    request.extensions_mut().remove::<Caller>();
                }
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                }
            }
        }
        AuthorizedFuture {
            allowed: Some(self.inner.call(request)),
            denied: None,
        }
    }
}

pin_project! {
    /// The future of an [`Authorized`].
    ///
    /// # Cancel safety
    ///
    /// As that of the service beneath.
    #[must_use = "futures do nothing unless polled"]
    pub struct AuthorizedFuture<F> {
        #[pin]
        allowed: Option<F>,
        denied: Option<Denied>,
    }
}

impl<F, T, E> Future for AuthorizedFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.allowed.as_pin_mut() {
            Some(allowed) => allowed.poll(cx).map_err(Into::into),
            None => {
                let denied = this.denied.take().expect("polled after completion");
                Poll::Ready(Err(denied.into()))
            }
        }
    }
}

impl fmt::Debug for AuthorizeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = self.0.is_some();
        f.debug_tuple("AuthorizeLayer").field(&asks).finish()
    }
}

impl<S> fmt::Debug for Authorized<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = self.authorize.is_some();
        f.debug_tuple("Authorized").field(&asks).finish()
    }
}

impl<F> fmt::Debug for AuthorizedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizedFuture")
            .field("allowed", &self.allowed.is_some())
            .finish_non_exhaustive()
    }
}
