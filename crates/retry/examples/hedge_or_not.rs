//! What hedging comes to, and when to leave it alone: the mesh's balancer with and without it on simulated fleets that are
//! used more and more.
//!
//! `cargo run --release -p tower-mesh-retry --example hedge_or_not`
//!
//! A server goes on with what its client has given up, as most do: what a loser costs is lost.

use std::{net::SocketAddr, time::Duration};

use tower::Layer;
use tower_mesh_balance::{Balance, BalanceLayer};
use tower_mesh_core::{ClassifyErrors, CloneIdempotent, Endpoint, Endpoints, Ratio, ServiceName};
use tower_mesh_retry::{Budget, Hedge, HedgeAfter, HedgeLayer};
use tower_mesh_sim::{Antagonists, Connection, Pauses, Report, Scenario, Seat, Server, Work};

const SECOND: Duration = Duration::from_secs(1);

fn balance(seat: &Seat) -> (Endpoints, Balance<Connection>) {
    let address = |server: usize| SocketAddr::from(([10, 0, 0, 1], 1 + server as u16));
    let name = ServiceName::new("orders").expect("a valid name");
    let members = seat.members().iter();
    let endpoints = Endpoints::fixed(
        name,
        members.map(|member| Endpoint::new(address(member.server))),
    );
    let servers = seat.clone();
    let balance = BalanceLayer::new(endpoints.clone())
        .clock(seat.clock().clone())
        .rng(seat.rng().clone())
        .layer(move |endpoint: &Endpoint| {
            servers.connect(usize::from(endpoint.address().port()) - 1)
        });
    (endpoints, balance)
}

fn hedged(
    percentile: u8,
) -> impl Fn(&Seat) -> Hedge<Balance<Connection>, CloneIdempotent, ClassifyErrors> {
    move |seat| {
        let (endpoints, balance) = balance(seat);
        HedgeLayer::new(Budget::default())
            .after(HedgeAfter::Percentile {
                share: Ratio::percent(percentile),
                at_least: Duration::from_millis(1),
            })
            .elsewhere(endpoints)
            .clock(seat.clock().clone())
            .over(balance)
    }
}

fn show(fleet: &str, load: f64, how: &str, report: &Report) {
    let [p50, p99, p999] =
        [0.5, 0.99, 0.999].map(|share| report.latency(share).as_secs_f64() * 1e3);
    let attempts = report.attempts() as f64 / report.calls() as f64;
    println!("{fleet:<10} {load:>4} {how:<10} {p50:>8.1} {p99:>8.1} {p999:>8.1} {attempts:>9.3}");
}

fn main() {
    let even = Scenario::new(1).servers(vec![Server::new(); 20]).clients(4);
    let heavy = Work::LogNormal {
        mean: Duration::from_millis(10),
        sigma: 1.8,
    };
    let fleets = [
        ("even", even.clone()),
        ("heavy tail", even.clone().work(heavy)),
        (
            "pauses",
            even.antagonists(Antagonists::new())
                .pauses(Pauses::new(SECOND / 5, SECOND / 2)),
        ),
    ];
    println!("fleet      used how             p50      p99    p99.9  attempts");
    for (name, fleet) in fleets {
        for load in [0.4, 0.6, 0.7, 0.8, 0.9] {
            let fleet = fleet.clone().utilisation(load);
            let plain = fleet.start(|seat: &Seat| balance(seat).1);
            let report = { plain }.measure(2 * SECOND, 10 * SECOND);
            show(name, load, "not", &report);
            for percentile in [95, 99] {
                let report = fleet
                    .start(hedged(percentile))
                    .measure(2 * SECOND, 10 * SECOND);
                show(name, load, &format!("p{percentile}"), &report);
            }
        }
    }
}
