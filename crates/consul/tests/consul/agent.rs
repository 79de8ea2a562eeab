//! Real agents on free ports, each of which ends with its test.

use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_mesh_consul::Consul;
use tower_mesh_core::Clock;

/// An agent in memory, which is a server too.
pub(crate) struct Agent {
    child: Child,
    port: u16,
    dns: u16,
    https: u16,
    config: String,
    directory: TempDir,
}

/// As long as in production if the tests are run with `--long`, else `short`.
pub(crate) fn as_long_as(long: Duration, short: Duration) -> Duration {
    match is_long() {
        true => long,
        false => short,
    }
}

pub(crate) fn is_long() -> bool {
    std::env::var_os("TOWER_MESH_LONG").is_some()
}

/// What an agent that denies is configured with.
pub(crate) const DENYING: &str = r#"
    primary_datacenter = "dc1"
    acl {
      enabled = true
      default_policy = "deny"
      tokens { master = "5ec2e700-ca0a-4000-8000-000000000000" agent = "5ec2e700-ca0a-4000-8000-000000000000" }
    }
"#;

/// The token that may do everything there.
pub(crate) const TOKEN: &str = "5ec2e700-ca0a-4000-8000-000000000000";

impl Agent {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// One that is configured further, in Consul's own language. With a `cert_file` it also listens for TLS.
    pub(crate) async fn with(config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        // Another process may take a port before the agent does.
        for _ in 0..3 {
            let [port, dns, https, serf, server] = free_ports();
            let child = spawn(&directory, config, [port, dns, https, serf, server]);
            let directory = TempDir::new().unwrap();
            let mut agent = Self {
                child,
                port,
                dns,
                https,
                config: config.to_owned(),
                directory,
            };
            if agent.is_up().await {
                return agent;
            }
        }
        panic!("no agent came up, see {}", directory.path().display());
    }

    /// Ends it, and starts another at the same address that knows nothing.
    pub(crate) async fn lose_state(&mut self) {
        self.stop();
        let [_, _, serf, server] = free_ports();
        let ports = [self.port, self.dns, self.https, serf, server];
        self.child = spawn(&self.directory, &self.config, ports);
        assert!(self.is_up().await, "it did not come back");
    }

    /// It hangs: connections stay open, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let sent = kill.args(["-s", name, &self.child.id().to_string()]);
        assert!(sent.status().unwrap().success());
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn is_up(&mut self) -> bool {
        for _ in 0..1_500 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // Not only a leader: its own node has to be in the catalogue.
            let token = format!("x-consul-token: {TOKEN}\r\n");
            let nodes = request(self.port, "GET", "/v1/health/node/agent", &token, "").await;
            if nodes.is_some_and(|nodes| nodes.contains("serfHealth")) {
                return true;
            }
            Clock::tokio().sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn https(&self) -> u16 {
        self.https
    }

    /// Where its DNS listens, over UDP and TCP.
    #[allow(dead_code, reason = "the crate for DNS starts agents, too")]
    pub(crate) fn dns(&self) -> u16 {
        self.dns
    }

    pub(crate) fn consul(&self) -> Consul {
        Consul::new(&format!("127.0.0.1:{}", self.port)).unwrap()
    }
}

pub(crate) async fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(directory: &TempDir, config: &str, ports: [u16; 5]) -> Child {
    let log = || Stdio::from(File::create(directory.path().join("log")).unwrap());
    let mut command = Command::new(program());
    command.args([
        "agent",
        "-dev",
        "-bind",
        "127.0.0.1",
        "-client",
        "127.0.0.1",
    ]);
    command.args(["-log-level", "warn", "-node", "agent", "-hcl"]);
    let [http, dns, https, serf, server] = ports;
    let https = match config.contains("cert_file") {
        true => i32::from(https),
        false => -1,
    };
    command.arg(format!(
        "{config}\nports {{ http = {http} dns = {dns} serf_lan = {serf} serf_wan = -1 server = {server} grpc = -1 https = {https} }}"
    ));
    command.stdin(Stdio::null()).stdout(log()).stderr(log());
    command.spawn().expect("consul starts")
}

/// The one on the path, or the one that `cargo xtask servers` has fetched.
pub(crate) fn program() -> PathBuf {
    let fetched = concat!(
        env!("CARGO_TARGET_TMPDIR"),
        "/../servers/consul/usr/bin/consul"
    );
    let candidates = [PathBuf::from("consul"), PathBuf::from(fetched)];
    let runs = |program: &PathBuf| {
        let mut command = Command::new(program);
        let silent = command
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        silent.status().is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().find(runs);
    found.expect("this test needs Consul, `cargo xtask servers` fetches it")
}

pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // All at once, or the same one would be free again and again.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
