//! What `cargo xtask sim` relies on. The storms themselves are run by it: they take an optimised build.

use tower_mesh_bench::storms::{Run, Size, Storm, Verdict};

fn run(seed: u64) -> Run {
    Run {
        storm: Storm::Total,
        size: Size::Small,
        seed,
        mutant: None,
    }
}

#[test]
fn the_same_seed_gives_the_same_figures_to_the_bit_and_another_one_others() {
    let (one, same, other) = (run(7).figures(), run(7).figures(), run(8).figures());
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert!(!run(7).judge(&one).contains(&Verdict::Fails), "{one:#?}");
}

#[test]
fn as_many_seeds_in_a_row_as_there_are_scenarios_are_all_of_them() {
    let mut storms: Vec<_> = (100..109).map(Storm::of).collect();
    storms.sort_unstable();
    assert_eq!(storms, Storm::ALL);
}

#[test]
fn a_run_says_how_it_is_run_again() {
    let printed = run(7).to_string();
    assert_eq!(printed, "cargo xtask sim --scenario S9 --seed 7");
    for storm in Storm::ALL {
        assert_eq!(Storm::named(storm.name()), Some(storm));
    }
}
