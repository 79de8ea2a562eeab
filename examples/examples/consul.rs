//! Processes that answer for `orders` and one that calls them, registered in and found through a real Consul. One is
//! killed, one joins, one leaves, and the calls go on.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that uses the mesh takes time and tasks from tokio"
)]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use axum::Router;
use http_body_util::BodyExt;
use tokio::time::{Instant as Time, sleep, timeout};
use tower_mesh::{Config, Endpoint, Instance, Mesh, MeshService, ServiceName};

const HELP: &str = "\
Calls a service whose processes register with a real Consul, while one of them is killed, one joins and one leaves.

Usage: cargo run --release --example consul

It starts an agent of its own, in memory, if there is a `consul` on the path, or one that `cargo xtask servers` has
fetched. Else it uses the agent at CONSUL_HTTP_ADDR. It takes about ten seconds, and succeeds if no call has failed.
";

const NO_AGENT: &str = "there is no Consul: install it, or fetch it with `cargo xtask servers`, \
     or set CONSUL_HTTP_ADDR to an agent's address";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => run().await,
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        // What the processes of the service are started with.
        ["serve", colour, agent] => serve(colour, agent).await,
        _ => Err("it takes no arguments (--help says what it does)".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The caller's side: the story from its beginning to its end.
async fn run() -> Result<()> {
    let agent = Agent::find().await?;
    println!("consul is at {}", agent.address);
    let mut red = Process::start("red", &agent)?;
    let blue = Process::start("blue", &agent)?;

    let mesh = Mesh::builder("caller").config(config(&agent.address)?);
    let mesh = mesh.start().await?;
    let orders = mesh.service("orders")?;
    let mut caller = Caller::new(orders);
    caller.until_answered_by(&["red", "blue"]).await?;

    caller.call_for(2, "both answer").await;
    red.kill()?;
    println!("red is killed; it has told nobody");
    caller.call_for(2, "blue answers in its place").await;
    let after = caller.call_for(1, "and nobody asks red any more").await;
    if after.contains_key("red") || !after.contains_key("blue") {
        return Err("the traffic has not moved".into());
    }
    let green = Process::start("green", &agent)?;
    caller.until_answered_by(&["blue", "green"]).await?;
    caller.call_for(2, "green takes its share").await;
    blue.leave()?;
    let after = caller.call_for(1, "blue has left, in order").await;
    if after.contains_key("blue") {
        return Err("blue is called though it has left".into());
    }
    println!("\n{}", mesh.status());
    green.leave()?;
    mesh.shutdown(Duration::from_secs(5)).await?;
    println!("{} calls, {} failed", caller.calls, caller.failed);
    match caller.failed {
        0 => Ok(()),
        _ => Err("a call has failed".into()),
    }
}

fn config(agent: &str) -> Result<Config> {
    let text = format!(
        r#"
        [discovery]
        kind = "consul"
        consul.address = "{agent}"

        [defaults]
        timeout = "2s"
        balance = "round-robin"
        "#
    );
    Ok(Config::parse(&text)?)
}

/// A process of the service: it registers, answers with its colour, and leaves when its input ends.
async fn serve(colour: &str, agent: &str) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = colour.to_owned();
    let app = Router::new().fallback(async move || answer);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = ended.await;
    });
    let server = tokio::spawn(server.into_future());

    let mesh = Mesh::builder("orders").config(config(agent)?);
    let mesh = mesh.start().await?;
    let endpoint = Endpoint::new(address).with_metadata("colour", colour);
    let instance = Instance::new(ServiceName::new("orders")?, endpoint);
    // Who is killed cannot say so: Consul counts it as critical when no heartbeat has come for so long.
    let instance = instance.with_ttl(Duration::from_secs(3));
    mesh.register(instance).await?;
    println!("{colour} is registered at {address}");

    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    // Out of the registry first, then the server: nobody is sent to a closed door.
    mesh.shutdown(Duration::from_secs(5)).await?;
    println!("{colour} is deregistered");
    let _ = end.send(());
    server.await??;
    Ok(())
}

