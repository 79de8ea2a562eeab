//! When a breaker opens, for how long, and how it closes again.

use std::{
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

use tower_mesh_core::Ratio;

use crate::window::{Counted, Rule, Share, Window};

/// When a breaker opens, for how long, and how it closes again.
///
/// Any of its rules opens it. Each starts at a default made for calls between the services of one organisation:
///
/// | setting | default | from |
/// |---|---|---|
/// | [`consecutive_failures`](Self::consecutive_failures) | 7 | linkerd. An endpoint that fails 1 call in 10 fails seven in a row once in ten million calls, five once in a hundred thousand |
/// | [`failure_rate`](Self::failure_rate) | 50 % | resilience4j, and the rate of MeshIntegrator |
/// | [`window`](Self::window) | the last 10 s | linkerd's success rate: ten buckets |
/// | [`min_calls`](Self::min_calls) | 20 | an endpoint that fails 1 call in 10 fails 10 of 20 once in 140,000 times; linkerd's 80 % of 5 would open one that fails 1 in 20 every 44 windows |
/// | [`slow_calls`](Self::slow_calls) | off | what is slow only the user knows; resilience4j's 60 s is as good as off |
/// | [`open_for`](Self::open_for), [`open_at_most`](Self::open_at_most) | 1 s, doubling to 60 s | linkerd |
/// | [`jitter`](Self::jitter) | up to 50 % on top | linkerd |
/// | [`recovery`](Self::recovery) | 10 s a doubling | Envoy takes one step of an ejection's time back in each interval of 10 s |
/// | [`probes`](Self::probes), [`probes_at_once`](Self::probes_at_once) | 1, 1 | linkerd |
/// | [`reopen_at`](Self::reopen_at) | 50 % of the probes | resilience4j; of a single probe, any failure |
/// | [`probe_lease`](Self::probe_lease) | 30 s | longer than callers wait for an answer |
/// | [`ramp_up`](Self::ramp_up) | none | after an outage of all endpoints it would refuse calls that can be served |
///
/// No value is invalid: what makes no sense cannot be said, and what is out of bounds is cut off at them.
///
/// # Example
///
/// A service outside of the organisation, as MeshIntegrator guarded it: half of the calls fail, 30 s of rest.
///
/// ```
/// use std::time::Duration;
/// use tower_mesh_breaker::Policy;
/// use tower_mesh_core::Ratio;
///
/// let external = Policy::default()
///     .consecutive_failures(None)
///     .failure_rate(Ratio::percent(50))
///     .open_for(Duration::from_secs(30))
///     .open_at_most(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    consecutive: Option<NonZeroU32>,
    failure_rate: Option<Ratio>,
    slow: Option<(Duration, Ratio)>,
    window: Window,
    min_calls: NonZeroU32,
    open_for: Duration,
    open_at_most: Duration,
    jitter: Ratio,
    recovery: Duration,
    probes: NonZeroU8,
    at_once: NonZeroU8,
    reopen_at: Ratio,
    lease: Duration,
    ramp: Duration,
}

/// The least open time and the least lease: with none at all, places would be given away as fast as they are asked for.
const SHORTEST: Duration = Duration::from_millis(1);

/// After the ramp's first tenth its share grows with time; Envoy's slow start begins with the same tenth.
const RAMP_START: f64 = 0.1;

