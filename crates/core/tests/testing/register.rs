//! The suite for registries, on the one in memory and on broken variants of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future};
use tower_mesh_core::{
    BoxFuture, Clock, Endpoint, Health, Instance, ManualClock, MemoryRegistry, Register,
    RegisterError, Registered, Registration, Resolve,
    testing::conformance::{self, Harness, RegisterHarness},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ForgetsMetadata,
    RegistersLater,
    KeepsTheOlder,
    LetsTheOlderLeave,
    NeverDeregisters,
    KeepsWhatIsDropped,
    TakesAllAway,
    IgnoresHowItFeels,
    CountsHeartbeats,
    ExpiresEarly,
    NeverExpires,
    TakesZero,
    HidesALostHeartbeat,
}

/// The registry in memory behind a connection that can be cut, and with one fault.
#[derive(Clone)]
struct Registry {
    memory: MemoryRegistry,
    clock: ManualClock,
    cut: Arc<AtomicBool>,
    fault: Fault,
}

fn registry(fault: Fault) -> Registry {
    let (clock, handle) = Clock::manual();
    Registry {
        memory: MemoryRegistry::with_clock(clock),
        clock: handle,
        cut: Arc::default(),
        fault,
    }
}

impl Register for Registry {
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        Box::pin(async move {
            let spoilt = self.spoil(&instance);
            let inner = self.memory.register(spoilt.clone()).await?;
            let member = Member {
                inner: Mutex::new(Some(inner)),
                registry: self.clone(),
                instance: spoilt,
            };
            if self.fault == Fault::RegistersLater {
                member.leave();
            }
            Ok(Registration::new(instance, member))
        })
    }
}

impl Registry {
    fn spoil(&self, instance: &Instance) -> Instance {
        let endpoint = instance.endpoint().clone();
        let service = instance.service().clone();
        let with_ttl = |endpoint: Endpoint, ttl| match ttl {
            Some(ttl) => Instance::new(service.clone(), endpoint).with_ttl(ttl),
            None => Instance::new(service.clone(), endpoint),
        };
        let ttl = instance.ttl();
        match self.fault {
            Fault::ForgetsMetadata => {
                let bare = Endpoint::new(endpoint.address()).with_id(endpoint.id());
                with_ttl(bare, ttl)
            }
            Fault::KeepsTheOlder => {
                let id = format!("{}-{}", endpoint.id(), endpoint.weight().get());
                with_ttl(endpoint.with_id(&id), ttl)
            }
            Fault::ExpiresEarly => with_ttl(endpoint, ttl.map(|ttl| ttl / 2)),
            Fault::NeverExpires => with_ttl(endpoint, ttl.filter(Duration::is_zero)),
            Fault::TakesZero => with_ttl(endpoint, ttl.filter(|ttl| !ttl.is_zero())),
            _ => instance.clone(),
        }
    }
}

struct Member {
    inner: Mutex<Option<Registration>>,
    registry: Registry,
    instance: Instance,
}

impl Member {
    fn leave(&self) {
        self.inner.lock().unwrap().take();
    }

    fn stay(&self) {
        std::mem::forget(self.inner.lock().unwrap().take());
    }

    fn beat(&self, health: Health) -> Result<(), RegisterError> {
        let inner = self.inner.lock().unwrap();
        let Some(inner) = &*inner else { return Ok(()) };
        let beat = inner.heartbeat(health);
        beat.now_or_never().expect("nothing in memory waits")
    }
}

impl Registered for Member {
    fn heartbeat(&self, health: Health) -> BoxFuture<'_, Result<(), RegisterError>> {
        let Registry {
            fault, cut, memory, ..
        } = &self.registry;
        let beaten = match fault {
            Fault::HidesALostHeartbeat => Ok(()),
            _ if cut.load(Ordering::Relaxed) => Err(RegisterError::new("the connection is lost")),
            Fault::IgnoresHowItFeels => self.beat(Health::Passing),
            Fault::CountsHeartbeats => {
                let beats = self.registry.clock.reads().to_string();
                let counted = self
                    .instance
                    .endpoint()
                    .clone()
                    .with_metadata("beats", &beats);
                memory.set(self.instance.service(), [counted]);
                Ok(())
            }
            _ => self.beat(health),
        };
        Box::pin(future::ready(beaten))
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>> {
        match self.registry.fault {
            Fault::NeverDeregisters => self.stay(),
            Fault::TakesAllAway => self.registry.memory.set(self.instance.service(), []),
            _ => self.leave(),
        }
        Box::pin(future::ready(Ok(())))
    }

    fn abandon(&self) {
        match self.registry.fault {
            Fault::KeepsWhatIsDropped => self.stay(),
            Fault::LetsTheOlderLeave => self.registry.memory.set(self.instance.service(), []),
            _ => self.leave(),
        }
    }
}

impl Harness for Registry {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        Box::pin(future::ready(()))
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.cut.store(true, Ordering::Relaxed);
        Box::pin(future::ready(true))
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.cut.store(false, Ordering::Relaxed);
        Box::pin(future::ready(()))
    }
}

impl RegisterHarness for Registry {
    fn registry(&self) -> Arc<dyn Register> {
        Arc::new(self.clone())
    }

    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.memory.clone())
    }
}

#[test]
fn the_registry_in_memory_conforms() {
    tokio_test::block_on(conformance::register(&registry(Fault::None))).unwrap();
}

#[test]
fn each_fault_breaks_the_rule_that_is_meant_for_it() {
    for (fault, rule) in [
        (Fault::RegistersLater, "what is registered is found"),
        (Fault::ForgetsMetadata, "what is registered is found"),
        (Fault::KeepsTheOlder, "registering again replaces"),
        (
            Fault::LetsTheOlderLeave,
            "an older registration moves nothing",
        ),
        (Fault::NeverDeregisters, "what is deregistered is not found"),
        (Fault::KeepsWhatIsDropped, "what is dropped is deregistered"),
        (Fault::TakesAllAway, "instances do not disturb each other"),
        (
            Fault::IgnoresHowItFeels,
            "a heartbeat says how an instance feels",
        ),
        (
            Fault::CountsHeartbeats,
            "heartbeats that change nothing are not reported",
        ),
        (
            Fault::ExpiresEarly,
            "a missed heartbeat counts against an instance",
        ),
        (
            Fault::NeverExpires,
            "a missed heartbeat counts against an instance",
        ),
        (Fault::TakesZero, "a time of zero is refused"),
        (
            Fault::HidesALostHeartbeat,
            "a heartbeat that does not arrive is an error",
        ),
    ] {
        let broken = match tokio_test::block_on(conformance::register(&registry(fault))) {
            Ok(()) => vec![],
            Err(violations) => violations.rules(),
        };
        assert!(broken.contains(&rule), "{fault:?} has broken {broken:?}");
    }
}
