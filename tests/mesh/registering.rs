//! An instance that is registered stays so, and goes before all else.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower_mesh::{
    Endpoint, Instance, Mesh,
    core::{BoxFuture, Health, Register, RegisterError, Registered, Registration},
};

use crate::support::name;

/// A registry that counts what it is told; heartbeats of some never end.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    hangs: bool,
    is_away: AtomicBool,
    registered: AtomicUsize,
    heartbeats: Mutex<Vec<Health>>,
    deregistered: AtomicUsize,
    abandoned: AtomicUsize,
}

impl Counts {
    fn heartbeats(&self) -> usize {
        self.heartbeats.lock().unwrap().len()
    }
}

impl Register for Counting {
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        self.0.registered.fetch_add(1, Ordering::SeqCst);
        let handle = self.clone();
        Box::pin(async { Ok(Registration::new(instance, handle)) })
    }
}

impl Registered for Counting {
    fn heartbeat(&self, health: Health) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            self.0.heartbeats.lock().unwrap().push(health);
            if self.0.hangs {
                pending::<()>().await;
            }
            match self.0.is_away.load(Ordering::SeqCst) {
                true => Err(RegisterError::new("connection refused")),
                false => Ok(()),
            }
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async {
            self.0.deregistered.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn abandon(&self) {
        self.0.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

fn instance(port: u16) -> Instance {
    let endpoint = Endpoint::new(([127, 0, 0, 1], port).into());
    Instance::new(name("orders"), endpoint)
}

async fn mesh(registry: &Counting) -> Mesh {
    let mesh = Mesh::builder("shop").registry(registry.clone());
    mesh.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_sent_three_times_in_each_ttl_and_each_half_minute_without_one() {
    for (ttl, in_two_minutes) in [(Some(15), 24), (None, 4)] {
        let registry = Counting::default();
        let mesh = mesh(&registry).await;
        let instance = match ttl {
            Some(ttl) => instance(80).with_ttl(Duration::from_secs(ttl)),
            None => instance(80),
        };
        mesh.register(instance).await.unwrap();
        tokio::time::sleep(Duration::from_secs(121)).await;
        assert_eq!(registry.0.heartbeats(), in_two_minutes, "{ttl:?}");
        mesh.shutdown(Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(
            registry.0.heartbeats(),
            in_two_minutes,
            "and none after its end"
        );
    }
}

/// Callers hold for 30 s what a registry that comes back has forgotten.
#[tokio::test(start_paused = true)]
async fn a_registry_that_was_away_is_told_within_five_seconds_of_its_return() {
    for ttl in [Some(60), None] {
        let registry = Counting::default();
        let mesh = mesh(&registry).await;
        let instance = match ttl {
            Some(ttl) => instance(80).with_ttl(Duration::from_secs(ttl)),
            None => instance(80),
        };
        mesh.register(instance).await.unwrap();
        registry.0.is_away.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(61)).await;
        registry.0.is_away.store(false, Ordering::SeqCst);
        let before = registry.0.heartbeats();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(registry.0.heartbeats(), before + 1, "{ttl:?}");
        // And not so often any more.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(registry.0.heartbeats(), before + 1, "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_says_what_was_registered() {
    let registry = Counting::default();
    let mesh = mesh(&registry).await;
    let ill = Endpoint::new(([127, 0, 0, 1], 80).into()).with_health(Health::Warning);
    let ill = Instance::new(name("orders"), ill);
    mesh.register(ill).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(*registry.0.heartbeats.lock().unwrap(), [Health::Warning]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_hangs_does_not_keep_an_instance_registered() {
    let registry = Counting(Arc::new(Counts {
        hangs: true,
        ..Counts::default()
    }));
    let mesh = mesh(&registry).await;
    mesh.register(instance(80)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(registry.0.heartbeats(), 1, "it is under way");
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(registry.0.deregistered.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_registered_again_has_one_heartbeat_and_one_end() {
    let registry = Counting::default();
    let mesh = mesh(&registry).await;
    for _ in 0..3 {
        mesh.register(instance(80)).await.unwrap();
    }
    mesh.register(instance(81)).await.unwrap();
    assert_eq!(registry.0.abandoned.load(Ordering::SeqCst), 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(registry.0.heartbeats(), 2);
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(registry.0.deregistered.load(Ordering::SeqCst), 2);
}
