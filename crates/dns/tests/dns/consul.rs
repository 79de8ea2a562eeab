//! The DNS of a real agent of Consul.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{
    BoxFuture, Endpoint, Instance, Register, Registration, Resolve, ServiceName, Weight,
    testing::conformance::{self, Harness, ResolveHarness},
};
use tower_mesh_dns::{Dns, Records, Transport};

use crate::{
    agent::Agent,
    proxy::Proxy,
    scene::{Scene, orders, pass},
    seen::Seen,
};

const SRV: &str = "{service}.service.consul";

fn dns(agent: &Agent) -> Dns {
    Dns::new([([127, 0, 0, 1], agent.dns()).into()]).unwrap()
}

fn srv(agent: &Agent) -> Dns {
    dns(agent).records(Records::srv(SRV).unwrap())
}

async fn register(agent: &Agent, all: impl IntoIterator<Item = Endpoint>) -> Vec<Registration> {
    let mut kept = Vec::new();
    for endpoint in all {
        let instance = Instance::new(orders(), endpoint);
        kept.push(agent.consul().register(instance).await.unwrap());
    }
    kept
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, last], 8080).into())
}

/// What Consul knows is put there by its own client; its DNS is asked through a proxy that can be cut.
struct Behind {
    scene: Scene,
    proxy: Proxy,
}

impl Harness for Behind {
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
}

impl ResolveHarness for Behind {
    fn source(&self) -> Arc<dyn Resolve> {
        let records = Records::srv(SRV).unwrap();
        let dns = Dns::new([self.proxy.address()]).unwrap().records(records);
        let short = Duration::from_millis(100);
        Arc::new(dns.min_ttl(short).max_ttl(short))
    }

    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()> {
        self.scene.publish(service, endpoints)
    }

    fn tells_absent(&self) -> bool {
        false
    }

    fn describes(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn the_dns_of_consul_conforms_as_a_source() {
    let scene = Scene::new().await;
    let proxy = Proxy::before(scene.agent.dns()).await;
    let behind = Behind { scene, proxy };
    conformance::resolve(&behind).await.expect("it conforms");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn the_ports_and_weights_of_consul_are_those_of_srv_records() {
    let agent = Agent::start().await;
    let heavy = endpoint(1).with_weight(Weight::new(7));
    let mut kept = register(&agent, [heavy, endpoint(2)]).await;
    let mut seen = Seen::start(srv(&agent));
    let told = seen.report().await.unwrap().unwrap();
    let light = ("10.0.0.2:8080".to_owned(), 0, 1);
    assert_eq!(told, [("10.0.0.1:8080".to_owned(), 0, 7), light.clone()]);
    kept.remove(0).deregister().await.unwrap();
    assert_eq!(seen.report().await.unwrap().unwrap(), [light]);
    assert!(
        seen.pauses[0] >= Duration::from_secs(4),
        "Consul's TTL is 0"
    );
    kept.remove(0).deregister().await.unwrap();
    assert_eq!(seen.report().await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn the_addresses_of_consul_come_with_a_port_of_ours() {
    let agent = Agent::start().await;
    let _kept = register(&agent, [endpoint(1), endpoint(2)]).await;
    let records = Records::addresses(SRV, 9090).unwrap();
    let told = Seen::start(dns(&agent).records(records)).report().await;
    let ports = told.unwrap().unwrap();
    let expected = ["10.0.0.1:9090", "10.0.0.2:9090"];
    assert_eq!(ports.iter().map(|(a, ..)| a).collect::<Vec<_>>(), expected);
}

/// Over UDP Consul leaves out what does not fit, and does not say so.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn over_tcp_consul_names_all_endpoints_and_over_udp_some() {
    let agent = Agent::start().await;
    let _kept = register(&agent, (1..=100).map(endpoint)).await;
    let told = async |dns: Dns| Seen::start(dns).report().await.unwrap().unwrap().len();
    assert_eq!(told(srv(&agent)).await, 100);
    let over_udp = told(srv(&agent).transport(Transport::Udp)).await;
    assert!((3..100).contains(&over_udp), "{over_udp} of 100");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_marks_truncated_answers_is_asked_over_tcp() {
    let agent = Agent::with("dns_config { enable_truncate = true }").await;
    let _kept = register(&agent, (1..=100).map(endpoint)).await;
    let dns = srv(&agent).transport(Transport::Udp);
    let told = Seen::start(dns).report().await.unwrap().unwrap();
    assert_eq!(told.len(), 100);
}
