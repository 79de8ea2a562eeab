//! Services that call services: between the clients and the servers stand two layers of a few processes each.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_mesh::{
    Body, Endpoint, Error, Mesh, MeshService, ResponseFuture, ServiceName,
    discovery::Static,
    http::{
        context::{NO_RETRY, RETRY_HEADER},
        server::ServerLayer,
    },
};
use tower_mesh_sim::{Call, Policy, Seat};

use super::{Log, Meshes, NAME, answers::Got};

type Answer = Response<Full<Bytes>>;
type Served = BoxCloneSyncService<Request<Body>, Answer, BoxError>;

/// So many processes there are in each layer between the clients and the servers.
const PROCESSES: u16 = 4;

/// Clients that call a service that calls a service that calls the servers.
pub(crate) struct Chain {
    /// Those that call the servers.
    last: Meshes,
    /// Whether an answer keeps its word that it was tried already.
    told: bool,
    /// What the clients call, once the first of them is there.
    first: Vec<Served>,
    /// The meshes of all but the last, for as long as they are used.
    meshes: Vec<Mesh>,
}

impl Chain {
    /// `last` are the meshes that call the servers; the others have the same settings.
    pub(crate) fn new(last: Meshes, told: bool) -> Self {
        Self {
            last: last.logged(),
            told,
            first: Vec::new(),
            meshes: Vec::new(),
        }
    }

    /// What was written down: calls of the clients, and attempts at the servers.
    pub(crate) fn log(&self) -> &Arc<Log> {
        self.last.log().expect("it writes")
    }

    /// The services of a layer whose handlers call what each of `beneath` does.
    fn handlers<S, B>(&self, seat: &Seat, beneath: Vec<S>) -> Vec<Served>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Error>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send,
        B: 'static,
    {
        let told = self.told;
        let handler = |next: S| {
            let handler = service_fn(move |_: Request<Body>| {
                let next = next.clone();
                async move {
                    let answer = next.oneshot(Request::new(Body::empty())).await;
                    let mut answer = answer.map(bodiless)?;
                    // What no attempt got more out of: the handler's to say, since it hands it on.
                    if answer.status().is_server_error() {
                        answer.headers_mut().insert(RETRY_HEADER, NO_RETRY);
                    }
                    Ok::<_, Error>(answer)
                }
            });
            let server = ServerLayer::new()
                .clock(seat.clock().clone())
                .layer(handler);
            let server = server.map_response(move |answer| {
                let mut answer = bodiless(answer);
                if !told {
                    answer.headers_mut().remove(RETRY_HEADER);
                }
                answer
            });
            BoxCloneSyncService::new(server.map_err(|never| match never {}))
        };
        beneath.into_iter().map(handler).collect()
    }

    /// A process's client of the services `next`.
    fn calling(&mut self, seat: &Seat, next: Vec<Served>) -> MeshService<Served> {
        let name = ServiceName::new(NAME).expect("a valid name");
        let address = |nth| SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 1 + nth));
        let endpoints = (0..PROCESSES).map(|nth| Endpoint::new(address(nth)));
        let mesh = Mesh::builder("between")
            .clock(seat.clock().clone())
            .rng(seat.rng().clone())
            .discovery(Static::new().service(&name, endpoints))
            .defaults(self.last.settings.clone());
        let mesh = self
            .last
            .runtime
            .block_on(mesh.start())
            .expect("it can start");
        let layer = mesh.layer(NAME).expect("a valid name");
        let service = layer.over(move |endpoint: &Endpoint| {
            next[usize::from(endpoint.address().port()) - 1].clone()
        });
        self.last.runtime.block_on(service.endpoints().resolved());
        self.last.settle();
        self.meshes.push(mesh);
        service
    }
}

fn bodiless<B>(answer: Response<B>) -> Answer {
    answer.map(|_| Full::default())
}

impl Policy for Chain {
    type Service = Client;

    fn client(&mut self, seat: &Seat) -> Client {
        if self.first.is_empty() {
            let last = (0..PROCESSES).map(|_| self.last.client(seat).service);
            let last: Vec<_> = last.collect();
            let second = self.handlers(seat, last);
            let middle = (0..PROCESSES).map(|_| self.calling(seat, second.clone()));
            let middle: Vec<_> = middle.collect();
            self.first = self.handlers(seat, middle);
        }
        Client {
            service: self.calling(seat, self.first.clone()),
            log: Arc::clone(self.log()),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.last.advance(by);
    }
}

/// Who calls the first service of the chain.
pub(crate) struct Client {
    service: MeshService<Served>,
    log: Arc<Log>,
}

impl Service<Call> for Client {
    type Response = ();
    type Error = super::Lost;
    type Future = Got<ResponseFuture<Served>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), super::Lost>> {
        self.service.poll_ready(cx).map_err(|_| super::Lost)
    }

    fn call(&mut self, _: Call) -> Self::Future {
        let begun = self.log.begins();
        let future = self.service.call(Request::new(Body::empty()));
        Got {
            future,
            log: Some(Arc::clone(&self.log)),
            begun,
        }
    }
}
