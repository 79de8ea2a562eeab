//! The classifiers of tower-http.

use http::{Request, Response};
use tower_http::classify::{ClassifiedResponse, ClassifyEos, ClassifyResponse, MakeClassifier};
use tower_mesh_core::{Outcome, Verdict};

use super::{ClassifyCall, ClassifyCalls, End};

/// Has calls classified as tower-http's `TraceLayer` would: takes what that takes.
///
/// | tower-http | outcome |
/// |---|---|
/// | a failure, in the head or at the end | failure, or overload where [`HttpClassify`](crate::HttpClassify) says that: so `Retry-After` is obeyed |
/// | no failure | success at the end of the body |
/// | an error, which is a failure always | as usual: whether it says something of the endpoint, and whether anything was sent |
///
/// # Example
///
/// ```
/// use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
/// use tower_mesh_http::{ClassifyLayer, FromTowerHttp};
///
/// let make = SharedClassifier::new(GrpcErrorsAsFailures::new());
/// let layer = ClassifyLayer::new(FromTowerHttp::new(make));
/// # let _ = layer;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FromTowerHttp<M>(M);

impl<M: MakeClassifier> FromTowerHttp<M> {
    /// Classifies by what `make` makes for each request.
    pub const fn new(make: M) -> Self {
        Self(make)
    }
}

impl<M> ClassifyCalls for FromTowerHttp<M>
where
    M: MakeClassifier + Clone,
    M::Classifier: Send + 'static,
    M::ClassifyEos: Send + 'static,
{
    type Call = TowerHttpCall<M::Classifier>;

    fn call<B>(&self, request: &Request<B>) -> Self::Call {
        TowerHttpCall::Response(Some(self.0.make_classifier(request)))
    }
}

/// One call, classified as tower-http does.
#[derive(Debug)]
pub enum TowerHttpCall<C: ClassifyResponse> {
    /// Its head is not there yet; taken when it comes.
    Response(Option<C>),
    /// Its head was no failure, and the end tells no more.
    Fine,
    /// Its end will tell.
    Eos(C::ClassifyEos),
}

impl<C> ClassifyCall for TowerHttpCall<C>
where
    C: ClassifyResponse + Send + 'static,
    C::ClassifyEos: Send + 'static,
{
    fn head<B>(&mut self, response: &Response<B>, usual: Verdict) -> Verdict {
        let Self::Response(classify) = self else {
            return usual;
        };
        let Some(classify) = classify.take() else {
            return usual;
        };
        *self = match classify.classify_response(response) {
            ClassifiedResponse::Ready(Ok(())) => Self::Fine,
            ClassifiedResponse::RequiresEos(eos) => Self::Eos(eos),
            ClassifiedResponse::Ready(Err(_)) => {
                let usual = match usual {
                    Verdict::Done(outcome) => Some(outcome),
                    Verdict::Deferred => None,
                };
                return failure(usual).into();
            }
        };
        Verdict::Deferred
    }

    fn end(self, end: End<'_>, usual: Option<Outcome>) -> Option<Outcome> {
        let End::Complete(trailers) = end else {
            return usual;
        };
        match self {
            Self::Eos(eos) => Some(match eos.classify_eos(trailers) {
                Ok(()) => Outcome::success(),
                Err(_) => failure(usual),
            }),
            Self::Fine => Some(Outcome::success()),
            Self::Response(_) => usual,
        }
    }
}

/// As usual if that is bad, too: it knows more of how.
fn failure(usual: Option<Outcome>) -> Outcome {
    usual
        .filter(Outcome::is_failure)
        .unwrap_or(Outcome::failure())
}
