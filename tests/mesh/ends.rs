//! Invariant I8: a mesh ends in the time it was given and a second, whatever hangs and whoever still holds it; and what runs
//! for it ends with its last handle.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_mesh::{
    Body, Component, Endpoint, Instance, Lifecycle, Mesh, ServiceName, Start,
    core::{
        BoxError, BoxFuture, Empties, Health, Register, RegisterError, Registered, Registration,
        Resolve, Shared, Update, Updates,
    },
};

use crate::support::{Server, name, until};

/// A registry, a part and a source of which nothing ever gets done once it is to end. Each part of it that something holds
/// is counted.
#[derive(Clone)]
struct Hanging {
    held: Arc<()>,
    endpoint: Endpoint,
    stopped: Arc<AtomicUsize>,
}

impl Hanging {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            held: Arc::new(()),
            endpoint,
            stopped: Arc::default(),
        }
    }

    /// Who else holds a part of it.
    fn holders(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }
}

impl Resolve for Hanging {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let this = self.clone();
        let first = futures_util::stream::iter([Ok(Update::Replace(vec![this.endpoint.clone()]))]);
        // It holds what it is until it is dropped.
        let rest = futures_util::stream::unfold(this, |this| async move {
            pending::<()>().await;
            Some((Ok(Update::Absent), this))
        });
        first.chain(rest).boxed()
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "hanging"
    }
}

impl Register for Hanging {
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        let this = self.clone();
        Box::pin(async { Ok(Registration::new(instance, this)) })
    }
}

impl Registered for Hanging {
    fn heartbeat(&self, _: Health) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(pending())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(pending())
    }

    fn abandon(&self) {}
}

impl Component for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn start(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.stopped.fetch_add(1, Ordering::SeqCst);
        Box::pin(pending())
    }
}

async fn mesh(hanging: &Hanging) -> Mesh {
    let mesh = Mesh::builder("shop")
        .discovery(hanging.clone())
        .registry(hanging.clone())
        .component(Start::Health, hanging.clone())
        .start()
        .await
        .unwrap();
    let instance = Instance::new(name("shop"), hanging.endpoint.clone());
    let instance = instance.with_ttl(Duration::from_secs(3));
    mesh.register(instance).await.unwrap();
    mesh
}

#[tokio::test(start_paused = true)]
async fn i8_a_shutdown_ends_within_its_limit_and_a_second_whatever_hangs_and_with_clones_alive() {
    let hanging = Hanging::new(Endpoint::new(([127, 0, 0, 1], 9).into()));
    let mesh = mesh(&hanging).await;
    let never = service_fn(|_: http::Request<Body>| {
        pending::<Result<http::Response<Body>, std::io::Error>>()
    });
    let layer = mesh.layer("orders").unwrap();
    let orders = layer.over(Shared::new(never));
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.get("/").await })
        })
        .collect();
    until("all calls are under way", || {
        mesh.status()
            .services
            .iter()
            .any(|service| service.in_flight == 3)
    })
    .await;
    let (_mesh, _layer) = (mesh.clone(), layer.clone());
    let _stock = mesh.service("stock").unwrap();

    let (began, limit) = (tokio::time::Instant::now(), Duration::from_secs(2));
    let error = mesh.shutdown(limit).await.unwrap_err();
    let took = began.elapsed();
    assert!(took <= limit + Duration::from_secs(1), "{took:?}");
    assert_eq!(
        (error.cut_off(), error.still_registered()),
        (3, 1),
        "{error}"
    );
    assert_eq!(hanging.stopped.load(Ordering::SeqCst), 1);
    assert_eq!((mesh.lifecycle(), mesh.tasks()), (Lifecycle::Stopped, 0));
    for call in calls {
        assert!(call.await.unwrap().unwrap_err().is_shutting_down());
    }
    let again = began.elapsed();
    let _ = mesh.shutdown(limit).await;
    assert_eq!(began.elapsed(), again, "there is nothing left to wait for");
}

#[tokio::test]
async fn i8_what_runs_for_a_mesh_ends_with_its_last_handle_whichever_that_is() {
    let server = Server::answering(200, "").await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    for last in 0..5 {
        let hanging = Hanging::new(server.endpoint());
        let mesh = mesh(&hanging).await;
        let orders = mesh.service("orders").unwrap();
        orders.get("/").await.unwrap();
        let layer = mesh.layer("stock").unwrap();
        let client = service_fn(|_: http::Request<Body>| async {
            Ok::<_, std::io::Error>(http::Response::new(Body::empty()))
        });
        let mut layered = layer.layer(client);
        let _ = layered
            .ready()
            .await
            .unwrap()
            .call(http::Request::new(Body::empty()))
            .await;
        let call = orders.clone().oneshot(http::Request::new(Body::empty()));
        assert!(tasks() > before && hanging.holders() > 3);
        let mut handles: Vec<Box<dyn Send>> = vec![
            Box::new(mesh),
            Box::new(orders),
            Box::new(layer),
            Box::new(layered),
            Box::new(call),
        ];
        let last = handles.swap_remove(last);
        drop(handles);
        tokio::task::yield_now().await;
        assert!(hanging.holders() > 0, "a handle is left");
        drop(last);
        until("nothing runs, and nothing is held", || {
            // The part is asked to stop, and given a second.
            tasks() == before && hanging.holders() == 0
        })
        .await;
        assert_eq!(hanging.stopped.load(Ordering::SeqCst), 1);
    }
}
