//! Everything that the mesh knows of HTTP and gRPC.
//!
//! What happens to a request:
//!
//! - Its [`Body`] is empty or known bytes, which cost nothing to hold, or a stream.
//! - [`HttpReplay`] keeps what another attempt needs: bytes if they are few, and of a stream what has been read, until that
//!   is more than a little. Nothing waits for the rest of it.
//! - [`HttpEndpoints`] makes an HTTP client for each endpoint. [`Addressed`] turns any client into the service of one
//!   endpoint: whatever host a request names, it goes to that endpoint, its path and query untouched. Its errors tell
//!   whether the request may have been sent.
//!
//! and to its response:
//!
//! - [`HttpClassify`] judges the head if that is final (a 503, a `grpc-status` in the head, no body), and else leaves
//!   it to the end of the body. A [`ClassifyLayer`] has a closure over request, head, trailers and error say otherwise.
//! - [`CompleteOnBody`] holds the guard of the attempt until the body has ended or is dropped, and finishes it with what
//!   the end says: trailers included. So load and permits count what still streams, and a stream that breaks is no
//!   success.
//!
//! A server says in each response how busy it is ([`ReportLoadLayer`]), and `HttpClassify` tells balancers that ask.
//!
//! [`HttpProbe`] and [`GrpcProbe`] ask endpoints whether they are well, for active health checks.
//!
//! Without a mesh, use [`AddressLayer`] to pin a client to one address, and `HttpClassify` with `CompleteOnBody`
//! wherever a layer takes a classifier and a completion.
//!
//! # Differences from tower and tower-http
//!
//! tower's `CompleteOnResponse` is over when the head is there, so a body that streams for an hour counts as no load.
//! tower-http classifies to the end of the stream too, but for logs: its verdict reaches no balancer or breaker.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_mesh_core::Endpoint;
//! use tower_mesh_http::{AddressLayer, Body};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let endpoint = Endpoint::new(([10, 0, 0, 7], 8080).into());
//! let client = ServiceBuilder::new()
//!     .layer(AddressLayer::new(&endpoint))
//!     .service(service_fn(async |request: Request<Body>| {
//!         Ok::<_, BoxError>(Response::new(request.uri().to_string()))
//!     }));
//!
//! let request = Request::get("http://orders/orders/42?full").body(Body::empty())?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.body(), "http://10.0.0.7:8080/orders/42?full");
//! # Ok(())
//! # }
//! ```

mod body;
mod classify;
mod client;
mod complete;
mod connect;
pub mod context;
pub mod credentials;
mod deadline;
mod error;
mod future;
mod grpc;
mod idle;
mod layer;
mod load;
mod outside;
mod probe;
mod replay;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry_after;
#[cfg(test)]
mod script;
pub mod server;
mod service;
#[cfg(feature = "tls")]
mod tls;
mod verdict;

pub use self::{
    body::Body,
    classify::{
        Classified, ClassifiedFuture, ClassifyCall, ClassifyCalls, ClassifyLayer, End,
        HttpClassify, Seen,
    },
    client::{ClientFuture, HttpClient, HttpEndpoints, Protocol},
    complete::{CompleteOnBody, TrackedBody},
    deadline::{InvalidTimeout, TIMEOUT_HEADER, set_timeout, timeout_of},
    error::TransportError,
    future::ResponseFuture,
    idle::IdleTimeout,
    layer::AddressLayer,
    load::{
        LOAD_HEADER, Meter, Metered, ReportLoad, ReportLoadFuture, ReportLoadLayer, load_of,
        set_load,
    },
    outside::OutsideClient,
    probe::{GrpcProbe, HttpProbe, ProbeError},
    replay::{HttpReplay, Idempotent, Kept},
    service::{Addressed, AddressedShared},
};

#[cfg(feature = "tower-http")]
pub use self::classify::FromTowerHttp;
#[cfg(feature = "reqwest")]
pub use self::reqwest::{ReqwestClient, ReqwestFuture};
#[cfg(feature = "tls")]
pub use self::tls::{InvalidTls, Tls, TlsError};
