//! Ten axum servers of which at any time at least two are broken, and the same calls to them twice: through the mesh,
//! and by plain round robin.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that uses the mesh takes time and tasks from tokio"
)]

mod args;
mod counts;
mod progress;
mod record;
mod report;
mod script;
mod servers;
mod traffic;
mod ways;

use std::{env, error::Error, process::ExitCode, time::Duration};

use tower_mesh::{Endpoint, Instance, Mesh, MeshService, Policy, ServiceName};

use self::{
    args::{Args, HELP},
    counts::Counts,
    record::Record,
    report::Report,
    script::Condition,
    servers::Fleet,
    ways::{RoundRobin, TIMEOUT},
};

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error} (--help says what there is)");
            return ExitCode::from(2);
        }
    };
    match run(args).await {
        Ok(report) => show(&report),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<Report, Box<dyn Error>> {
    let fleet = Fleet::start()?;

    // The mesh finds `orders` in the registry that is embedded in it, …
    let mesh = Mesh::builder("quickstart")
        .policy("orders", policy())
        .start()
        .await?;
    // … where the servers are registered, whether they are well or not, …
    for address in fleet.addresses() {
        let instance = Instance::new(ServiceName::new("orders")?, Endpoint::new(address));
        mesh.register(instance).await?;
    }
    // … and calls it by its name: `orders.get("/orders/42").await?`
    let orders = mesh.service("orders")?;

    let report = compare(args, &fleet, &mesh, orders).await;
    mesh.shutdown(Duration::from_secs(5)).await?;
    fleet.stop();
    Ok(report)
}

/// A call has a second, a try a quarter of it: else a server that hangs would use up the call. All else is as it comes.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.timeout = TIMEOUT;
    policy.retry.per_try_timeout = Some(TIMEOUT / 4);
    policy
}

/// Sends the same calls both ways while the servers suffer.
async fn compare(args: Args, fleet: &Fleet, mesh: &Mesh, orders: MeshService) -> Report {
    let servers = fleet.addresses();
    let round_robin = RoundRobin::new(&servers);
    let (through_mesh, by_round_robin) = (Record::default(), Record::default());
    let state = || {
        let conditions: String = fleet.conditions().map(Condition::letter).iter().collect();
        let breakers = Counts::of(mesh).breakers(&servers);
        format!("servers {conditions}  breakers {breakers}")
    };
    tokio::select! {
        never = progress::show(args, &through_mesh, &by_round_robin, state) => match never {},
        ((), ()) = async { tokio::join!(
            traffic::send(args, (orders, &through_mesh), (round_robin, &by_round_robin)),
            fleet.suffer(args.duration()),
        ) } => {}
    }
    Report {
        args,
        counts: Counts::of(mesh),
        servers,
        mesh: through_mesh,
        round_robin: by_round_robin,
    }
}

fn show(report: &Report) -> ExitCode {
    if report.args.json {
        eprintln!("\n{report}");
        println!("{}", report.json());
    } else {
        println!("\n{report}");
    }
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