impl Policy {
    /// Opens after this many failures in a row; `None` never. An overload (a 429, say) neither adds to the row nor
    /// ends it, as in linkerd: an endpoint that says "not so much" is alive.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: impl Into<Option<NonZeroU32>>) -> Self {
        self.consecutive = failures.into();
        self
    }

    /// Opens when this share of the calls in the window has failed; `None` never.
    ///
    /// A rate is looked at when a call counts against it, so a success never opens the breaker.
    #[must_use]
    pub fn failure_rate(mut self, rate: impl Into<Option<Ratio>>) -> Self {
        self.failure_rate = rate.into();
        self
    }

    /// Opens when this share of the calls in the window took `threshold` or longer, whatever became of them. A probe
    /// that takes as long has failed.
    #[must_use]
    pub fn slow_calls(mut self, threshold: Duration, rate: Ratio) -> Self {
        self.slow = Some((threshold, rate));
        self
    }

    /// The calls over which rates are taken.
    #[must_use]
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// With fewer calls in the window no rate opens the breaker; cut off at the size of a window of calls, and at
    /// 32,767.
    #[must_use]
    pub fn min_calls(mut self, calls: NonZeroU32) -> Self {
        self.min_calls = calls;
        self
    }

    /// How long it stays open the first time; twice as long each time that the probes fail or it opens again before
    /// it has [recovered](Self::recovery). At least 1 ms.
    #[must_use]
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time.max(SHORTEST);
        self
    }

    /// Where the doubling ends; if it is less than [`open_for`](Self::open_for), there is none.
    #[must_use]
    pub fn open_at_most(mut self, time: Duration) -> Self {
        self.open_at_most = time;
        self
    }

    /// A random share of up to this much is added to each open time, the longest too: callers whose breakers have
    /// opened together should not come back together.
    #[must_use]
    pub fn jitter(mut self, share: Ratio) -> Self {
        self.jitter = share;
        self
    }

    /// Each such time spent closed takes one doubling of the open time back; zero keeps no memory at all.
    #[must_use]
    pub fn recovery(mut self, time: Duration) -> Self {
        self.recovery = time;
        self
    }

    /// How many probes have to come back before it closes.
    #[must_use]
    pub fn probes(mut self, probes: NonZeroU8) -> Self {
        self.probes = probes;
        self
    }

    /// How many probes may be under way at the same time; no more than are needed.
    #[must_use]
    pub fn probes_at_once(mut self, probes: NonZeroU8) -> Self {
        self.at_once = probes;
        self
    }

    /// It opens again as soon as this share of all the probes it needs has failed, and at least one.
    #[must_use]
    pub fn reopen_at(mut self, share: Ratio) -> Self {
        self.reopen_at = share;
        self
    }

    /// When all places are taken and the newest probe is out for longer than this, the places are given to new probes.
    /// What the old ones report then no longer counts. At least 1 ms.
    #[must_use]
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(SHORTEST);
        self
    }

    /// After the probes it admits a share of the calls that grows over this time, from a tenth to all; zero admits all
    /// at once.
    #[must_use]
    pub fn ramp_up(mut self, time: Duration) -> Self {
        self.ramp = time;
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        const ONE: NonZeroU8 = NonZeroU8::MIN;
        Self {
            consecutive: NonZeroU32::new(7),
            failure_rate: Some(Ratio::percent(50)),
            slow: None,
            window: Window::over(Duration::from_secs(10)),
            min_calls: NonZeroU32::MIN.saturating_add(19),
            open_for: Duration::from_secs(1),
            open_at_most: Duration::from_secs(60),
            jitter: Ratio::percent(50),
            recovery: Duration::from_secs(10),
            probes: ONE,
            at_once: ONE,
            reopen_at: Ratio::percent(50),
            lease: Duration::from_secs(30),
            ramp: Duration::ZERO,
        }
    }
}

/// What the machine asks of a policy.
impl Policy {
    /// Whether this many failures in a row are too many.
    pub(crate) fn too_many_in_a_row(&self, failures: u32) -> bool {
        self.consecutive.is_some_and(|most| failures >= most.get())
    }

    /// What the share of failures is taken over, if it is asked for.
    pub(crate) fn failures(&self) -> Option<Counted> {
        self.failure_rate.map(|_| Counted::new(self.window))
    }

    /// What the share of slow calls is taken over, if it is asked for.
    pub(crate) fn slow(&self) -> Option<Counted> {
        self.slow.map(|_| Counted::new(self.window))
    }

    /// The share of failures that is too many.
    pub(crate) fn failure_rule(&self) -> Option<Rule> {
        self.failure_rate.map(|rate| self.rule(rate))
    }

    /// The share of slow calls that is too many.
    pub(crate) fn slow_rule(&self) -> Option<Rule> {
        self.slow.map(|(_, rate)| self.rule(rate))
    }

    /// Whether breakers that follow `self` can follow `other` without counting anew.
    pub(crate) fn counts_as(&self, other: &Self) -> bool {
        let counted = |policy: &Self| {
            let slow = policy.slow.map(|(threshold, _)| threshold);
            (policy.window, policy.failure_rate.is_some(), slow)
        };
        counted(self) == counted(other)
    }

    /// From how many nanoseconds on a call is slow.
    pub(crate) fn slow_from(&self) -> u64 {
        self.slow
            .map_or(u64::MAX, |(threshold, _)| nanos(threshold))
    }

    fn rule(&self, rate: Ratio) -> Rule {
        Rule {
            min_calls: self.min_calls.get(),
            share: Share::new(rate),
        }
    }

    /// How long it stays open for the `openings`th time in a row; `chance` in `[0, 1)` is the share of the jitter.
    pub(crate) fn open_time(&self, openings: u8, chance: f64) -> Duration {
        let doublings = u32::from(openings).saturating_sub(1).min(31);
        let time = self
            .open_for
            .saturating_mul(1 << doublings)
            .min(self.open_at_most.max(self.open_for));
        // Whole nanoseconds: `mul_f64` panics where this saturates.
        let nanos = nanos(time);
        let jitter = (nanos as f64 * self.jitter.get() * chance) as u64;
        Duration::from_nanos(nanos.saturating_add(jitter))
    }

