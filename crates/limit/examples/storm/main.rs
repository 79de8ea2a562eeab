//! How fast a fleet is itself again after ten bad seconds, and what a limit costs when nothing is wrong.
//!
//! ```console
//! $ cargo run --release -p tower-mesh-limit --example storm             # all of it
//! $ cargo run --release -p tower-mesh-limit --example storm outage slow # of: outage, clients, slow, calm
//! ```

mod fleet;

use std::{num::NonZeroUsize, time::Duration};

use tower_mesh_limit::{
    Adaptive,
    adaptive::{Aimd, Gradient, Gradient2},
};

use fleet::{Fleet, Outage, Storm, Stretch, TWENTY_BY_TEN};

type Kind = (&'static str, fn() -> Option<Adaptive>);

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

const KINDS: [Kind; 7] = [
    ("fixed 1,024", || None),
    ("Aimd", || Some(Adaptive::new())),
    ("Aimd, min 4", || Some(Adaptive::new().min(count(4)))),
    ("Aimd, 0.9", || {
        let gentle = || Aimd::new().backoff(tower_mesh_core::Ratio::percent(90));
        Some(Adaptive::new().algorithm(gentle))
    }),
    ("Gradient2 from 20", || {
        Some(Adaptive::new().start(count(20)).algorithm(Gradient2::new))
    }),
    ("Gradient2 from 1,024", || {
        Some(Adaptive::new().algorithm(Gradient2::new))
    }),
    ("Gradient", || {
        Some(Adaptive::new().min(count(3)).algorithm(Gradient::new))
    }),
];

fn main() {
    let asked: Vec<_> = std::env::args().skip(1).collect();
    let is_asked = |part: &str| asked.is_empty() || asked.iter().any(|asked| asked == part);
    if is_asked("outage") {
        outages();
    }
    if is_asked("clients") {
        clients();
    }
    if is_asked("slow") {
        slow_for_long();
    }
    if is_asked("calm") {
        calm_weather();
    }
}

fn outages() {
    println!("S1: ten seconds of it, then all is well\n");
    println!(
        "| outage | load | limit | amp | peak amp | amp after | recovery s | goodput after % | limits at its end |"
    );
    println!("|---|---|---|---:|---:|---:|---:|---:|---|");
    for outage in [Outage::Refuse, Outage::Slow, Outage::Hang] {
        for load in [0.7, 0.85] {
            for kind in KINDS {
                storm(TWENTY_BY_TEN, load, outage, kind);
            }
        }
    }
}

fn clients() {
    println!("\nS1 with few and many clients\n");
    for clients in [1, 4, 200] {
        for kind in KINDS {
            let fleet = Fleet {
                clients,
                ..TWENTY_BY_TEN
            };
            print!("{clients} clients ");
            storm(fleet, 0.85, Outage::Hang, kind);
        }
    }
}

fn slow_for_long() {
    println!("\nS2: four times as slow for 60 s\n");
    println!("| load | limit | goodput of what is left % | useless % | refused % | failed % |");
    println!("|---|---|---:|---:|---:|---:|");
    for load in [0.7, 0.85] {
        for kind in KINDS {
            slow(load, kind);
        }
    }
}

fn calm_weather() {
    println!("\nNothing is wrong\n");
    println!("| fleet | load | limit | refused | failed | answered % |");
    println!("|---|---|---|---:|---:|---:|");
    let fleets = [
        ("20 x 10", TWENTY_BY_TEN),
        (
            "uneven",
            Fleet {
                slowest: 0.5,
                ..TWENTY_BY_TEN
            },
        ),
        (
            "one client",
            Fleet {
                clients: 1,
                ..TWENTY_BY_TEN
            },
        ),
        (
            "500 clients",
            Fleet {
                clients: 500,
                ..TWENTY_BY_TEN
            },
        ),
    ];
    for (name, fleet) in fleets {
        for load in [0.7, 0.85, 0.95] {
            for kind in KINDS {
                calm(name, Fleet { load, ..fleet }, kind);
            }
        }
    }
}

fn storm(fleet: Fleet, load: f64, outage: Outage, (name, adaptive): Kind) {
    let mut storm = Storm::new(Fleet { load, ..fleet }, adaptive);
    storm.run(Duration::from_secs(10));
    storm.begin(outage);
    let during = storm.seconds(10);
    storm.end(outage);
    let limits = storm.limits();
    let after = storm.seconds(60);
    let amp = |s: &[Stretch]| {
        let (attempts, calls) = s
            .iter()
            .fold((0, 0), |(a, c), s| (a + s.attempts, c + s.calls));
        attempts as f64 / calls as f64
    };
    let peak = during
        .iter()
        .map(Stretch::amplification)
        .fold(0.0, f64::max);
    let recovered = after
        .windows(3)
        .position(|w| w.iter().all(|s| s.goodput() >= 0.95));
    let recovered = recovered.map_or("never".into(), |s| s.to_string());
    let goodput = after.iter().map(Stretch::goodput).sum::<f64>() / after.len() as f64;
    let max = limits.iter().map(|limit| limit.0).max().unwrap_or_default();
    println!(
        "| {outage:?} | {load} | {name} | {:.2} | {peak:.2} | {:.2} | {recovered} | {:.1} | {max} |",
        amp(&during),
        amp(&after),
        100.0 * goodput,
    );
}

fn slow(load: f64, (name, adaptive): Kind) {
    let mut storm = Storm::new(
        Fleet {
            load,
            ..TWENTY_BY_TEN
        },
        adaptive,
    );
    storm.run(Duration::from_secs(5));
    storm.begin(Outage::Slow);
    let s = storm.run(Duration::from_secs(60));
    let left = storm.fleet.capacity() / 4.0 * 60.0;
    let served = left * s.busy;
    println!(
        "| {load} | {name} | {:.1} | {:.1} | {:.1} | {:.1} |",
        100.0 * s.answered as f64 / left,
        100.0 * (1.0 - s.answered as f64 / served),
        100.0 * s.refused as f64 / s.calls as f64,
        100.0 * s.failed as f64 / s.calls as f64,
    );
}

fn calm(fleet_name: &str, fleet: Fleet, (name, adaptive): Kind) {
    let mut storm = Storm::new(fleet, adaptive);
    let s = storm.run(Duration::from_secs(20));
    println!(
        "| {fleet_name} | {} | {name} | {} | {} | {:.2} |",
        fleet.load,
        s.refused,
        s.failed,
        100.0 * s.goodput()
    );
}
