//! One situation that the examined service is put into.

use std::{sync::Arc, time::Duration};

use tower_service::Service;

use super::{
    Contract, Rule, Subject,
    inner::{End, Plan, Stage},
    run::{Ended, LONG, Run, SPINS, Step, Until},
};

/// A rule is broken, and how.
pub(super) type Broken = (Rule, String);

/// A service in one situation.
pub(super) struct Scene<'a, S, Req, Res> {
    contract: &'a Contract<Req, Res>,
    stage: Arc<Stage<Res>>,
    subject: Subject<S>,
    what: String,
}

impl<'a, S, Req, Res> Scene<'a, S, Req, Res>
where
    S: Service<Req> + Clone,
{
    pub(super) fn new(
        contract: &'a Contract<Req, Res>,
        stage: Arc<Stage<Res>>,
        subject: Subject<S>,
        what: String,
    ) -> Self {
        Self {
            contract,
            stage,
            subject,
            what,
        }
    }

    /// A call of a clone of the service.
    pub(super) fn run(&self) -> Run<S, Req> {
        Run::new(self.subject.service.clone(), (self.contract.request)())
    }

    pub(super) async fn drive(&self, run: &mut Run<S, Req>, until: Until) -> Option<Ended> {
        run.drive(until, &self.stage, &self.contract.time).await
    }

    /// All that was broken: by what was played, towards the inner service, and by what is left when the service is gone.
    pub(super) fn close(self, played: Result<(), Broken>) -> Vec<Broken> {
        let Self {
            stage,
            subject,
            what,
            ..
        } = self;
        drop(subject);
        let mut broken: Vec<_> = played.err().into_iter().collect();
        broken.extend(stage.fault().map(|(rule, how)| (rule, how.to_owned())));
        let left = stage.seen().instances;
        if left > 0 {
            let how = format!("without the service {left} instances of the inner service are left");
            broken.push((Rule::TakesAlong, how));
        }
        let with_what = |(rule, how)| (rule, format!("{what}: {how}"));
        broken.into_iter().map(with_what).collect()
    }

    /// Ready, called, polled to its end.
    pub(super) async fn called(&self) -> Result<(), Broken> {
        let mut run = self.run();
        let ended = self.drive(&mut run, Until::End).await;
        drop(run);
        let (calls, most) = (self.stage.seen().calls, self.contract.attempts);
        if calls > most {
            let how = format!("it has called {calls} times instead of {most} at most");
            return Err((Rule::KeepsToAttempts, how));
        }
        let fails = self.stage.plan().end == End::Err;
        expect(ended, Rule::Answers, |ended| {
            ended == Ended::Ok || fails && ended == Ended::Err
        })?;
        self.comes_to_rest(Rule::Answers).await
    }

    /// Ready and cloned; the one is called, then the other.
    pub(super) async fn cloned(&self) -> Result<(), Broken> {
        let mut original = self.run();
        self.make_ready(&mut original, Rule::AnswersCloned).await?;
        let clone = original.service().clone();
        self.answers(original, Rule::AnswersCloned).await?;
        let clone = Run::new(clone, (self.contract.request)());
        self.answers(clone, Rule::AnswersCloned).await?;
        self.comes_to_rest(Rule::AnswersCloned).await
    }

    pub(super) async fn dropped_when_ready(&self) -> Result<(), Broken> {
        let mut ready = self.run();
        self.make_ready(&mut ready, Rule::DroppedWhenReady).await?;
        drop(ready);
        self.comes_to_rest(Rule::DroppedWhenReady).await
    }

    /// One clone is ready and left so, while another calls.
    pub(super) async fn idle(&self) -> Result<(), Broken> {
        let mut idle = self.run();
        self.make_ready(&mut idle, Rule::Answers).await?;
        self.answers(self.run(), Rule::IdleHoldsNothing).await?;
        drop(idle);
        self.comes_to_rest(Rule::IdleHoldsNothing).await
    }

    /// The inner service panics, then the same instance is used again.
    pub(super) async fn over_a_panic(&self) -> Result<(), Broken> {
        let mut run = self.run();
        let ended = self.drive(&mut run, Until::End).await;
        expect(ended, Rule::SurvivesPanics, |ended| ended != Ended::Stuck)?;
        self.stage.set(Plan::OK.pending(1));
        let again = run.again((self.contract.request)());
        self.answers(again, Rule::SurvivesPanics).await?;
        self.comes_to_rest(Rule::SurvivesPanics).await
    }

    /// The inner service never answers.
    pub(super) async fn unanswered(&self) -> Result<(), Broken> {
        let mut run = self.run();
        let mut ended = self.spin(&mut run)?;
        if let (Some(limit), true) = (self.contract.ends_within, run.is_called()) {
            const SLICES: u32 = 64;
            let slice = limit / SLICES + Duration::from_nanos(1);
            for _ in 0..SLICES {
                self.contract.time.pass(slice).await;
                if ended.is_none() && run.woken().take() {
                    ended = self.spin(&mut run)?;
                }
            }
            if ended.is_none() {
                let how = format!("{limit:?} after its begin it still waits");
                return Err((Rule::EndsInTime, how));
            }
        }
        drop(run);
        self.rests()?;
        self.goes_on(Rule::DroppedAnywhere).await
    }

    /// Steps until it waits, without anything happening.
    fn spin(&self, run: &mut Run<S, Req>) -> Result<Option<Ended>, Broken> {
        let mut spins = 0;
        loop {
            match run.step() {
                Step::Ended(end) => return Ok(Some(end)),
                Step::Ready | Step::Called => {}
                Step::Pending if !run.woken().take() => return Ok(None),
                Step::Pending if spins > SPINS => return Err(spinning()),
                Step::Pending => spins += 1,
            }
        }
    }

    /// Four calls at once, of which one may be dropped when all have begun.
    pub(super) async fn race(&self, dropped: Option<usize>) -> Result<(), Broken> {
        let mut runs: Vec<_> = (0..4).map(|_| Some(self.run())).collect();
        for run in &mut runs {
            self.go_on(run)?;
        }
        if let Some(dropped) = dropped {
            runs[dropped] = None;
        }
        while runs.iter().any(Option::is_some) {
            let mut moved = false;
            for run in &mut runs {
                if run.as_ref().is_some_and(|run| run.woken().take()) {
                    self.go_on(run)?;
                    moved = true;
                }
            }
            if !moved && !self.wake_any(&runs).await {
                let left = runs.iter().flatten().count();
                let how = format!("{left} of the calls wait, and nothing wakes them");
                return Err((Rule::LosesNoWakeup, how));
            }
        }
        self.comes_to_rest(Rule::LosesNoWakeup).await
    }

    /// Steps a call until it waits, and takes it away if it ends.
    fn go_on(&self, run: &mut Option<Run<S, Req>>) -> Result<(), Broken> {
        if let Some(running) = run
            && self.spin(running)?.is_some()
        {
            *run = None;
        }
        Ok(())
    }

    /// Lets something happen until one of the calls is woken; whether one was.
    async fn wake_any(&self, runs: &[Option<Run<S, Req>>]) -> bool {
        let any_woken = || runs.iter().flatten().any(|run| run.woken().is_set());
        self.stage.tick();
        for doublings in 0..LONG {
            if any_woken() {
                return true;
            }
            let time = Duration::from_millis(1 << doublings);
            self.contract.time.pass(time).await;
        }
        any_woken()
    }

    async fn make_ready(&self, run: &mut Run<S, Req>, rule: Rule) -> Result<(), Broken> {
        match self.drive(run, Until::Ready).await {
            None => Ok(()),
            Some(ended) => expect(Some(ended), rule, |_| false),
        }
    }

    async fn answers(&self, mut run: Run<S, Req>, rule: Rule) -> Result<(), Broken> {
        let ended = self.drive(&mut run, Until::End).await;
        expect(ended, rule, |ended| ended == Ended::Ok)
    }

    /// No call runs: everything is given back, and the next one answers.
    pub(super) async fn comes_to_rest(&self, rule: Rule) -> Result<(), Broken> {
        self.rests()?;
        self.counts()?;
        self.goes_on(rule).await?;
        self.rests()?;
        self.counts()
    }

    /// Another call, now that the inner service does its work.
    async fn goes_on(&self, rule: Rule) -> Result<(), Broken> {
        self.stage.set(Plan::OK.pending(1));
        let next = self.answers(self.run(), rule).await;
        next.map_err(|(rule, how)| (rule, format!("of the call after it, {how}")))
    }

    fn rests(&self) -> Result<(), Broken> {
        let running = self.stage.seen().running;
        if running > 0 {
            let how = format!("{running} calls of the inner service go on without a caller");
            return Err((Rule::TakesAlong, how));
        }
        match &self.subject.at_rest {
            Some(check) => check().map_err(|how| (Rule::AtRest, how)),
            None => Ok(()),
        }
    }

    fn counts(&self) -> Result<(), Broken> {
        let Some(tally) = &self.subject.tally else {
            return Ok(());
        };
        let (counted, seen) = (tally(), self.stage.seen());
        let ended = seen.tally;
        let failures = ended.failures..=ended.failures + seen.panics_when_ready;
        if counted.successes == ended.successes && failures.contains(&counted.failures) {
            return Ok(());
        }
        let how = format!("it has counted {counted:?}, there were {ended:?}");
        Err((Rule::OneOutcome, how))
    }
}

fn spinning() -> Broken {
    let how = format!("it has woken itself {SPINS} times in a row, and nothing had happened");
    (Rule::NeverWakesItself, how)
}

/// The end of a call is as it has to be; if it is not even an end, another rule is broken.
fn expect(ended: Option<Ended>, rule: Rule, right: impl Fn(Ended) -> bool) -> Result<(), Broken> {
    match ended {
        Some(Ended::Spinning) => Err(spinning()),
        Some(ended) if right(ended) => Ok(()),
        Some(Ended::Stuck) => Err((rule, "it waits for ever".into())),
        Some(Ended::Panic) => Err((rule, "it panics".into())),
        ended => Err((rule, format!("it ends as {ended:?}"))),
    }
}
