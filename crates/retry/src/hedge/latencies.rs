//! How long answers have taken lately: a histogram in fixed memory.

use std::time::Duration;

use tower_mesh_core::{
    Ratio,
    sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, Padded, thread_number},
};

/// A power of two is cut into eight: a quantile is an eighth too long at most.
const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
/// What is shorter than a microsecond (2^10 ns) counts as that, what is longer than a minute (2^36 ns) as that.
const LEAST_BITS: u32 = 10;
const MOST_BITS: u32 = if cfg!(mesh_loom) { 11 } else { 36 };
const BUCKETS: usize = ((MOST_BITS - LEAST_BITS) as usize) * SUB + 1;

/// A power of two, so that finding one's own takes no division. One in the models, which try every order of every load.
const SHARDS: usize = if cfg!(mesh_loom) { 1 } else { 4 };

/// A quantile is of the last one to two generations.
pub(super) const GENERATION: Duration = Duration::from_secs(10);
/// How often it is found anew: that takes a microsecond or two, of one call.
const REFRESH: u64 = 100_000_000;
/// Fewer say nothing of a 95th percentile: Finagle's backup requests need as many in ten seconds.
pub(super) const LEAST_SAMPLES: u64 = 100;

const UNKNOWN: u64 = u64::MAX;
/// A thread is about to look for the quantile. That lies ahead of any time, so nobody else starts on it.
const TURNING: u64 = u64::MAX;

/// Which latency a share of the recent answers stays below.
///
/// The first who comes when it is time finds it anew; everybody else goes on meanwhile, nobody waits. What is recorded in
/// the very moment in which a generation begins may be lost.
pub(super) struct Latencies {
    share: Ratio,
    shards: [Padded<Shard>; SHARDS],
    /// Into which of the two generations is recorded.
    present: AtomicUsize,
    quantile: AtomicU64,
    /// When the quantile is to be found anew.
    due: AtomicU64,
    /// When the present generation ends: only who finds the quantile reads and writes it.
    ends: AtomicU64,
}

struct Shard([[AtomicU32; BUCKETS]; 2]);

