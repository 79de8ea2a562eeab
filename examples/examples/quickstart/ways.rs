//! The two ways to call the service.

use std::{
    error::Error,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time;
use tower_mesh::MeshService;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a call has, whichever way it goes: it fails if its answer is not complete by then.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// How a call ended.
pub(crate) struct Answer {
    /// The server that answered, or was to answer.
    pub(crate) by: Option<SocketAddr>,
    /// Why it failed.
    pub(crate) result: Result<(), String>,
}

/// A way to call the service.
pub(crate) trait Way: Clone + Send + 'static {
    /// `GET path`, to the end of the body, with [`TIMEOUT`] in all.
    fn fetch(&self, path: String) -> impl Future<Output = Answer> + Send;
}

/// Through the mesh: what a program does with it, apart from noting who answered.
impl Way for MeshService {
    async fn fetch(&self, path: String) -> Answer {
        let mut by = None;
        let result = in_time(async {
            let response = self.get(&path).await.map_err(|error| error.to_string())?;
            by = server(&response);
            complete(response).await
        });
        Answer {
            result: result.await,
            by,
        }
    }
}

/// Plain round robin over hyper's own client: no retries, no view of who is well.
#[derive(Clone)]
pub(crate) struct RoundRobin {
    client: Client<HttpConnector, Empty<Bytes>>,
    servers: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
}

impl RoundRobin {
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            servers: servers.into(),
            turn: Arc::default(),
        }
    }
}

impl Way for RoundRobin {
    async fn fetch(&self, path: String) -> Answer {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let server = self.servers[turn % self.servers.len()];
        let uri = format!("http://{server}{path}")
            .parse()
            .expect("an address and a path make a URI");
        let result = in_time(async {
            match self.client.get(uri).await {
                Ok(response) => complete(response).await,
                Err(error) => Err(chain(&error)),
            }
        });
        Answer {
            by: Some(server),
            result: result.await,
        }
    }
}

/// The server that a response names.
fn server<B>(response: &Response<B>) -> Option<SocketAddr> {
    let server = response.headers().get(header::SERVER)?;
    server.to_str().ok()?.parse().ok()
}

/// Gives up after [`TIMEOUT`].
async fn in_time<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match time::timeout(TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Only a 2xx response with its whole body is a success.
async fn complete<B>(response: Response<B>) -> Result<(), String>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    let status = response.status();
    match response.into_body().collect().await {
        Err(error) => Err(chain(&*error.into())),
        Ok(_) if status.is_success() => Ok(()),
        Ok(_) => Err(format!("status {}", status.as_u16())),
    }
}

/// An error with its causes, which hyper's does not name.
fn chain(error: &(dyn Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |&error| error.source());
    let texts: Vec<_> = errors.map(ToString::to_string).collect();
    texts.join(": ")
}
