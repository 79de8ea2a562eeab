use std::{num::NonZeroU32, time::Duration};

use super::*;
use proptest::prelude::*;
use tower_mesh_core::Ratio;

fn sample(calls: u64, failures: u64) -> Sample {
    Sample {
        calls,
        failures,
        ..Sample::default()
    }
}

fn found(samples: &[Sample], policy: &OutlierPolicy) -> Vec<(usize, EjectionReason)> {
    outliers(samples, &slow(samples, policy), policy)
}

/// The rule of deviations alone.
fn deviations() -> OutlierPolicy {
    OutlierPolicy::default()
        .consecutive_failures(None)
        .failure_percentage(None)
}

#[test]
fn one_at_zero_of_five_is_found_by_deviations() {
    let mut samples = vec![sample(100, 0); 4];
    samples.push(sample(100, 100));
    // The mean is 0.8, the deviation 0.4, so the threshold 0.04.
    let least = least_success(&samples, &deviations()).unwrap();
    assert!((least - 0.04).abs() < 1e-9, "{least}");
    assert_eq!(
        found(&samples, &deviations()),
        [(4, EjectionReason::SuccessRate)]
    );
}

#[test]
fn too_few_endpoints_or_calls_tell_nothing() {
    // At 1.9 deviations nobody of four could be found anyway.
    let policy = deviations().success_rate(1.0);
    let mut samples = vec![sample(100, 0); 3];
    samples.push(sample(100, 100));
    assert_eq!(found(&samples, &policy), [], "four endpoints");
    samples.push(sample(99, 0));
    assert_eq!(found(&samples, &policy), [], "the fifth has too few");
    samples.push(sample(100, 0));
    assert_eq!(found(&samples, &policy).len(), 1);
}

#[test]
fn who_succeeds_nearly_as_often_as_the_others_is_no_outlier() {
    let mut samples = vec![sample(10_000, 10); 9];
    samples.push(sample(10_000, 100));
    assert_eq!(found(&samples, &deviations()), []);
    let without_floor = deviations().success_floor(Ratio::ONE);
    assert_eq!(
        found(&samples, &without_floor),
        [(9, EjectionReason::SuccessRate)],
        "as in Envoy and gRPC"
    );
}

#[test]
fn deviations_are_blind_where_many_are_dead_and_the_share_of_failures_is_not() {
    for (dead, all) in [(3, 10), (1, 3), (1, 2), (1, 4)] {
        let samples: Vec<_> = (0..all)
            .map(|index| sample(100, if index < dead { 100 } else { 0 }))
            .collect();
        assert_eq!(found(&samples, &deviations()), [], "{dead} of {all}");
        let by_share = OutlierPolicy::default().consecutive_failures(None);
        let found = found(&samples, &by_share);
        assert_eq!(found.len(), dead, "{dead} of {all}");
        assert!(found.iter().all(|(index, reason)| {
            *index < dead && *reason == EjectionReason::FailurePercentage
        }));
    }
}

#[test]
fn the_share_of_failures_counts_from_its_threshold_and_its_volume_on() {
    let policy = OutlierPolicy::default().consecutive_failures(None);
    let is_found = |calls, failures| !found(&[sample(calls, failures)], &policy).is_empty();
    assert!(is_found(20, 10));
    assert!(!is_found(20, 9));
    assert!(!is_found(19, 19));
    assert!(!is_found(0, 0));
}

#[test]
fn the_worst_come_first() {
    let samples = [
        sample(100, 60),
        sample(100, 0),
        sample(100, 100),
        Sample {
            run: 5,
            ..sample(100, 80)
        },
        Sample {
            exempt: true,
            ..sample(100, 100)
        },
    ];
    let order: Vec<_> = found(&samples, &OutlierPolicy::default())
        .into_iter()
        .map(|(index, _)| index)
        .collect();
    assert_eq!(order, [2, 3, 0]);
}