struct Caller {
    orders: MeshService,
    calls: u64,
    failed: u64,
}

impl Caller {
    fn new(orders: MeshService) -> Self {
        let (calls, failed) = (0, 0);
        Self {
            orders,
            calls,
            failed,
        }
    }

    /// Who answered; nothing if nobody did.
    async fn call(&self) -> Option<String> {
        let response = self.orders.get("/").await.ok()?;
        let body = response.into_body().collect().await.ok()?;
        String::from_utf8(body.to_bytes().into()).ok()
    }

    /// Calls, without counting, until each of `colours` has answered.
    async fn until_answered_by(&mut self, colours: &[&str]) -> Result<()> {
        let mut left: Vec<_> = colours.to_vec();
        let answered = async {
            while !left.is_empty() {
                if let Some(colour) = self.call().await {
                    left.retain(|other| *other != colour);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let answered = timeout(Duration::from_secs(30), answered).await;
        answered.map_err(|_| format!("not all of {colours:?} have answered within 30 s").into())
    }

    /// Calls for so many seconds, and tells who answered how often.
    async fn call_for(&mut self, seconds: u64, what: &str) -> BTreeMap<String, u64> {
        let mut answers = BTreeMap::new();
        let (before, end) = (self.failed, Time::now() + Duration::from_secs(seconds));
        while Time::now() < end {
            self.calls += 1;
            match self.call().await {
                Some(colour) => *answers.entry(colour).or_default() += 1,
                None => self.failed += 1,
            }
            sleep(Duration::from_millis(10)).await;
        }
        let failed = self.failed - before;
        println!("{what}: {answers:?}, {failed} failed");
        answers
    }
}

/// A process of the service, as its parent holds it; it is gone when this is dropped.
struct Process(Child);

impl Process {
    fn start(colour: &str, agent: &Agent) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["serve", colour, &agent.address]);
        Ok(Self(command.stdin(Stdio::piped()).spawn()?))
    }

    fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// Lets it end in order.
    fn leave(mut self) -> io::Result<()> {
        drop(self.0.stdin.take());
        self.0.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where Consul is; one of our own ends with this.
struct Agent {
    address: String,
    child: Option<Child>,
}

impl Agent {
    async fn find() -> Result<Self> {
        if let Some(program) = program() {
            return Self::start(&program).await;
        }
        let address = env::var("CONSUL_HTTP_ADDR").map_err(|_| NO_AGENT)?;
        Ok(Self {
            address,
            child: None,
        })
    }

    async fn start(program: &PathBuf) -> Result<Self> {
        let [http, serf, server] = free_ports()?;
        let ports = format!(
            "ports {{ http = {http} dns = -1 serf_lan = {serf} serf_wan = -1 server = {server} grpc = -1 https = -1 }}"
        );
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-node", "agent", "-log-level", "err"]);
        command.args(["-bind", "127.0.0.1", "-client", "127.0.0.1", "-hcl", &ports]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn()?;
        let agent = Self {
            address: format!("127.0.0.1:{http}"),
            child: Some(child),
        };
        for _ in 0..1_000 {
            if is_up(&agent.address).unwrap_or(false) {
                return Ok(agent);
            }
            sleep(Duration::from_millis(30)).await;
        }
        Err("the agent did not come up within 30 s".into())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The one on the path, or the one that `cargo xtask servers` has fetched below the target directory.
fn program() -> Option<PathBuf> {
    let this = env::current_exe().unwrap_or_default();
    let fetched = this
        .ancestors()
        .map(|above| above.join("servers/consul/usr/bin/consul"));
    let runs = |program: &PathBuf| {
        let mut command = Command::new(program);
        let command = command.arg("version").stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    std::iter::once(PathBuf::from("consul"))
        .chain(fetched)
        .find(runs)
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Whether it knows itself: before that it takes no registrations.
fn is_up(address: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /v1/health/node/agent HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains("serfHealth"))
}