    /// What is left of `time`, that of the `openings`th opening, without the doublings: its jitter is the same.
    pub(crate) fn undoubled(&self, openings: u8, time: Duration) -> Duration {
        let doubled = nanos(self.open_time(openings, 0.0)) as f64;
        let share = nanos(self.open_time(1, 0.0)) as f64 / doubled;
        Duration::from_nanos((nanos(time) as f64 * share) as u64)
    }

    /// How many of `openings` in a row are still remembered after `closed` without trouble.
    pub(crate) fn remembered(&self, openings: u8, closed: Duration) -> u8 {
        let steps = closed
            .as_nanos()
            .checked_div(self.recovery.as_nanos())
            .unwrap_or(u128::MAX);
        openings.saturating_sub(u8::try_from(steps).unwrap_or(u8::MAX))
    }

    pub(crate) fn probes_needed(&self) -> u8 {
        self.probes.get()
    }

    pub(crate) fn most_probes(&self) -> u8 {
        self.at_once.get()
    }

    /// Whether so many failed probes open it again.
    pub(crate) fn reopens(&self, failed: u8) -> bool {
        let share = Share::new(self.reopen_at);
        failed > 0 && share.is_reached(failed.into(), self.probes.get().into())
    }

    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    pub(crate) fn ramps(&self) -> bool {
        !self.ramp.is_zero()
    }

    /// The share of calls admitted this long after the ramp has begun, or `None` when it is over.
    pub(crate) fn ramp_share(&self, since: Duration) -> Option<f64> {
        (since < self.ramp).then(|| (since.as_secs_f64() / self.ramp.as_secs_f64()).max(RAMP_START))
    }
}

/// A duration in nanoseconds; what is longer than 584 years is cut off.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn open_times_double_up_to_the_longest_and_jitter_comes_on_top() {
        let policy = Policy::default();
        let times: Vec<_> = (1..=8).map(|n| policy.open_time(n, 0.0)).collect();
        assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60].map(|s| s * S));
        assert_eq!(policy.open_time(1, 0.5), Duration::from_millis(1_250));
        assert_eq!(policy.open_time(31, 0.999_999).as_secs(), 89);
    }

    #[test]
    fn without_its_doublings_each_open_time_is_the_first_with_its_own_jitter() {
        let policy = Policy::default();
        for openings in 1..=31 {
            for (chance, first) in [(0.0, 1_000), (0.5, 1_250), (0.8, 1_400)] {
                let time = policy.open_time(openings, chance);
                let undoubled = policy.undoubled(openings, time).as_secs_f64() * 1e3;
                assert_eq!(undoubled.round() as u64, first, "{openings}");
            }
        }
        let absurd = policy.open_for(Duration::MAX);
        assert!(absurd.undoubled(9, Duration::MAX) > Duration::from_secs(1 << 33));
    }

    #[test]
    fn absurd_times_saturate() {
        let policy = Policy::default()
            .open_for(Duration::MAX)
            .jitter(Ratio::ONE)
            .recovery(Duration::MAX);
        assert_eq!(
            policy.open_time(u8::MAX, 0.9),
            Duration::from_nanos(u64::MAX)
        );
        assert_eq!(policy.remembered(3, Duration::MAX), 2);
        let policy = Policy::default()
            .open_for(Duration::ZERO)
            .open_at_most(Duration::ZERO)
            .probe_lease(Duration::ZERO);
        assert_eq!(policy.open_time(9, 0.0), SHORTEST);
        assert_eq!(policy.lease(), SHORTEST);
    }

    #[test]
    fn a_recovery_is_forgotten_step_by_step() {
        let policy = Policy::default();
        let remembered = |seconds| policy.remembered(3, seconds * S);
        assert_eq!(
            [0, 9, 10, 29, 30, 3_000].map(remembered),
            [3, 3, 2, 1, 0, 0]
        );
        assert_eq!(policy.recovery(Duration::ZERO).remembered(3, S), 0);
    }

    #[test]
    fn a_single_probe_that_fails_reopens_and_of_ten_the_fifth() {
        let one = Policy::default();
        assert!(!one.reopens(0) && one.reopens(1));
        let ten = Policy::default().probes(NonZeroU8::MIN.saturating_add(9));
        assert!(!ten.reopens(4) && ten.reopens(5));
        assert!(!ten.clone().reopen_at(Ratio::ZERO).reopens(0));
        assert!(!ten.reopen_at(Ratio::ONE).reopens(9));
    }

    #[test]
    fn the_ramp_starts_with_a_tenth_and_ends() {
        let policy = Policy::default().ramp_up(60 * S);
        assert_eq!(policy.ramp_share(Duration::ZERO), Some(0.1));
        assert_eq!(policy.ramp_share(30 * S), Some(0.5));
        assert_eq!(policy.ramp_share(60 * S), None);
        assert_eq!(Policy::default().ramp_share(Duration::ZERO), None);
    }
}
