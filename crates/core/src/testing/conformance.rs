//! Whether a backend keeps to what [`Resolve`], [`Register`] and [`KeyValue`] promise.
//!
//! A suite needs a harness: what gives it the backend, lets time pass, and breaks the connection. It checks every rule
//! and says which were broken and how. A harness over a real server lets real time pass; one over something in memory
//! moves a [`Clock::manual`].
//!
//! A suite leaves nothing behind but what the backend itself keeps, and uses names that begin with
//! [`Harness::word`], so that it can run against a server that others use.
//!
//! # Example
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use tower_mesh_core::{
//!     BoxFuture, Clock, KeyValue, ManualClock, MemoryKeyValue,
//!     testing::conformance::{self, Harness, KeyValueHarness},
//! };
//!
//! struct InMemory(MemoryKeyValue, Clock, ManualClock);
//!
//! impl Harness for InMemory {
//!     fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
//!         self.2.advance(time);
//!         Box::pin(async {})
//!     }
//! }
//!
//! impl KeyValueHarness for InMemory {
//!     fn store(&self) -> Arc<dyn KeyValue> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     fn clock(&self) -> Clock {
//!         self.1.clone()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (clock, handle) = Clock::manual();
//! let harness = InMemory(MemoryKeyValue::with_clock(clock.clone()), clock, handle);
//! conformance::key_value(&harness).await.expect("it conforms");
//! # }
//! ```

mod followed;
mod key_value;
mod leases;
mod register;
mod resolve;
mod watches;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::future::{self, Either};

pub use self::{key_value::key_value, register::register, resolve::resolve};
use crate::{
    endpoint::Endpoint,
    kv::KeyValue,
    name::ServiceName,
    register::{BoxFuture, Register},
    resolve::Resolve,
    time::Clock,
};

/// What every suite needs of the surroundings of a backend.
pub trait Harness: Send + Sync {
    /// Lets `time` pass, for the backend too.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;

    /// How long a change may take to be seen.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// Breaks the connection between the backend and its server, until [`mend`](Self::mend); false if there is none, and
    /// the rules about it do not apply.
    fn cut(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    /// Restores the connection.
    fn mend(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Makes each answer take `time` from now on; false if that cannot be done, and the rules about it do not apply.
    fn slow_down(&self, time: Duration) -> bool {
        let _ = time;
        false
    }

    /// What every name begins with: another word for each run if the server outlives it.
    fn word(&self) -> String {
        "conformance".into()
    }
}

/// What [`resolve`](resolve()) needs.
pub trait ResolveHarness: Harness {
    /// The source to be examined.
    fn source(&self) -> Arc<dyn Resolve>;

    /// Makes these the endpoints that the registry knows of `service`, or makes it unknown.
    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()>;

    /// Whether it tells a service without endpoints from one that does not exist.
    fn tells_absent(&self) -> bool {
        true
    }

    /// Whether it says more of an endpoint than its address.
    fn describes(&self) -> bool {
        true
    }
}

/// What [`register`](register()) needs.
pub trait RegisterHarness: Harness {
    /// The registry to be examined.
    fn registry(&self) -> Arc<dyn Register>;

    /// A source that sees what is registered.
    fn source(&self) -> Arc<dyn Resolve>;

    /// The TTL to use.
    fn ttl(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// What [`key_value`](key_value()) needs.
pub trait KeyValueHarness: Harness {
    /// The store to be examined.
    fn store(&self) -> Arc<dyn KeyValue>;

    /// The clock that it was made with.
    fn clock(&self) -> Clock;

    /// The TTL of leases to use.
    fn ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// How long a lease may live on after its time: Consul takes up to as long again.
    fn grace(&self) -> Duration {
        self.ttl()
    }
}

/// What one rule has found: nothing, or how it was broken.
type Finding = Result<(), String>;

/// Waits for `future` while at most `time` passes.
async fn within<T>(
    harness: &(impl Harness + ?Sized),
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    const STEPS: u32 = 50;
    let mut future = pin!(future);
    for _ in 0..STEPS {
        let pass = pin!(harness.pass(time / STEPS));
        if let Either::Left((out, _)) = future::select(future.as_mut(), pass).await {
            return Some(out);
        }
    }
    now(future).await
}

/// What `future` comes to without waiting.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match future::select(pin!(future), future::ready(())).await {
        Either::Left((out, _)) => Some(out),
        Either::Right(_) => None,
    }
}

fn ensure(holds: bool, found: impl FnOnce() -> String) -> Finding {
    if holds { Ok(()) } else { Err(found()) }
}

fn service(harness: &(impl Harness + ?Sized), name: &str) -> ServiceName {
    ServiceName::new(&format!("{}-{name}", harness.word()))
        .expect("the word of a harness is a service name")
}

/// Endpoints that differ in all that a registry can say of them.
fn endpoint(port: u16) -> Endpoint {
    use crate::endpoint::Weight;
    Endpoint::new(([127, 0, 0, 1], port).into())
        .with_id(&format!("instance-{port}"))
        .with_weight(Weight::new(1 + port % 7))
        .with_zone(&format!("zone-{}", port % 3))
        .with_priority((port % 2) as u8)
        .with_tag("conformance")
        .with_metadata("port", &port.to_string())
}
