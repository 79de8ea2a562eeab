//! Grow by one, shrink by half.

use tower_mesh_core::Ratio;

use super::algorithm::{Algorithm, Hears, Move, Round, Usage, Why};

/// Additive increase, multiplicative decrease, on overload alone: what the mesh uses.
///
/// | what happens | what it does |
/// |---|---|
/// | an attempt runs out of time, or the service says that it has too much to do | it is suspicious: one point |
/// | a call goes well | one point less |
/// | five points: more than half of the latest attempts met with overload | the limit is lowered, once a round trip |
/// | … and some went well meanwhile | to half of what was in use |
/// | … and none did | to its minimum, since all that is sent is work for nothing |
/// | the limit would grow, but calls [take too long already](Algorithm::held) | it stays, and this was too much |
/// | a call goes well while at least half of the limit is in use | it grows: by a quarter in a round trip up to half of where it last was too much, by a 50th up to 60 %, by a 400th up to 150 %, and by a 50th beyond |
///
/// So a few slow calls change nothing, as long as half are well (the same line as Google's client throttle draws); a
/// service that stalls gets next to no work a round trip later; and one that is back has all of it after a few
/// round trips. The slow stretch is what a service pays least for that stays slow: each time the limit goes too far,
/// half a second of its work is done for callers who have gone. That growth ends where calls take a third of the time they
/// have is why it seldom does.
#[derive(Clone, Debug)]
pub struct Aimd {
    backoff: f64,
    /// How much was in use when it last was too much; without end if that is not known.
    failed: f64,
    /// Part of the next whole step.
    credit: f64,
    suspicion: u32,
    /// Ends that are still to come of calls of which an attempt met with overload.
    owed: usize,
    /// Calls that went well since the limit was lowered; since suspicion arose.
    well: usize,
    well_since: usize,
}

/// TCP's half.
const BACKOFF: Ratio = Ratio::percent(50);
/// Where to believe it: with one of ten attempts timing out, once in some 60,000 calls for nothing.
const CONVINCED: u32 = 5;
/// Where calls take too long already, as what was too much: it is wary for another eighth, and then steady, since what is
/// back after an outage is slow only at first.
const HELD: f64 = 0.75;
/// By how much it grows for each call that goes well: in a round trip, by that share of itself.
fn pace(limit: usize, failed: f64) -> f64 {
    const FAST: f64 = 1.0 / 4.0;
    const STEADY: f64 = 1.0 / 50.0;
    const WARY: f64 = 1.0 / 400.0;
    // So few that which share of what it is says nothing.
    const FEW: usize = 4;
    match limit as f64 / failed {
        _ if limit < FEW => FAST,
        ..0.5 => FAST,
        ..0.6 => STEADY,
        ..1.5 => WARY,
        // What was too much is not any more.
        _ => STEADY,
    }
}

impl Aimd {
    /// With a backoff of half.
    pub fn new() -> Self {
        Self {
            backoff: BACKOFF.get(),
            failed: f64::INFINITY,
            credit: 0.0,
            suspicion: 0,
            owed: 0,
            well: 0,
            well_since: 0,
        }
    }

    /// Lowers it to this share of what was in use.
    #[must_use]
    pub fn backoff(mut self, backoff: Ratio) -> Self {
        self.backoff = backoff.get();
        self
    }

    fn lower(&mut self, usage: Usage) -> Move {
        let used = usage.in_use.min(usage.limit) as f64;
        // How much was in use says how much is too much only if that much was let in because calls went well.
        if !usage.is_pressed() {
            self.failed = f64::INFINITY;
        } else if self.well > 0 {
            self.failed = used;
        }
        let outage = self.well_since == 0;
        (self.suspicion, self.well, self.credit) = (0, 0, 0.0);
        if outage {
            Move::to(usage.min, Why::Outage)
        } else {
            Move::to((used * self.backoff) as usize, Why::Overload)
        }
    }

