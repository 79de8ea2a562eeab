//! An agent behind a proxy, as the public suites want it, and what the tests share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use tower_mesh_consul::Consul;
use tower_mesh_core::{
    BoxFuture, Clock, Endpoint, Health, Instance, KeyValue, Register, Registration, Resolve,
    ServiceName, Update, Updates,
    testing::conformance::{Harness, KeyValueHarness, RegisterHarness, ResolveHarness},
};

use crate::{agent::Agent, proxy::Proxy};

pub(crate) struct Scene {
    pub(crate) agent: Agent,
    pub(crate) proxy: Proxy,
    /// Those that a suite has published.
    published: Mutex<HashMap<ServiceName, HashMap<Box<str>, Registration>>>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let agent = Agent::start().await;
        Self {
            proxy: Proxy::before(agent.port()).await,
            agent,
            published: Mutex::default(),
        }
    }

    /// One whose waits and pauses are short, so that they end within a test.
    pub(crate) fn consul(&self) -> Consul {
        let consul = self.proxy.consul().wait(Duration::from_secs(2));
        consul.max_pause(Duration::from_millis(500))
    }
}

impl Harness for Scene {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(pass(time))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.proxy.cut();
        Box::pin(async { true })
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.proxy.mend();
        Box::pin(async {})
    }

    fn slow_down(&self, time: Duration) -> bool {
        self.proxy.slow_down(time);
        true
    }
}

impl ResolveHarness for Scene {
    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.consul())
    }

    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut old = self
                .published
                .lock()
                .unwrap()
                .remove(service)
                .unwrap_or_default();
            let mut new = HashMap::new();
            for endpoint in endpoints.unwrap_or_default() {
                let instance = Instance::new(service.clone(), endpoint.clone());
                let registration = self.agent.consul().register(instance).await.unwrap();
                // The older one of the same instance goes without taking the newer with it.
                drop(old.remove(endpoint.id()));
                new.insert(endpoint.id().into(), registration);
            }
            for (_, gone) in old {
                gone.deregister().await.unwrap();
            }
            self.published.lock().unwrap().insert(service.clone(), new);
        })
    }

    fn tells_absent(&self) -> bool {
        false
    }
}

impl RegisterHarness for Scene {
    fn registry(&self) -> Arc<dyn Register> {
        Arc::new(self.consul())
    }

    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.agent.consul())
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
}

impl KeyValueHarness for Scene {
    fn store(&self) -> Arc<dyn KeyValue> {
        Arc::new(self.consul())
    }

    fn clock(&self) -> Clock {
        Clock::tokio()
    }
}

pub(crate) async fn pass(time: Duration) {
    Clock::tokio().sleep(time).await;
}

pub(crate) fn name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn orders() -> ServiceName {
    name("orders")
}

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([127, 0, 0, 1], port).into())
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new(orders(), endpoint(port))
}

/// One who follows a service, and fails rather than wait for ever.
pub(crate) struct Seen(Updates);

impl Seen {
    pub(crate) fn start(source: &impl Resolve, service: &ServiceName) -> Self {
        Self(source.resolve(service))
    }

    /// The next report; an error as its text, with its causes.
    pub(crate) async fn next(&mut self) -> Result<Vec<(u16, Health)>, String> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.0.next());
        match next.await.expect("a report").expect("it never ends") {
            Ok(Update::Replace(all)) => Ok(all
                .iter()
                .map(|e| (e.address().port(), e.health()))
                .collect()),
            Ok(other) => panic!("an answer of Consul's is {other:?}"),
            Err(error) => Err(chain(&error)),
        }
    }

    /// The ports of the next answer that is one.
    pub(crate) async fn ports(&mut self) -> Vec<u16> {
        loop {
            if let Ok(all) = self.next().await {
                return all.into_iter().map(|(port, _)| port).collect();
            }
        }
    }

    /// Waits until it has been told of just these.
    pub(crate) async fn until(&mut self, expected: &[(u16, Health)]) {
        loop {
            match self.next().await {
                Ok(all) if all == expected => return,
                _ => {}
            }
        }
    }

    pub(crate) async fn error(&mut self) -> String {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }
}

/// An error and what caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
