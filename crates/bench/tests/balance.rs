//! The bars of balancing find what they are there to find. The bars themselves are held by `cargo xtask bench --balance`,
//! on the whole fleets; here it is a short run of one of them.

use tower_mesh_bench::balance::{
    Cell, Contender, Fleet,
    holds::{self, Figure},
    models::Terms,
    run_all,
};

const SEED: u64 = 7;

/// What the bar for a server that fails fast says of a contender, and its share; at a low load, which takes less time.
fn fail_fast(contender: Contender) -> (bool, f64) {
    let by_strategy = Figure::FailingShare(Contender::MeshWithoutJudges);
    let mut holds = holds::ALL.iter();
    let hold = holds.find(|hold| hold.of == by_strategy);
    let cell = Cell {
        contender,
        fleet: Fleet::FailFast,
        utilisation: 0.3,
        seed: SEED,
    };
    let measured = run_all(&[cell], 1, |_, _| {}).remove(0);
    let share = measured.failing_share.expect("a server failed");
    (hold.expect("it is held").bar.holds(share), share)
}

#[test]
fn the_shipped_strategy_gives_a_server_that_fails_fast_less_than_half_of_its_share() {
    let (holds, share) = fail_fast(Contender::MeshWithoutJudges);
    assert!(holds, "{share}");
}

// The same formula, once whole and once without the success term: what is not held is found, and for that reason only.
#[test]
fn a_strategy_without_the_success_term_fails_the_bar() {
    let (whole, share) = fail_fast(Contender::Model(Terms::All));
    assert!(whole, "{share}");
    let (mutant, share) = fail_fast(Contender::Model(Terms::WithoutSuccess));
    assert!(!mutant, "{share}");
    assert!(share > 1.0, "it even attracts calls: {share}");
}

#[test]
fn the_same_seed_gives_the_same_figures_to_the_bit() {
    for contender in [Contender::Mesh, Contender::TowerPeakEwma] {
        let cell = Cell {
            contender,
            fleet: Fleet::Small,
            utilisation: 0.85,
            seed: SEED,
        };
        let measured = run_all(&[cell, cell], 2, |_, _| {});
        assert_eq!(measured[0], measured[1], "{contender:?}");
        let other = Cell { seed: 8, ..cell };
        assert_ne!(measured[0], run_all(&[other], 1, |_, _| {})[0]);
    }
}