    fn grow(&mut self, usage: Usage) -> Option<Move> {
        if !usage.is_pressed() || usage.limit >= usage.max {
            return None;
        }
        self.credit += pace(usage.limit, self.failed);
        if self.credit < 1.0 {
            return None;
        }
        self.credit = 0.0;
        Some(Move::to(usage.limit + 1, Why::Growth))
    }
}

impl Default for Aimd {
    fn default() -> Self {
        Self::new()
    }
}

impl Algorithm for Aimd {
    fn hears(&self) -> Hears {
        Hears::Overloads
    }

    fn overloaded(&mut self, usage: Usage, round: Round) -> Option<Move> {
        self.owed = (self.owed + 1).min(usage.in_use);
        if round == Round::Earlier {
            return None;
        }
        if self.suspicion == 0 {
            self.well_since = 0;
        }
        self.suspicion += 1;
        (self.suspicion >= CONVINCED).then(|| self.lower(usage))
    }

    fn returned(&mut self, usage: Usage) -> Option<Move> {
        // A call does not say how it went; one of them is the one whose attempt did not.
        if self.owed > 0 {
            self.owed -= 1;
            return None;
        }
        self.well = self.well.saturating_add(1);
        self.well_since = self.well_since.saturating_add(1);
        if self.suspicion > 0 {
            self.suspicion -= 1;
            return None;
        }
        self.grow(usage)
    }

    fn held(&mut self, usage: Usage) {
        self.failed = HELD * usage.limit as f64;
    }

    fn is_calm(&self) -> bool {
        self.suspicion == 0 && self.owed == 0
    }

