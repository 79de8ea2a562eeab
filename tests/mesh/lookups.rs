//! What a registry is asked, and what is made of its word: scenario 28 of the acceptance list.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use tower_mesh::{
    MemoryRegistry, Mesh, ServiceName,
    core::{Clock, Empties, Resolve, Updates},
};

use crate::support::{Server, name, until};

/// A registry that counts how often it is asked.
#[derive(Clone, Default)]
struct Counted {
    registry: MemoryRegistry,
    look_ups: Arc<AtomicUsize>,
}

impl Resolve for Counted {
    fn resolve(&self, service: &ServiceName) -> Updates {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.registry.resolve(service)
    }

    fn empties(&self) -> Empties {
        self.registry.empties()
    }

    fn name(&self) -> &'static str {
        "counted"
    }
}

impl Counted {
    async fn mesh(&self, clock: Clock) -> Mesh {
        let mesh = Mesh::builder("shop").discovery(self.clone());
        mesh.clock(clock).start().await.unwrap()
    }

    fn look_ups(&self) -> usize {
        self.look_ups.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_of_an_unknown_name_cost_the_registry_one_look_up() {
    let counted = Counted::default();
    // No time passes, so the negative answer holds.
    let (clock, _time) = Clock::manual();
    let mesh = counted.mesh(clock).await;
    let nobody = mesh.service("nobody").unwrap();
    let callers = (0..1_000).map(|_| {
        let nobody = nobody.clone();
        tokio::spawn(async move { nobody.get("/").await })
    });
    for answer in join_all(callers).await {
        let error = answer.unwrap().unwrap_err();
        assert!(error.is_service_not_found(), "{error}");
    }
    assert_eq!(counted.look_ups(), 1);
}

#[tokio::test]
async fn an_empty_answer_of_an_authority_is_refused_within_one_update() {
    let counted = Counted::default();
    let server = Server::answering(200, "here").await;
    let service = name("orders");
    counted.registry.set(&service, [server.endpoint()]);
    let mesh = counted.mesh(Clock::tokio()).await;
    let orders = mesh.service("orders").unwrap();
    orders.get("/").await.unwrap();
    let discovery = || mesh.status().services[0].discovery.clone();
    let before = discovery().revision;
    counted.registry.set(&service, []);
    until("it is heard", || discovery().revision > before).await;
    let callers = join_all((0..100).map(|_| orders.get("/"))).await;
    for answer in callers {
        let error = answer.unwrap_err();
        assert!(error.is_no_endpoint(), "{error}");
    }
    assert_eq!(server.hits(), 1);
    let discovery = discovery();
    assert_eq!((discovery.revision, discovery.suspect), (before + 1, false));
    assert_eq!(counted.look_ups(), 1);
}
