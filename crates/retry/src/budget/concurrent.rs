//! Every order in which threads can meet: `RUSTFLAGS="--cfg mesh_loom" cargo test --release --lib loom`.

use std::{sync::Arc, time::Duration};

use loom::thread;
use tower_mesh_core::Ratio;

use super::{earned::Earned, recent::Recent, reserve::Reserve};

const START: u64 = 1 << 60;
const SECOND: Duration = Duration::from_secs(1);
/// Longer than a slice, so that somebody has to begin a new one.
const SLICE_LATER: u64 = START + 200_000_000;

fn earned(percent: u8) -> Arc<Earned> {
    let earned = Earned::new(Ratio::percent(percent), 10 * SECOND, SECOND);
    earned.deposit(START);
    Arc::new(earned)
}

fn drain(mut withdraw: impl FnMut() -> bool) -> u32 {
    let mut taken = 0;
    while withdraw() {
        taken += 1;
    }
    taken
}

#[test]
fn loom_one_retry_is_given_to_one_of_two() {
    loom::model(|| {
        let earned = earned(100);
        let other = Arc::clone(&earned);
        let theirs = thread::spawn(move || other.withdraw(START));
        let ours = earned.withdraw(START);
        assert!(ours ^ theirs.join().unwrap());
        assert_eq!(earned.balance(START), 0.0);
    });
}

#[test]
fn loom_beginning_a_slice_gives_nothing_twice() {
    loom::model(|| {
        let earned = earned(100);
        let other = Arc::clone(&earned);
        // One begins a slice, with whatever count of calls it sees, while the other calls and spends.
        let turns = thread::spawn(move || other.withdraw(SLICE_LATER));
        earned.deposit(START);
        let ours = u32::from(earned.withdraw(START)) + u32::from(earned.withdraw(START));
        let taken =
            ours + u32::from(turns.join().unwrap()) + drain(|| earned.withdraw(SLICE_LATER));
        assert_eq!(taken, 2, "two calls at 100 %");
    });
}

#[test]
fn loom_what_goes_back_is_there_once() {
    loom::model(|| {
        let earned = earned(100);
        assert!(earned.withdraw(START));
        let other = Arc::clone(&earned);
        let back = thread::spawn(move || other.give_back());
        let early = u32::from(earned.withdraw(SLICE_LATER));
        back.join().unwrap();
        assert_eq!(early + drain(|| earned.withdraw(SLICE_LATER)), 1);
    });
}

#[test]
fn loom_a_slice_begins_once() {
    loom::model(|| {
        let slice = |n: u64| START + n * 100_000_000;
        let recent = Arc::new(Recent::new(SECOND));
        recent.turn(START, || 0);
        let other = Arc::clone(&recent);
        let turns = thread::spawn(move || other.turn(slice(1), || 7));
        recent.turn(slice(1), || 7);
        turns.join().unwrap();
        assert!(!recent.is_over(slice(1)));
        // The last ten slices begin with the one before it, and then with it: it is there once.
        recent.turn(slice(9), || 9);
        assert_eq!(recent.base(), 0);
        recent.turn(slice(10), || 10);
        assert_eq!(recent.base(), 7);
    });
}

#[test]
fn loom_the_reserve_gives_what_it_has() {
    loom::model(|| {
        let reserve = Arc::new(Reserve::new(2, SECOND));
        let other = Arc::clone(&reserve);
        let theirs = thread::spawn(move || {
            let taken = u32::from(other.withdraw(START)) + u32::from(other.withdraw(START));
            if taken > 0 {
                other.give_back();
            }
            taken.saturating_sub(1)
        });
        let ours = u32::from(reserve.withdraw(START));
        let theirs = theirs.join().unwrap();
        assert_eq!(ours + theirs + drain(|| reserve.withdraw(START)), 2);
    });
}
