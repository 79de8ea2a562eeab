//! Three servers on one machine, one of which leads.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use tempfile::TempDir;
use tower_mesh_consul::Consul;
use tower_mesh_core::{
    Clock, Key, KeyValue, Register, Resolve, Update, Updates, kv::KeyValueErrorKind,
};

use crate::{
    agent::{free_ports, program, request},
    scene::{instance, orders, pass},
};

struct Server {
    child: Child,
    http: u16,
    rpc: u16,
    _data: TempDir,
}

impl Server {
    fn start(node: usize, ports: [u16; 4], join: u16) -> Self {
        let data = TempDir::new().unwrap();
        let [http, serf, rpc, dns] = ports;
        let log = || Stdio::from(File::create(data.path().join("log")).unwrap());
        let mut command = Command::new(program());
        command.args([
            "agent",
            "-server",
            "-bootstrap-expect",
            "3",
            "-log-level",
            "warn",
        ]);
        command.args([
            "-bind",
            "127.0.0.1",
            "-client",
            "127.0.0.1",
            "-node",
            &format!("n{node}"),
        ]);
        command.args([
            "-retry-join",
            &format!("127.0.0.1:{join}"),
            "-retry-interval",
            "1s",
        ]);
        command.arg("-data-dir").arg(data.path());
        // The quickest election that Consul offers, as it recommends for production.
        command.args(["-hcl", &format!(
            "performance {{ raft_multiplier = 1 }} ports {{ http = {http} serf_lan = {serf} server = {rpc} dns = {dns} serf_wan = -1 grpc = -1 https = -1 }}"
        )]);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        Self {
            child: command.spawn().expect("consul starts"),
            http,
            rpc,
            _data: data,
        }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn cluster() -> Vec<Server> {
    let ports: [u16; 12] = free_ports();
    let ports = |n: usize| [ports[n], ports[n + 3], ports[n + 6], ports[n + 9]];
    let servers: Vec<_> = (0..3)
        .map(|n| Server::start(n, ports(n), ports(0)[1]))
        .collect();
    // All three know the leader, and their nodes are in its catalogue.
    for server in &servers {
        let mut nodes = String::new();
        while nodes.matches("\"Node\":").count() < 3 {
            pass(Duration::from_millis(50)).await;
            let asked = request(server.http, "GET", "/v1/catalog/nodes", "", "").await;
            nodes = asked.unwrap_or_default();
        }
    }
    servers
}

async fn leader(servers: &[Server]) -> usize {
    let said = request(servers[0].http, "GET", "/v1/status/leader", "", "")
        .await
        .unwrap();
    let leads = |server: &Server| said.contains(&format!("127.0.0.1:{}\"", server.rpc));
    servers.iter().position(leads).expect("one of them leads")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn when_the_leader_dies_those_who_follow_a_service_hear_no_error() {
    let mut servers = cluster().await;
    let dying = leader(&servers).await;
    let mut survivors = servers.iter().enumerate().filter(|(n, _)| *n != dying);
    let [one, other] = [(); 2].map(|()| survivors.next().unwrap().1.http);
    let consul = Consul::new(&format!("127.0.0.1:{one},127.0.0.1:{other}")).unwrap();
    let _before = consul.register(instance(1)).await.unwrap();
    let mut updates = consul.resolve(&orders());
    until(&mut updates, 1).await;

    servers[dying].stop();
    let died = Clock::tokio().now();
    let key = Key::new("a").unwrap();
    let mut failures = 0;
    let elected = async {
        // A write needs a leader.
        while let Err(error) = consul.put(&key, "1".into()).await {
            assert_eq!(error.kind(), KeyValueErrorKind::Unavailable, "{error}");
            failures += 1;
            pass(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = elected => {}
        heard = updates.next() => panic!("nothing has changed, but it reports {heard:?}"),
    }
    println!("written again after {:?}", Clock::tokio().now().since(died));
    assert!(failures > 0, "there was no time without a leader");

    // The same stream goes on.
    let _after = consul.register(instance(2)).await.unwrap();
    until(&mut updates, 2).await;
}

/// Waits for so many endpoints. A server may be a moment behind the leader, but never says an error.
async fn until(updates: &mut Updates, endpoints: usize) {
    loop {
        match updates.next().await.unwrap() {
            Ok(Update::Replace(all)) if all.len() == endpoints => return,
            Ok(_) => {}
            Err(error) => panic!("an election is no error: {error:?}"),
        }
    }
}