    fn moved(&mut self, usage: Usage) {
        *self = Self {
            backoff: self.backoff,
            ..Self::new()
        };
        if usage.limit < usage.max {
            self.failed = 2.0 * usage.limit as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    /// An algorithm and the limit that it moves, as a control would.
    struct Limit {
        aimd: Aimd,
        usage: Usage,
    }

    impl Limit {
        fn new(max: usize) -> Self {
            let aimd = Aimd::new();
            let usage = Usage {
                limit: max,
                in_use: 0,
                min: 1,
                max,
            };
            Self { aimd, usage }
        }

        fn overloaded(&mut self, in_use: usize, round: Round) -> Option<Why> {
            self.usage.in_use = in_use;
            let moved = self.aimd.overloaded(self.usage, round);
            self.apply(moved)
        }

        fn returned(&mut self, in_use: usize) -> Option<Why> {
            self.usage.in_use = in_use;
            let moved = self.aimd.returned(self.usage);
            self.apply(moved)
        }

        fn apply(&mut self, moved: Option<Move>) -> Option<Why> {
            let Move { limit, why } = moved?;
            self.usage.limit = limit.clamp(self.usage.min, self.usage.max);
            Some(why)
        }

        /// A call that times out, all of it.
        fn fails(&mut self, in_use: usize) -> Option<Why> {
            let why = self.overloaded(in_use, Round::This);
            self.returned(in_use);
            why
        }
    }

    #[test]
    fn five_timeouts_and_no_answer_are_an_outage() {
        let mut limit = Limit::new(1_024);
        for _ in 0..4 {
            assert_eq!(limit.fails(140), None);
        }
        assert_eq!(limit.fails(140), Some(Why::Outage));
        assert_eq!(limit.usage.limit, 1);
    }

    #[test]
    fn more_failures_than_answers_halve_what_is_in_use() {
        let mut limit = Limit::new(100);
        let mut moved = None;
        for _ in 0..5 {
            for _ in 0..2 {
                moved = moved.or(limit.fails(80));
            }
            limit.returned(80);
        }
        assert_eq!((moved, limit.usage.limit), (Some(Why::Overload), 40));
    }

    #[test]
    fn as_many_answers_as_failures_change_nothing() {
        let mut limit = Limit::new(100);
        for _ in 0..10_000 {
            assert_eq!(limit.fails(90), None);
            assert_eq!(limit.returned(90), None);
        }
        assert!(limit.aimd.is_calm());
    }

    #[test]
    fn one_burst_of_failures_is_one_reason_to_lower_it() {
        let mut limit = Limit::new(100);
        limit.returned(80);
        (0..5).for_each(|_| _ = limit.overloaded(80, Round::This));
        let lowered = limit.usage.limit;
        for _ in 0..75 {
            assert_eq!(limit.overloaded(80, Round::Earlier), None);
        }
        for _ in 0..80 {
            assert_eq!(limit.returned(80), None, "their ends are no good news");
        }
        assert_eq!(limit.usage.limit, lowered);
    }

    /// Whether a limit of 20, of which nine are in use, is still that after so many calls that went well; `returned` gives
    /// the limit after one of them.
    fn is_no_higher_for_what_nobody_uses(mut returned: impl FnMut(usize) -> usize) -> bool {
        (0..100).all(|_| returned(9) == 20)
    }

    // flaw T29
    #[test]
    fn it_grows_only_while_at_least_half_of_it_is_in_use() {
        let mut limit = Limit::new(1_024);
        (0..5).for_each(|_| _ = limit.fails(140));
        limit.usage.limit = 20;
        assert!(is_no_higher_for_what_nobody_uses(|in_use| {
            limit.returned(in_use);
            limit.usage.limit
        }));
        (0..100).for_each(|_| _ = limit.returned(20));
        assert!(limit.usage.limit > 20);
    }

    // flaw T29, as tower-resilience's AIMD and Vegas have it: each good call raises it
    #[test]
    fn a_limit_that_grows_whatever_is_in_use_is_higher() {
        let mut limit = 20.0;
        let grows = |_: usize| {
            limit += 1.0 / limit;
            limit as usize
        };
        assert!(!is_no_higher_for_what_nobody_uses(grows));
    }

    #[test]
    fn where_it_was_held_it_is_wary() {
        let mut limit = Limit::new(1_024);
        (0..5).for_each(|_| _ = limit.fails(140));
        limit.usage.limit = 20;
        limit.aimd.held(limit.usage);
        (0..399).for_each(|_| _ = limit.returned(20));
        assert_eq!(limit.usage.limit, 20);
        (0..2).for_each(|_| _ = limit.returned(20));
        assert_eq!(limit.usage.limit, 21);
    }

    #[test]
    fn it_is_wary_where_it_failed_and_fast_far_below_and_steady_far_above() {
        assert!(pace(10, 100.0) > pace(55, 100.0));
        assert!(pace(55, 100.0) > pace(100, 100.0));
        assert!(pace(160, 100.0) > pace(100, 100.0));
        assert_eq!(pace(1_000, f64::INFINITY), pace(10, 100.0));
        assert_eq!(pace(3, 4.0), pace(10, 100.0), "three of four are few");
    }

    #[derive(Clone, Debug)]
    enum Event {
        Overloaded(usize, bool),
        Returned(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..200usize, any::<bool>()).prop_map(|(used, late)| Event::Overloaded(used, late)),
            (0..200usize).prop_map(Event::Returned),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_good_news_never_lowers_it_and_bad_news_never_raises_it(
            events in proptest::collection::vec(event(), 1..400),
        ) {
            let mut limit = Limit::new(100);
            let mut news = 0usize;
            for event in events {
                let before = limit.usage.limit;
                match event {
                    Event::Overloaded(used, late) => {
                        let round = if late { Round::Earlier } else { Round::This };
                        limit.overloaded(used, round);
                        assert!(limit.usage.limit <= before);
                        assert!(!late || limit.usage.limit == before);
                        news += usize::from(!late);
                        if limit.usage.limit < before {
                            assert!(news >= CONVINCED as usize, "believed too early");
                            news = 0;
                        }
                    }
                    Event::Returned(used) => {
                        limit.returned(used);
                        let grown = limit.usage.limit - before;
                        assert!(grown <= 1 && (grown == 0 || 2 * used >= before));
                    }
                }
            }
        }
    }
}
