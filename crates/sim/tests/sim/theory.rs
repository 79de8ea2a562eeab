//! Queues whose delays are known exactly.

use std::time::Duration;

use tower_mesh_sim::{Report, Scenario, Server, Work, policies::Random};

const MS: Duration = Duration::from_millis(1);

/// One server with `slots` and this work of 10 ms, nothing on the wire, at this utilisation.
fn queue(slots: usize, work: Work, utilisation: f64) -> Report {
    Scenario::new(7)
        .servers([Server::new().slots(slots)])
        .work(work)
        .wire(Duration::ZERO)
        .utilisation(utilisation)
        .start(Random::client)
        .measure(10 * 1_000 * MS, 1_000 * 1_000 * MS / slots as u32)
}

fn near(measured: f64, expected: f64, off: f64) {
    assert!(
        (measured / expected - 1.0).abs() < off,
        "{measured} where {expected} was expected"
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[test]
fn one_slot_and_exponential_work_is_the_m_m_1_queue() {
    // The time in the system is exponentially distributed, 1 / (mu - lambda) in the mean.
    let report = queue(1, Work::Exponential(10 * MS), 0.5);
    let mean = 10.0 / (1.0 - 0.5);
    near(ms(report.mean_latency()), mean, 0.03);
    near(ms(report.latency(0.5)), mean * 2f64.ln(), 0.03);
    near(ms(report.latency(0.99)), mean * 100f64.ln(), 0.06);
    near(report.servers()[0].utilisation, 0.5, 0.02);
}

#[test]
fn one_slot_and_fixed_work_is_the_m_d_1_queue() {
    // Pollaczek and Khinchine: the wait is half of that of exponential work.
    let report = queue(1, Work::Fixed(10 * MS), 0.8);
    let wait = 0.8 * 10.0 / (2.0 * (1.0 - 0.8));
    near(ms(report.mean_latency()), 10.0 + wait, 0.03);
}

#[test]
fn one_slot_and_log_normal_work_is_the_m_g_1_queue() {
    // Pollaczek and Khinchine again: a log-normal has a squared coefficient of variation of e^(sigma^2) - 1.
    let report = queue(1, Work::default(), 0.6);
    let variation = (0.8f64 * 0.8).exp() - 1.0;
    let wait = 0.6 * 10.0 * (1.0 + variation) / (2.0 * (1.0 - 0.6));
    near(ms(report.mean_latency()), 10.0 + wait, 0.03);
}

#[test]
fn four_slots_and_exponential_work_is_the_m_m_4_queue() {
    // Erlang's C formula: the share of calls that have to wait.
    let report = queue(4, Work::Exponential(10 * MS), 0.8);
    let load: f64 = 4.0 * 0.8;
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let full = load.powi(4) / factorial(4) / (1.0 - 0.8);
    let free: f64 = (0..4).map(|n| load.powi(n) / factorial(n as u32)).sum();
    let waits = full / (free + full);
    let wait = waits * 10.0 / (4.0 * (1.0 - 0.8));
    near(ms(report.mean_latency()), 10.0 + wait, 0.03);
}

// Little's law: in flight = rate x latency, whatever the distributions.
#[test]
fn calls_in_flight_are_their_rate_times_their_latency() {
    let scenario = Scenario::new(3)
        .servers((0..10).map(|nth| Server::new().speed(if nth % 3 == 0 { 0.5 } else { 1.0 })))
        .clients(5)
        .utilisation(0.6);
    let mut sim = scenario.start(tower_mesh_sim::policies::LeastInFlight::client);
    let report = sim.measure(1_000 * MS, 60 * 1_000 * MS);
    let rate = report.calls() as f64 / report.time().as_secs_f64();
    let in_flight = rate * report.mean_latency().as_secs_f64();
    near(report.in_flight(), in_flight, 0.01);
    // All of them are at servers, but for 100 us each way.
    let at_servers: f64 = report.servers().iter().map(|server| server.in_flight).sum();
    near(at_servers, report.in_flight() - rate * 200e-6, 0.01);
}
