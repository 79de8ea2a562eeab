//! Who is new or back, among others and alone.

use super::*;

const WINDOW: Duration = Duration::from_secs(60);

/// A fleet of ten times as many, of which the first `slow` begin now.
fn fleet(size: usize, slow: usize) -> Fleet {
    let mut fleet = Fleet::new(&vec![1; size]);
    fleet.chance.slow_start = SlowStart::new(WINDOW);
    let begins = |endpoint: &Endpoint| endpoint.vitals().gate().begin_slowly(fleet.clock.now());
    fleet.endpoints[..slow].iter().for_each(begins);
    fleet
}

/// The share of the first endpoint, idle ones and ones whose queues grow.
fn shares(fleet: &Fleet, strategy: Strategy) -> [f64; 2] {
    const CALLS: usize = 40_000;
    let share = |shares: Vec<usize>| shares[0] as f64 / CALLS as f64;
    let held = share(fleet.held(strategy, CALLS));
    let idle = (0..CALLS).filter(|_| fleet.pick(strategy) == Some(0));
    [idle.count() as f64 / CALLS as f64, held]
}

// scenario 16
#[test]
fn among_ten_one_that_is_new_has_a_hundredth_then_a_twentieth_then_a_tenth() {
    for strategy in ALL {
        let fleet = fleet(10, 1);
        for (seconds, fair) in [(6, 0.1 / 9.1), (24, 0.5 / 9.5), (30, 0.1)] {
            fleet.hand.advance(Duration::from_secs(seconds));
            for share in shares(&fleet, strategy) {
                let near = (share / fair - 1.0).abs() < 0.15;
                assert!(near, "{strategy:?}: {share} of {fair}");
            }
        }
        assert!(fleet.endpoints[0].vitals().gate().is_settled());
    }
}

#[test]
fn however_many_begin_at_once_those_that_do_not_get_less_than_twice_their_share() {
    for strategy in ALL {
        for slow in [10, 30, 50, 70, 90, 99] {
            let fleet = fleet(100, slow);
            let picks = (0..40_000).map(|_| fleet.pick(strategy).expect("somebody"));
            let settled = picks.filter(|index| *index >= slow).count() as f64 / 40_000.0;
            let fair = 1.0 - slow as f64 / 100.0;
            assert!(
                settled / fair < 2.0,
                "{strategy:?}, {slow}: {settled} of {fair}"
            );
        }
    }
}

#[test]
fn who_is_alone_or_only_among_its_like_is_not_held_back() {
    for strategy in ALL {
        for size in [1, 2, 3, 40] {
            let fleet = fleet(size, size);
            let picks = (0..1_000 * size).map(|_| fleet.pick(strategy).expect("somebody"));
            let first = picks.filter(|index| *index == 0).count();
            assert!(
                (800..1_200).contains(&first),
                "{strategy:?}, {size}: {first}"
            );
        }
    }
}

#[test]
fn beside_endpoints_that_are_shut_or_to_be_avoided_it_takes_all() {
    for strategy in ALL {
        let fleet = fleet(40, 1);
        let mut avoid = Avoid::default();
        avoid.add(fleet.endpoints[1].vitals().key());
        (2..40).for_each(|index| fleet.judge(index, SHUT));
        for _ in 0..100 {
            assert_eq!(fleet.pick_with(strategy, true, &avoid), Some(0));
        }
    }
}

#[test]
fn who_was_out_begins_again_when_a_judge_lets_it_in() {
    for kind in [JudgeKind::Health, JudgeKind::Outlier, JudgeKind::Breaker] {
        let fleet = fleet(10, 0);
        let mut hand = None;
        fleet.endpoints[0].vitals().attach(kind, |handle| {
            handle.set(true);
            hand = Some(handle);
            Arc::new(Says(SHUT))
        });
        assert_eq!(fleet.shares(Strategy::Weighted, 1_000)[0], 0);
        hand.expect("it was attached").set(false);
        let share = |calls| fleet.shares(Strategy::Weighted, calls)[0] as f64 / calls as f64;
        assert!((0.005..0.018).contains(&share(10_000)), "{kind:?}");
        fleet.hand.advance(WINDOW);
        assert!((0.09..0.11).contains(&share(10_000)), "{kind:?}");
    }
}

#[test]
fn switched_off_nobody_is_held_back() {
    let mut fleet = fleet(10, 1);
    fleet.chance.slow_start = SlowStart::OFF;
    let [idle, held] = shares(&fleet, Strategy::BestOfThree);
    assert!((0.09..0.11).contains(&idle) && (0.09..0.11).contains(&held));
}

#[test]
fn it_is_called_when_the_others_hang() {
    let fleet = fleet(10, 1);
    let _held: Vec<_> = (1..10)
        .flat_map(|index| (0..8).map(move |_| index))
        .map(|index| fleet.begin(index, Strategy::LeastInFlight))
        .collect();
    let picks = (0..1_000).filter(|_| fleet.pick(Strategy::LeastInFlight) == Some(0));
    assert!(picks.count() > 150, "whenever it is drawn");
}