#[test]
fn slow_is_who_takes_so_many_times_as_long_as_its_peers_twice_in_a_row() {
    let policy = OutlierPolicy::default().latency(3.0, Duration::from_millis(20));
    let taking = |ms: f32| Sample {
        latency_us: Some(ms * 1e3),
        ..sample(100, 0)
    };
    let mut samples = [taking(10.0), taking(12.0), taking(36.0)];
    assert_eq!(slow(&samples, &policy), [false, false, true]);
    assert_eq!(found(&samples, &policy), [], "once is a pause");
    samples[2].was_slow = true;
    assert_eq!(found(&samples, &policy), [(2, EjectionReason::Latency)]);
    assert_eq!(
        slow(&samples[1..], &policy),
        [false; 2],
        "one peer tells nothing"
    );
    let fast = [taking(1.0), taking(1.0), taking(19.0)];
    assert_eq!(
        slow(&fast, &policy),
        [false; 3],
        "three times nothing is nothing"
    );
    let seldom = [
        taking(10.0),
        taking(10.0),
        Sample {
            calls: 19,
            ..taking(90.0)
        },
    ];
    assert_eq!(slow(&seldom, &policy), [false; 3]);
}

/// The steps of gRPC's A50, as its text has them, with its own 85 % of 50 calls, and Envoy's "at least".
fn a50(samples: &[Sample], hosts: usize, volume: u64) -> Vec<bool> {
    let mut ejected = vec![false; samples.len()];
    let enough: Vec<usize> = (0..samples.len())
        .filter(|i| samples[*i].calls >= volume)
        .collect();
    if enough.len() >= hosts {
        let rate =
            |i: usize| (samples[i].calls - samples[i].failures) as f64 / samples[i].calls as f64;
        let mean = enough.iter().map(|i| rate(*i)).sum::<f64>() / enough.len() as f64;
        let mut variance = 0.0;
        for i in &enough {
            variance += (rate(*i) - mean) * (rate(*i) - mean);
        }
        let stdev = (variance / enough.len() as f64).sqrt();
        for i in enough {
            if rate(i) < mean - stdev * (1900.0 / 1000.0) {
                ejected[i] = true;
            }
        }
    }
    for (i, sample) in samples.iter().enumerate() {
        let failures = 100.0 * sample.failures as f64 / sample.calls.max(1) as f64;
        if sample.calls >= 50 && failures >= 85.0 {
            ejected[i] = true;
        }
    }
    ejected
}

proptest! {
    #[test]
    fn without_floor_and_bounds_it_finds_whom_a50_finds(
        counts in proptest::collection::vec((0u64..300, 0u64..=100), 0..20),
    ) {
        let samples: Vec<_> = counts.iter().map(|(calls, percent)| sample(*calls, calls * percent / 100)).collect();
        let policy = OutlierPolicy::default()
            .consecutive_failures(None)
            .success_floor(Ratio::ONE)
            .failure_percentage((Ratio::percent(85), NonZeroU32::new(50).unwrap()));
        let ours = found(&samples, &policy);
        for (index, theirs) in a50(&samples, 5, 100).into_iter().enumerate() {
            // A rate that is the threshold but for rounding may fall on either side.
            let least = least_success(&samples, &policy).unwrap_or(-1.0);
            if (samples[index].success() - least).abs() > 1e-9 {
                prop_assert_eq!(ours.iter().any(|(found, _)| *found == index), theirs, "{}", index);
            }
        }
    }

    #[test]
    fn the_median_of_the_others_is_that_of_a_list_without_one(
        all in proptest::collection::vec(0u32..50, 3..30), own in 0usize..30,
    ) {
        let own = own % all.len();
        let mut sorted: Vec<f32> = all.iter().map(|x| *x as f32).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let mut others = all.clone();
        let own = others.remove(own) as f32;
        others.sort_unstable();
        let expected = others[(others.len() - 1) / 2] as f32;
        prop_assert_eq!(median_without(&sorted, own), Some(expected));
    }

    #[test]
    fn no_counts_panic(
        counts in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..8),
        stdevs in any::<f64>(), times in any::<f64>(),
    ) {
        let policy = OutlierPolicy::default().success_rate(stdevs).latency(times, Duration::MAX);
        let samples: Vec<_> = counts.iter().map(|(calls, failures, latency)| Sample {
            latency_us: Some(f32::from_bits(*latency)),
            was_slow: true,
            ..sample(*calls, *failures)
        }).collect();
        found(&samples, &policy);
    }
}
