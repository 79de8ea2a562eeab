//! Three servers on one machine, one of which leads.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tower_mesh_core::Clock;

use crate::agent::{free_ports, program, request};

pub(crate) struct Server {
    child: Child,
    pub(crate) http: u16,
    pub(crate) rpc: u16,
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

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn cluster() -> Vec<Server> {
    let ports: [u16; 12] = free_ports();
    let ports = |n: usize| [ports[n], ports[n + 3], ports[n + 6], ports[n + 9]];
    let servers: Vec<_> = (0..3)
        .map(|n| Server::start(n, ports(n), ports(0)[1]))
        .collect();
    // All three know the leader, and their nodes are in its catalogue.
    for server in &servers {
        let mut nodes = String::new();
        while nodes.matches("\"Node\":").count() < 3 {
            Clock::tokio().sleep(Duration::from_millis(50)).await;
            let asked = request(server.http, "GET", "/v1/catalog/nodes", "", "").await;
            nodes = asked.unwrap_or_default();
        }
    }
    servers
}

/// Which of them leads.
pub(crate) async fn leader(servers: &[Server]) -> usize {
    let said = request(servers[0].http, "GET", "/v1/status/leader", "", "")
        .await
        .unwrap();
    let leads = |server: &Server| said.contains(&format!("127.0.0.1:{}\"", server.rpc));
    servers.iter().position(leads).expect("one of them leads")
}
