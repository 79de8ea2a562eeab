//! The shipped mesh as a policy: one mesh for each client, as separate processes have.

use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};
use tower_mesh::{
    Body, Endpoint, Instance, MemoryRegistry, Mesh, MeshService, Policy as Settings,
    ResponseFuture, ServiceName,
    core::{Register, Registration, Weight},
    http::{ReportLoad, ReportLoadLayer},
};
use tower_mesh_sim::{Call, Connection, Exchange, Member, Policy, Seat};

/// Background work of the meshes is run this often: more often than it has anything to do.
const TICK: Duration = Duration::from_millis(10);

/// Turns a mesh's background tasks get to do what there is: an update passes the registry, the driver and its hub.
const TURNS: usize = 16;

/// As many servers as a fleet may have, with those that join.
const MOST_SERVERS: usize = 128;

pub(super) struct Meshes {
    settings: Settings,
    /// Runs what the meshes do in the background, and nothing of a call.
    runtime: Runtime,
    rooms: Vec<Room>,
    /// What each server counts of its load: of the calls of all clients.
    loads: Vec<ReportLoadLayer>,
    since: Duration,
}

/// What belongs to one client and is not its service.
struct Room {
    _mesh: Mesh,
    registry: MemoryRegistry,
    registered: Vec<(Member, Registration)>,
}

impl Meshes {
    pub(super) fn new(settings: Settings) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build();
        Self {
            settings,
            runtime: runtime.expect("a thread to run on"),
            rooms: Vec::new(),
            loads: Vec::new(),
            since: Duration::ZERO,
        }
    }

    /// The servers' counts: of those that there are, and of some to come.
    fn loads(&mut self, seat: &Seat) -> Vec<ReportLoadLayer> {
        let clock = seat.clock();
        let new = || ReportLoadLayer::new().clock(clock.clone());
        self.loads.resize_with(MOST_SERVERS, new);
        self.loads.clone()
    }

    fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Policy for Meshes {
    type Service = Client;

    fn client(&mut self, seat: &Seat) -> Client {
        let registry = MemoryRegistry::with_clock(seat.clock().clone());
        let mesh = Mesh::builder("storefront")
            .clock(seat.clock().clone())
            .rng(seat.rng().clone())
            .discovery(registry.clone())
            .defaults(self.settings.clone());
        let mesh = self.runtime.block_on(mesh.start()).expect("it can start");
        let mut room = Room {
            registered: Vec::new(),
            _mesh: mesh.clone(),
            registry,
        };
        self.runtime.block_on(room.register(seat.members()));
        let (servers, loads) = (seat.clone(), self.loads(seat));
        let layer = mesh.layer(NAME).expect("a valid name");
        let service = layer.over(move |endpoint: &Endpoint| {
            let server = usize::from(endpoint.address().port()) - 1;
            loads[server].layer(Server(servers.connect(server)))
        });
        self.runtime.block_on(service.endpoints().resolved());
        self.rooms.push(room);
        self.settle();
        let known = service.endpoints().current().endpoints().len();
        assert_eq!(known, seat.members().len());
        Client(service)
    }

    fn changed(&mut self, seat: &Seat, service: &mut Client) {
        let room = &mut self.rooms[seat.client()];
        self.runtime.block_on(room.register(seat.members()));
        self.settle();
        let known = service.0.endpoints().current().endpoints().len();
        assert_eq!(known, seat.members().len());
    }

    fn advance(&mut self, by: Duration) {
        self.since += by;
        if self.since >= TICK {
            self.since = Duration::ZERO;
            self.runtime.block_on(tokio::task::yield_now());
        }
    }
}

const NAME: &str = "orders";

impl Room {
    /// Registers those that are new and takes those out that are gone.
    async fn register(&mut self, members: &[Member]) {
        self.registered
            .retain(|(member, _)| members.contains(member));
        for member in &members[self.registered.len()..] {
            let address = (Ipv4Addr::new(10, 0, 0, 1), 1 + member.server as u16);
            let endpoint =
                Endpoint::new(SocketAddr::from(address)).with_weight(Weight::new(member.weight));
            let name = ServiceName::new(NAME).expect("a valid name");
            let registration = self.registry.register(Instance::new(name, endpoint)).await;
            self.registered
                .push((*member, registration.expect("it is in memory")));
        }
    }
}

/// A server as an HTTP service.
#[derive(Clone)]
pub(super) struct Server(Connection);

pub(super) struct Reply(Exchange);

/// The same, and it says how busy it is. It is counted where the client stands, so the 200 us on the wire are in it.
type Reporting = ReportLoad<Server>;

/// No body: a verdict at the head, as for any answer without one.
type Empty = http_body_util::Empty<bytes::Bytes>;

impl Service<Request<Body>> for Server {
    type Response = Response<Empty>;
    type Error = Infallible;
    type Future = Reply;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Reply {
        Reply(self.0.send())
    }
}

impl Future for Reply {
    type Output = Result<Response<Empty>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        let mut response = Response::new(Empty::new());
        if answer.is_err() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Poll::Ready(Ok(response))
    }
}

/// The shipped client. A call of it is a GET without a body, which may be tried again.
pub(super) struct Client(MeshService<Reporting>);

pin_project_lite::pin_project! {
    pub(super) struct Got {
        #[pin]
        future: ResponseFuture<Reporting>,
    }
}

/// A call was refused, or answered with a status that is none of success.
pub(super) struct Lost;

impl Service<Call> for Client {
    type Response = ();
    type Error = Lost;
    type Future = Got;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.0.poll_ready(cx).map_err(|_| Lost)
    }

    fn call(&mut self, _: Call) -> Got {
        let future = self.0.call(Request::new(Body::empty()));
        Got { future }
    }
}

impl Future for Got {
    type Output = Result<(), Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().future.poll(cx));
        Poll::Ready(match answer {
            Ok(response) if response.status().is_success() => Ok(()),
            _ => Err(Lost),
        })
    }
}
