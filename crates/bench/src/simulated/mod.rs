//! The shipped mesh as a policy of the simulator: one mesh for each client, as separate processes have.

mod answers;
mod chain;
mod log;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};
use tower_mesh::{
    Body, Endpoint, Instance, MemoryRegistry, Mesh, MeshService, Policy as Settings,
    ResponseFuture, ServiceName,
    core::{Endpoints, Register, Registration, Resolve, Weight},
    http::ReportLoadLayer,
};
use tower_mesh_sim::{Call, Member, Policy, Seat};

pub(crate) use self::{
    answers::{Failing, Lost},
    chain::Chain,
    log::Log,
};

use self::answers::{Got, Reporting, Server};

/// Background work of the meshes is run this often: more often than it has anything to do.
const TICK: Duration = Duration::from_millis(10);

/// Turns a mesh's background tasks get to do what there is: an update passes the registry, the driver and its hub.
const TURNS: usize = 16;

/// As many servers as a fleet may have, with those that join.
const MOST_SERVERS: usize = 128;

/// What the service under test is called.
pub(crate) const NAME: &str = "orders";

/// Makes a source of endpoints for a client; without one each has a registry in memory, which hears of joins and leaves.
type Sources = Box<dyn FnMut(&Seat) -> Arc<dyn Resolve>>;

pub(crate) struct Meshes {
    settings: Settings,
    sources: Option<Sources>,
    failing: Failing,
    writes: bool,
    log: Option<Arc<Log>>,
    /// Runs what the meshes do in the background, and nothing of a call.
    runtime: Runtime,
    rooms: Vec<Room>,
    /// What each server counts of its load: of the calls of all clients.
    loads: Vec<ReportLoadLayer>,
    since: Duration,
}

/// What belongs to one client and is not its service.
pub(crate) struct Room {
    pub(crate) mesh: Mesh,
    /// What it knows of the service under test.
    pub(crate) endpoints: Endpoints,
    registry: MemoryRegistry,
    registered: Vec<(Member, Registration)>,
}

impl Meshes {
    pub(crate) fn new(settings: Settings) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build();
        Self {
            settings,
            sources: None,
            failing: Failing::Overloaded,
            writes: false,
            log: None,
            runtime: runtime.expect("a thread to run on"),
            rooms: Vec::new(),
            loads: Vec::new(),
            since: Duration::ZERO,
        }
    }

    /// What a server that fails answers with.
    pub(crate) fn failing(mut self, failing: Failing) -> Self {
        self.failing = failing;
        self
    }

    /// Writes down what becomes of each call and each attempt.
    pub(crate) fn logged(mut self) -> Self {
        self.writes = true;
        self
    }

    /// What was written down, if it is.
    pub(crate) fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    /// Finds the endpoints there.
    pub(crate) fn found_by(
        mut self,
        sources: impl FnMut(&Seat) -> Arc<dyn Resolve> + 'static,
    ) -> Self {
        self.sources = Some(Box::new(sources));
        self
    }

    /// The clients, but for their services.
    pub(crate) fn rooms(&self) -> &[Room] {
        &self.rooms
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
        if self.writes && self.log.is_none() {
            self.log = Some(Arc::new(Log::new(seat.clock().clone())));
        }
        let registry = MemoryRegistry::with_clock(seat.clock().clone());
        let source: Arc<dyn Resolve> = match &mut self.sources {
            Some(sources) => sources(seat),
            None => Arc::new(registry.clone()),
        };
        let mesh = Mesh::builder("storefront")
            .clock(seat.clock().clone())
            .rng(seat.rng().clone())
            .discovery(source)
            .defaults(self.settings.clone());
        let mesh = self.runtime.block_on(mesh.start()).expect("it can start");
        let layer = mesh.layer(NAME).expect("a valid name");
        let (servers, loads) = (seat.clone(), self.loads(seat));
        let (log, failing, client) = (self.log.clone(), self.failing, seat.client());
        let service = layer.over(move |endpoint: &Endpoint| {
            let server = server_of(endpoint);
            loads[server].layer(Server {
                connection: servers.connect(server),
                endpoint: endpoint.clone(),
                client,
                failing,
                log: log.clone(),
            })
        });
        let mut room = Room {
            registered: Vec::new(),
            mesh,
            endpoints: service.endpoints().clone(),
            registry,
        };
        if self.sources.is_none() {
            self.runtime.block_on(room.register(seat.members()));
        }
        self.runtime.block_on(room.endpoints.resolved());
        self.settle();
        assert_eq!(room.known(), seat.members().len());
        self.rooms.push(room);
        Client {
            service,
            log: self.log.clone(),
        }
    }

    fn changed(&mut self, seat: &Seat, _: &mut Client) {
        let room = &mut self.rooms[seat.client()];
        self.runtime.block_on(room.register(seat.members()));
        self.settle();
        assert_eq!(self.rooms[seat.client()].known(), seat.members().len());
    }

    fn advance(&mut self, by: Duration) {
        self.since += by;
        if self.since >= TICK {
            self.since = Duration::ZERO;
            self.runtime.block_on(tokio::task::yield_now());
        }
    }
}

impl Room {
    /// How many endpoints it knows.
    pub(crate) fn known(&self) -> usize {
        self.endpoints.current().endpoints().len()
    }

    /// Whether no endpoint is kept from calls by anybody.
    pub(crate) fn all_are_in(&self) -> bool {
        let current = self.endpoints.current();
        let mut endpoints = current.endpoints().iter();
        endpoints.all(|endpoint| endpoint.vitals().gate().is_open())
    }

    /// Registers those that are new and takes those out that are gone.
    async fn register(&mut self, members: &[Member]) {
        self.registered
            .retain(|(member, _)| members.contains(member));
        for member in &members[self.registered.len()..] {
            let name = ServiceName::new(NAME).expect("a valid name");
            let instance = Instance::new(name, endpoint_of(member));
            let registration = self.registry.register(instance).await;
            self.registered
                .push((*member, registration.expect("it is in memory")));
        }
    }
}

/// A server as a registry describes it.
pub(crate) fn endpoint_of(member: &Member) -> Endpoint {
    endpoint_at(member.server).with_weight(Weight::new(member.weight))
}

/// The server of that number, of weight 1.
pub(crate) fn endpoint_at(server: usize) -> Endpoint {
    let address = (Ipv4Addr::new(10, 0, 0, 1), 1 + server as u16);
    Endpoint::new(SocketAddr::from(address))
}

/// The number of the server that is described.
pub(crate) fn server_of(endpoint: &Endpoint) -> usize {
    usize::from(endpoint.address().port()) - 1
}

/// The shipped client. A call of it is a GET without a body, which may be tried again.
pub(crate) struct Client {
    service: MeshService<Reporting>,
    log: Option<Arc<Log>>,
}

impl Service<Call> for Client {
    type Response = ();
    type Error = Lost;
    type Future = Got<ResponseFuture<Reporting>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.service.poll_ready(cx).map_err(|_| Lost)
    }

    fn call(&mut self, _: Call) -> Self::Future {
        let begun = self.log.as_ref().map(|log| log.begins());
        let future = self.service.call(Request::new(Body::empty()));
        Got {
            future,
            log: self.log.clone(),
            begun: begun.unwrap_or_default(),
        }
    }
}