impl Latencies {
    pub(super) fn new(share: Ratio) -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU32::new(0));
        Self {
            share,
            shards: std::array::from_fn(|_| Padded(Shard([zeros(), zeros()]))),
            present: AtomicUsize::new(0),
            quantile: AtomicU64::new(UNKNOWN),
            due: AtomicU64::new(0),
            ends: AtomicU64::new(0),
        }
    }

    /// Notes an answer that took so many nanoseconds.
    #[inline]
    pub(super) fn record(&self, nanos: u64) {
        let Padded(Shard(generations)) = &self.shards[thread_number() % SHARDS];
        let counts = &generations[self.present.load(Ordering::Relaxed) & 1];
        counts[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// The quantile in nanoseconds, as of a moment ago, if enough is known.
    #[inline]
    pub(super) fn quantile(&self, now: u64) -> Option<u64> {
        if now >= self.due.load(Ordering::Relaxed) {
            self.turn(now);
        }
        self.last()
    }

    /// The quantile as it was found last.
    #[inline]
    pub(super) fn last(&self) -> Option<u64> {
        let quantile = self.quantile.load(Ordering::Relaxed);
        (quantile != UNKNOWN).then_some(quantile)
    }

    /// How many answers it is found from.
    pub(super) fn samples(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }

    /// Each bucket, and how many are in it.
    fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        (0..BUCKETS).map(|bucket| {
            let shards = self.shards.iter();
            let generations = shards.flat_map(|Padded(Shard(generations))| generations);
            let counts = generations.map(|counts| counts[bucket].load(Ordering::Relaxed));
            (bucket, counts.map(u64::from).sum())
        })
    }

    #[cold]
    fn turn(&self, now: u64) {
        let due = self.due.load(Ordering::Relaxed);
        let claimed = now >= due
            && self
                .due
                .compare_exchange(due, TURNING, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if claimed {
            self.begin_generation(now);
            let quantile = self.find().unwrap_or(UNKNOWN);
            self.quantile.store(quantile, Ordering::Relaxed);
            self.due.store(
                now.saturating_add(REFRESH).min(TURNING - 1),
                Ordering::Release,
            );
        }
    }

    /// Begins a generation if the present one is over, in the place of the one before.
    fn begin_generation(&self, now: u64) {
        let generation = GENERATION.as_nanos() as u64;
        let ends = self.ends.load(Ordering::Relaxed);
        if now < ends {
            return;
        }
        self.ends
            .store(now.saturating_add(generation), Ordering::Relaxed);
        let present = self.present.load(Ordering::Relaxed) & 1;
        self.clear(1 - present);
        if now >= ends.saturating_add(generation) {
            // Nobody has come for so long that the one that ends is old, too.
            self.clear(present);
        }
        self.present.store(1 - present, Ordering::Relaxed);
    }

    fn clear(&self, generation: usize) {
        for Padded(Shard(generations)) in &self.shards {
            for count in &generations[generation] {
                count.store(0, Ordering::Relaxed);
            }
        }
    }

    fn find(&self) -> Option<u64> {
        let samples = self.samples();
        if samples < LEAST_SAMPLES {
            return None;
        }
        let rank = ((self.share.get() * samples as f64).ceil() as u64).clamp(1, samples);
        let mut below = 0;
        let found = self.counts().find(|(_, count)| {
            below += count;
            below >= rank
        });
        // Not somewhere in the bucket but its end: no more than the rest of the share took longer.
        found.map(|(bucket, _)| end(bucket))
    }
}

fn bucket(nanos: u64) -> usize {
    let exponent = (nanos | 1).ilog2();
    if exponent < LEAST_BITS {
        return 0;
    }
    if exponent >= MOST_BITS {
        return BUCKETS - 1;
    }
    let sub = (nanos >> (exponent - SUB_BITS)) as usize & (SUB - 1);
    (exponent - LEAST_BITS) as usize * SUB + sub
}

/// The first value above those in `bucket`; of the last, the first in it.
fn end(bucket: usize) -> u64 {
    if bucket == BUCKETS - 1 {
        return 1 << MOST_BITS;
    }
    let next = bucket + 1;
    ((SUB + next % SUB) as u64) << (next / SUB + (LEAST_BITS - SUB_BITS) as usize)
}

/// Every order in which threads can meet.
#[cfg(all(test, mesh_loom))]
mod models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    const START: u64 = 1 << 60;

    #[test]
    fn loom_a_generation_begins_once() {
        loom::model(|| {
            let latencies = Arc::new(Latencies::new(Ratio::percent(95)));
            latencies.quantile(START);
            latencies.record(1_500);
            let later = START + GENERATION.as_nanos() as u64;
            let other = Arc::clone(&latencies);
            let turns = thread::spawn(move || other.quantile(later));
            latencies.quantile(later);
            turns.join().unwrap();
            // Begun twice, it would have taken the place of the one that has just ended.
            assert_eq!(latencies.samples(), 1);
        });
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1 << 60;
    const SECOND: u64 = 1_000_000_000;

    fn p95() -> Latencies {
        Latencies::new(Ratio::percent(95))
    }

    #[test]
    fn nothing_is_known_before_a_hundred_answers() {
        let latencies = p95();
        assert_eq!(latencies.quantile(START - REFRESH), None);
        for _ in 0..LEAST_SAMPLES - 1 {
            latencies.record(5_000_000);
        }
        assert_eq!(latencies.quantile(START), None);
        latencies.record(5_000_000);
        assert_eq!(latencies.quantile(START), None, "it is not time yet");
        assert!(latencies.quantile(START + REFRESH).is_some());
    }

    #[test]
    fn what_is_old_is_forgotten_also_when_nobody_comes() {
        let latencies = p95();
        let fill = |nanos| (0..LEAST_SAMPLES).for_each(|_| latencies.record(nanos));
        assert_eq!(latencies.quantile(START), None);
        fill(1_000_000);
        assert!(latencies.quantile(START + 9 * SECOND).is_some());
        fill(1_000_000);
        assert!(latencies.quantile(START + 19 * SECOND).is_some());
        assert_eq!(latencies.samples(), 2 * LEAST_SAMPLES);
        let long_after = latencies.quantile(START + 60 * SECOND);
        assert_eq!((long_after, latencies.samples()), (None, 0));
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm() {
        let latencies = p95();
        latencies.quantile(START);
        (0..200).for_each(|_| latencies.record(u64::MAX));
        for now in [START, 0, u64::MAX - 1, START, u64::MAX, START] {
            let found = latencies.quantile(now);
            assert!(found.is_none_or(|nanos| nanos == 1 << MOST_BITS), "{now}");
        }
    }

    #[test]
    fn threads_that_meet_lose_nothing() {
        let latencies = p95();
        latencies.quantile(START);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let latencies = &latencies;
                scope.spawn(move || {
                    for nth in 0..10_000 {
                        latencies.record(2_000 + thread * nth);
                        latencies.quantile(START + nth * 100_000);
                    }
                });
            }
        });
        assert_eq!(latencies.samples(), 40_000);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Answer(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (1_100..60_000_000_000u64).prop_map(Step::Answer),
            20 => (1_000_000..9_000_000u64).prop_map(Step::Answer),
            1 => (0..15_000u64).prop_map(|ms| Step::Pass(ms * 1_000_000)),
        ]
    }

    /// A list of answers, each with its generation.
    #[derive(Default)]
    struct Model {
        generation: u64,
        ends: u64,
        answers: Vec<(u64, u64)>,
    }

    impl Model {
        fn look(&mut self, now: u64) -> Vec<u64> {
            let length = GENERATION.as_nanos() as u64;
            if now >= self.ends {
                self.generation += if now >= self.ends + length { 2 } else { 1 };
                self.ends = now + length;
            }
            let oldest = self.generation.saturating_sub(1);
            let recent = self.answers.iter().filter(|(at, _)| *at >= oldest);
            let mut recent: Vec<_> = recent.map(|(_, nanos)| *nanos).collect();
            recent.sort_unstable();
            recent
        }
    }

    proptest! {
        #[test]
        fn it_says_what_a_sorted_list_says(
            steps in prop::collection::vec(step(), 100..800),
            percent in 50..=99u8,
        ) {
            let latencies = Latencies::new(Ratio::percent(percent));
            let (mut model, mut now) = (Model::default(), START);
            latencies.quantile(now);
            model.look(now);
            for step in steps {
                match step {
                    Step::Answer(nanos) => {
                        latencies.record(nanos);
                        model.answers.push((model.generation, nanos));
                    }
                    Step::Pass(nanos) => {
                        now += nanos.max(REFRESH);
                        let found = latencies.quantile(now);
                        let recent = model.look(now);
                        if (recent.len() as u64) < LEAST_SAMPLES {
                            prop_assert_eq!(found, None);
                            continue;
                        }
                        let rank = (f64::from(percent) / 100.0 * recent.len() as f64).ceil();
                        let exact = recent[rank as usize - 1];
                        let found = found.unwrap();
                        prop_assert!(found > exact, "{} for {}", found, exact);
                        prop_assert!(found <= exact + exact / 8 + 1, "{} for {}", found, exact);
                    }
                }
            }
        }

        #[test]
        fn a_value_lies_in_its_bucket(nanos in (1u64 << LEAST_BITS)..(1 << MOST_BITS)) {
            let at = bucket(nanos);
            let from = if at == 0 { 1 << LEAST_BITS } else { end(at - 1) };
            prop_assert!(from <= nanos && nanos < end(at), "{} is not in {}..{}", nanos, from, end(at));
        }
    }
}
