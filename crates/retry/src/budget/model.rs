//! The budget beside a plain model of itself: a list of calls, and whole numbers that do not wrap.

use std::time::Duration;

use proptest::prelude::*;
use tower_mesh_core::{Instant, Ratio};

use super::{Budget, Source, Withdrawal};

const ONE: i128 = 1_000_000;
const SLICES: u64 = 10;

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Retry,
    Hedge,
    /// Gives back one of the withdrawals that are out.
    GiveBack(usize),
    /// Spends one of them.
    Spend(usize),
    Pass(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Call),
        4 => Just(Step::Retry),
        2 => Just(Step::Hedge),
        1 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Spend),
        3 => (0..400u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        1 => (0..40_000u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    percent: u8,
    min: u32,
    window: Duration,
    burst: Duration,
}

fn settings() -> impl Strategy<Value = Settings> {
    let spans = prop_oneof![
        Just((10_000, 1_000)),
        Just((10_000, 10_000)),
        Just((1_000, 100)),
        Just((1_000, 10))
    ];
    (0..=100u8, 0..20u32, spans).prop_map(|(percent, min, (window, burst))| Settings {
        percent,
        min,
        window: Duration::from_millis(window),
        burst: Duration::from_millis(burst),
    })
}

struct Model {
    settings: Settings,
    first: Option<u64>,
    calls: Vec<u64>,
    spent: i128,
    used_until: i128,
}

impl Model {
    fn share(&self) -> i128 {
        i128::from(self.settings.percent) * ONE / 100
    }

    fn interval(&self) -> i128 {
        i128::from(1_000_000_000 / self.settings.min.max(1))
    }

    /// Calls in the slice of `now` and the nine before.
    fn recent(&self, now: u64, length: Duration) -> i128 {
        let slice = length.as_nanos() as u64 / SLICES;
        let first = self.first.unwrap_or(now);
        let number = (now - first) / slice;
        let from = first + number.saturating_sub(SLICES - 1) * slice;
        self.calls.iter().filter(|at| **at >= from).count() as i128
    }

    fn cap(&self, now: u64) -> i128 {
        let burst = self.share() * self.recent(now, self.settings.burst);
        let window = self.share() * self.recent(now, self.settings.window);
        burst.max(ONE + (self.share() - 1).max(0)).min(window)
    }

    /// Lets expire what is too old.
    fn expire(&mut self, now: u64) {
        self.first.get_or_insert(now);
        let earned = self.share() * self.calls.len() as i128;
        self.spent = self.spent.max(earned - self.cap(now));
        let span = i128::from(self.settings.burst.as_nanos() as u64).max(self.interval());
        self.used_until = self.used_until.max(i128::from(now) - span);
    }

    fn earned(&self) -> i128 {
        self.share() * self.calls.len() as i128 - self.spent
    }

    fn withdraw(&mut self, now: u64) -> Option<bool> {
        self.expire(now);
        if self.earned() >= ONE {
            self.spent += ONE;
            Some(true)
        } else if self.settings.min > 0 && self.used_until + self.interval() <= i128::from(now) {
            self.used_until += self.interval();
            Some(false)
        } else {
            None
        }
    }

    fn withdraw_earned(&mut self, now: u64) -> bool {
        self.expire(now);
        let there = self.earned() >= ONE;
        self.spent += if there { ONE } else { 0 };
        there
    }

    fn give_back(&mut self, earned: bool) {
        if earned {
            self.spent -= ONE;
        } else {
            self.used_until -= self.interval();
        }
    }

    fn balance(&mut self, now: u64) -> f64 {
        self.expire(now);
        let reserve = if self.settings.min == 0 {
            0.0
        } else {
            (i128::from(now) - self.used_until) as f64 / self.interval() as f64
        };
        self.earned() as f64 / ONE as f64 + reserve
    }
}

fn is_earned(withdrawal: &Withdrawal) -> bool {
    matches!(withdrawal.source, Source::Earned)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let budget = Budget::new(Ratio::percent(settings.percent))
            .min_per_second(settings.min)
            .window(settings.window)
            .burst(settings.burst);
        let mut model = Model { settings, first: None, calls: vec![], spent: 0, used_until: 0 };
        let start = 1u64 << 60;
        let (mut now, mut out, mut spent) = (start, Vec::new(), 0u32);
        for step in steps {
            let at = Instant::from_nanos(now);
            match step {
                Step::Call => {
                    budget.deposit(at);
                    model.expire(now);
                    model.calls.push(now);
                }
                Step::Retry => {
                    let withdrawal = budget.withdraw(at);
                    prop_assert_eq!(withdrawal.as_ref().map(is_earned), model.withdraw(now));
                    out.extend(withdrawal);
                }
                Step::Hedge => {
                    let withdrawal = budget.withdraw_earned(at);
                    prop_assert_eq!(withdrawal.is_some(), model.withdraw_earned(now));
                    out.extend(withdrawal);
                }
                Step::GiveBack(which) if !out.is_empty() => {
                    let withdrawal = out.swap_remove(which % out.len());
                    model.give_back(is_earned(&withdrawal));
                }
                Step::Spend(which) if !out.is_empty() => {
                    out.swap_remove(which % out.len()).spend();
                    spent += 1;
                }
                Step::Pass(time) => now += time.as_nanos() as u64,
                _ => {}
            }
            let snapshot = budget.snapshot(Instant::from_nanos(now));
            let expected = model.balance(now);
            prop_assert!((snapshot.balance - expected).abs() < 1e-6, "{snapshot:?} {expected}");
            // I3: never below nothing, never above the cap.
            let cap = model.cap(now) as f64 / ONE as f64
                + (settings.burst.as_secs_f64() * f64::from(settings.min)).max(1.0);
            prop_assert!((0.0..=cap + 1e-5).contains(&snapshot.balance), "{snapshot:?} {cap}");
            // And never more in all than was earned.
            let time = Duration::from_nanos(now - start).as_secs_f64();
            let earned = model.calls.len() as f64 * f64::from(settings.percent) / 100.0
                + (time + settings.burst.as_secs_f64()) * f64::from(settings.min)
                + 1.0;
            prop_assert!(f64::from(spent) <= earned + 1e-5);
        }
    }
}
