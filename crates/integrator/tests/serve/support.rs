//! Servers of the mesh, and ways to ask them.

use std::{
    future::{Future, IntoFuture},
    net::SocketAddr,
    time::Duration,
};

use axum::Router;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tower_mesh::{Body, Endpoint, Instance, MemoryRegistry, Mesh, Serve, ServeError, ServiceName};

pub type Plain = Client<HttpConnector, Body>;

pub async fn mesh(name: &str, registry: &MemoryRegistry) -> Mesh {
    let mesh = Mesh::builder(name).discovery(registry.clone());
    mesh.registry(registry.clone()).start().await.unwrap()
}

/// A server of the mesh that runs, and how to end it: in good order, and at once.
pub struct Running {
    pub mesh: Mesh,
    pub address: SocketAddr,
    pub end: Option<oneshot::Sender<()>>,
    pub at_once: Option<oneshot::Sender<()>>,
    pub ended: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// Serves `app` under the layer of `mesh`, as `orders`.
    pub async fn start(
        mesh: Mesh,
        app: Router,
        set: impl FnOnce(Serve<Router>) -> Serve<Router>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let instance = Instance::new(ServiceName::new("orders").unwrap(), Endpoint::new(address));
        let (end, first) = signal();
        let (at_once, second) = signal();
        let app = app.layer(mesh.server_layer());
        let serve = mesh.serve(listener, app).register(instance);
        let serve = set(serve.until(first).until(second));
        Self {
            mesh,
            address,
            end: Some(end),
            at_once: Some(at_once),
            ended: tokio::spawn(serve.into_future()),
        }
    }

    pub fn end(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
    }
}

/// Completes when it is told to, and never if nobody can tell it any more.
fn signal() -> (
    oneshot::Sender<()>,
    impl Future<Output = ()> + Send + 'static,
) {
    let (tell, told) = oneshot::channel();
    let wait = async {
        if told.await.is_err() {
            std::future::pending().await
        }
    };
    (tell, wait)
}

pub fn plain() -> Plain {
    Client::builder(TokioExecutor::new()).build_http()
}

pub fn plain_h2() -> Plain {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

pub async fn get(client: &Plain, to: SocketAddr, path: &str) -> Result<Response<Incoming>, Error> {
    let request = Request::get(format!("http://{to}{path}")).body(Body::empty());
    client.request(request.unwrap()).await
}

pub async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits for a condition, not for a time.
pub async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
