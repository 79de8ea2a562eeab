//! What a gate says when so many endpoints of a service are out that their judges are no longer believed.

use super::{Availability, Gate, JudgeKind, Ordering, Shut, Standing, Ticket, epoch};
use crate::{gate::Judge, time::Instant};

impl Gate {
    /// How the endpoint counts among those of its service: one load while all judges are content.
    pub fn availability(&self) -> Availability {
        let word = self.word.load(Ordering::Acquire);
        if word & JudgeKind::Drain.flag() != 0 {
            return Availability::Withdrawn;
        }
        match self.breaker_of(word).map(Judge::availability) {
            None | Some(Availability::In) if word & DOUBTFUL == 0 => Availability::In,
            Some(Availability::Withdrawn) => Availability::Withdrawn,
            _ => Availability::Out,
        }
    }

    /// As [`standing`](Self::standing), in a panic. Takes nothing.
    pub fn standing_in_panic(&self, now: Instant) -> Standing {
        let word = self.word.load(Ordering::Acquire);
        if word & JudgeKind::Drain.flag() != 0 {
            return Standing::Shut(Shut::new(JudgeKind::Drain, None));
        }
        let breaker = self.breaker_of(word);
        breaker.map_or(Standing::Open, |judge| judge.standing_in_panic(now))
    }

    /// Whether a probe has [confirmed](Judge::is_confirmed) that its breaker is open for good reason.
    pub fn is_confirmed(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        self.breaker_of(word).is_some_and(Judge::is_confirmed)
    }

    /// Admits a call although the gate may be shut, for who has counted that too many endpoints are out: health checks
    /// and ejection are overridden, the breaker may give a probe's place out of turn
    /// ([`Judge::admit_in_panic`]). What somebody did on purpose holds: a drain, a breaker that is forced open.
    ///
    /// # Errors
    ///
    /// [`Shut`] if the call may not be made even so.
    #[cold]
    pub fn admit_in_panic(&self, now: Instant) -> Result<Ticket, Shut> {
        let word = self.word.load(Ordering::Acquire);
        if word & JudgeKind::Drain.flag() != 0 {
            return Err(Shut::new(JudgeKind::Drain, None));
        }
        match self.breaker_of(word) {
            Some(judge) => judge.admit_in_panic(now),
            None => Ok(Ticket::new(epoch(word), false)),
        }
    }

    /// The breaker, if it is not content.
    fn breaker_of(&self, word: u64) -> Option<&dyn Judge> {
        let raised = word & JudgeKind::Breaker.flag() != 0;
        let judge = self.judge(JudgeKind::Breaker).filter(|_| raised)?;
        Some(&**judge)
    }
}

/// Those whom a panic overrides.
const DOUBTFUL: u64 = JudgeKind::Health.flag() | JudgeKind::Outlier.flag();

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{outcome::Outcome, vitals::Vitals};

    const NOW: Instant = Instant::from_nanos(1 << 60);

    /// Refuses, but for a place in a panic.
    #[derive(Debug)]
    struct Refuses {
        kind: JudgeKind,
        counts: Availability,
        in_panic: bool,
    }

    impl Refuses {
        fn shut(&self) -> Shut {
            Shut::new(self.kind, None)
        }
    }

    impl Judge for Refuses {
        fn standing(&self, _: Instant) -> Standing {
            Standing::Shut(self.shut())
        }

        fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
            Err(self.shut())
        }

        fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

        fn release(&self, _: Ticket) {}

        fn availability(&self) -> Availability {
            self.counts
        }

        fn standing_in_panic(&self, now: Instant) -> Standing {
            match self.in_panic {
                true => Standing::Limited,
                false => self.standing(now),
            }
        }

        fn admit_in_panic(&self, now: Instant) -> Result<Ticket, Shut> {
            match self.in_panic {
                true => Ok(Ticket::new(7, true)),
                false => self.admit(now),
            }
        }
    }

    fn judged(judges: &[(JudgeKind, Availability, bool)]) -> Arc<Vitals> {
        let vitals = Vitals::detached();
        for &(kind, counts, in_panic) in judges {
            vitals.attach(kind, |handle| {
                handle.set(true);
                Arc::new(Refuses {
                    kind,
                    counts,
                    in_panic,
                })
            });
        }
        vitals
    }

    use Availability::{In, Out, Withdrawn};
    use JudgeKind::{Breaker, Drain, Health, Outlier};

    #[test]
    fn a_panic_overrides_health_and_ejection_but_asks_the_breaker() {
        let vitals = judged(&[(Health, Out, false), (Outlier, Out, false)]);
        let gate = vitals.gate();
        assert!(gate.admit(NOW).is_err());
        assert_eq!(gate.standing_in_panic(NOW), Standing::Open);
        assert_eq!(gate.admit_in_panic(NOW), Ok(Ticket::new(0, false)));

        let vitals = judged(&[(Health, Out, false), (Breaker, Out, true)]);
        let gate = vitals.gate();
        assert_eq!(gate.standing_in_panic(NOW), Standing::Limited);
        assert_eq!(gate.admit_in_panic(NOW), Ok(Ticket::new(7, true)));

        let vitals = judged(&[(Health, Out, false), (Breaker, Out, false)]);
        let shut = Shut::new(Breaker, None);
        assert_eq!(vitals.gate().standing_in_panic(NOW), Standing::Shut(shut));
        assert_eq!(vitals.gate().admit_in_panic(NOW), Err(shut));
    }

    #[test]
    fn a_breaker_that_is_content_is_not_asked() {
        let vitals = judged(&[(Breaker, Withdrawn, false)]);
        let gate = vitals.gate();
        gate.set(Breaker, false);
        assert_eq!(gate.standing_in_panic(NOW), Standing::Open);
        assert_eq!(gate.admit_in_panic(NOW), Ok(Ticket::new(0, false)));
        assert_eq!(gate.availability(), In);
    }

    #[test]
    fn a_panic_never_overrides_a_drain() {
        let vitals = judged(&[(Breaker, Out, true)]);
        vitals.gate().set_draining(true);
        let shut = Shut::new(Drain, None);
        assert_eq!(vitals.gate().standing_in_panic(NOW), Standing::Shut(shut));
        assert_eq!(vitals.gate().admit_in_panic(NOW), Err(shut));
    }

    #[test]
    fn who_is_out_on_purpose_is_not_counted_and_who_ramps_up_is_in() {
        for (judges, counts) in [
            (&[][..], In),
            (&[(Health, Out, false)], Out),
            (&[(Outlier, Out, false)], Out),
            (&[(Breaker, Out, false)], Out),
            (&[(Breaker, In, false)], In),
            (&[(Breaker, Withdrawn, false)], Withdrawn),
            (&[(Breaker, In, false), (Health, Out, false)], Out),
            (
                &[(Breaker, Withdrawn, false), (Health, Out, false)],
                Withdrawn,
            ),
        ] {
            let vitals = judged(judges);
            assert_eq!(vitals.gate().availability(), counts, "{judges:?}");
            vitals.gate().set_draining(true);
            assert_eq!(vitals.gate().availability(), Withdrawn);
        }
    }
}
