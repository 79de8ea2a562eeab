//! The same service, for HTTP and for gRPC, served by axum, by tonic and by hyper, always beneath the layer of the mesh.

use std::{
    convert::Infallible,
    future::{IntoFuture, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body as AxumBody, routing::any};
use bytes::{Buf, BufMut, Bytes};
use futures_util::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status, Streaming,
    body::Body as TonicBody,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_mesh::{Endpoint, Mesh, core::BoxFuture, http::server::Inherited};

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Axum,
    Tonic,
    Hyper,
}

/// What servers of a pair have seen, together.
#[derive(Clone, Default)]
pub struct Seen(Arc<State>);

#[derive(Default)]
struct State {
    hanging: AtomicUsize,
    /// Somebody has been told that there is too much to do.
    busy: AtomicBool,
}

impl Seen {
    /// How many handlers hang.
    pub fn hanging(&self) -> usize {
        self.0.hanging.load(Ordering::SeqCst)
    }

    /// Whether it is the first who asks; then for the next it is again.
    fn is_busy(&self) -> bool {
        !self.0.busy.fetch_xor(true, Ordering::SeqCst)
    }

    async fn hang<T>(&self) -> T {
        struct Hangs<'a>(&'a Seen);
        impl Drop for Hangs<'_> {
            fn drop(&mut self) {
                self.0.0.hanging.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.hanging.fetch_add(1, Ordering::SeqCst);
        let _hangs = Hangs(self);
        pending().await
    }
}

fn left() -> String {
    Inherited::left_here().map_or_else(|| "none".to_owned(), |left| left.as_millis().to_string())
}

impl Kind {
    pub async fn start(self, seen: &Seen) -> Endpoint {
        let mesh = Mesh::builder("orders").start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(listener.local_addr().unwrap());
        match self {
            Self::Axum => tokio::spawn(axum(mesh, listener, seen.clone())),
            Self::Tonic => tokio::spawn(tonic(mesh, listener, seen.clone())),
            Self::Hyper => tokio::spawn(hyper(mesh, listener, seen.clone())),
        };
        endpoint
    }
}

async fn axum(mesh: Mesh, listener: TcpListener, seen: Seen) {
    let orders = Orders(seen.clone());
    let app = Router::new()
        .route_service("/shop.Orders/{method}", orders)
        .fallback(any(move |request: Request<AxumBody>| {
            let seen = seen.clone();
            async move { answer(&seen, request).await }
        }))
        .layer(mesh.server_layer());
    let serve = mesh.serve(listener, app).until(pending());
    serve.into_future().await.unwrap();
}

async fn tonic(mesh: Mesh, listener: TcpListener, seen: Seen) {
    tonic::transport::Server::builder()
        .accept_http1(true)
        .layer(mesh.server_layer())
        .add_service(Orders(seen))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

async fn hyper(mesh: Mesh, listener: TcpListener, seen: Seen) {
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            Ok::<_, Infallible>(if request.uri().path().starts_with("/shop.Orders/") {
                Orders(seen)
                    .oneshot(request)
                    .await
                    .unwrap()
                    .map(AxumBody::new)
            } else {
                answer(&seen, request.map(AxumBody::new)).await
            })
        }
    });
    let service = TowerToHyperService::new(mesh.server_layer().layer(service));
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// For HTTP: `/echo` as it comes, trailers too, `/left`, `/hang`, `/busy`.
async fn answer(seen: &Seen, request: Request<AxumBody>) -> Response<AxumBody> {
    match request.uri().path() {
        "/echo" => Response::new(request.into_body()),
        "/left" => Response::new(left().into()),
        "/busy" if seen.is_busy() => {
            let _ = request.into_body().collect().await;
            let busy = Response::builder().status(503);
            busy.body(AxumBody::from("busy")).unwrap()
        }
        "/busy" => Response::new("not any more".into()),
        _ => seen.hang().await,
    }
}

/// For gRPC, the methods `Echo`, `Stream`, `Late`, `Left`, `Hang`, `Busy`: what a generated service is to tonic.
#[derive(Clone)]
pub struct Orders(Seen);

impl NamedService for Orders {
    const NAME: &'static str = "shop.Orders";
}

impl<B> Service<Request<B>> for Orders
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send + 'static,
{
    type Response = Response<TonicBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<TonicBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (seen, mut grpc) = (self.0.clone(), Grpc::new(Raw));
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let method: &'static str = match &*method {
            "Stream" => {
                return Box::pin(
                    async move { Ok(grpc.streaming(service_fn(echo), request).await) },
                );
            }
            "Late" => {
                return Box::pin(async move {
                    Ok(grpc.server_streaming(service_fn(late), request).await)
                });
            }
            "Echo" => "Echo",
            "Left" => "Left",
            "Busy" => "Busy",
            _ => "Hang",
        };
        let unary = service_fn(move |message: tonic::Request<Bytes>| {
            let seen = seen.clone();
            async move {
                let message = match method {
                    "Echo" => message.into_inner(),
                    "Left" => left().into(),
                    "Busy" if seen.is_busy() => return Err(Status::unavailable("busy")),
                    "Busy" => "not any more".into(),
                    _ => seen.hang().await,
                };
                Ok(tonic::Response::new(message))
            }
        });
        Box::pin(async move { Ok(grpc.unary(unary, request).await) })
    }
}

async fn echo(
    messages: tonic::Request<Streaming<Bytes>>,
) -> Result<tonic::Response<Streaming<Bytes>>, Status> {
    Ok(tonic::Response::new(messages.into_inner()))
}

type Messages = stream::Iter<std::array::IntoIter<Result<Bytes, Status>, 2>>;

/// A message, and in the trailers that it has failed all the same.
async fn late(_: tonic::Request<Bytes>) -> Result<tonic::Response<Messages>, Status> {
    let messages = [Ok("half of it".into()), Err(Status::unavailable("late"))];
    Ok(tonic::Response::new(stream::iter(messages)))
}

/// Messages as they are.
#[derive(Clone, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
