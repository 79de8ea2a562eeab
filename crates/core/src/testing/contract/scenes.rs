//! The situations that the examined service is put into, one after the other.

use std::sync::Arc;

use tower_service::Service;

use super::{
    Contract, Inner, Subject,
    inner::{End, NEVER, Plan, Stage},
    run::Until,
    scene::{Broken, Scene},
};
use crate::testing::{
    contract::Rule,
    violations::{Findings, Violations},
};

/// Plays every situation, each with a service of its own.
pub(super) struct Scenes<'a, F, Req, Res> {
    contract: &'a Contract<Req, Res>,
    make: F,
    found: Findings,
}

impl<'a, F, S, Req, Res> Scenes<'a, F, Req, Res>
where
    F: Fn(Inner<Res>) -> Subject<S>,
    S: Service<Req> + Clone,
{
    pub(super) fn new(contract: &'a Contract<Req, Res>, make: F) -> Self {
        Self {
            contract,
            make,
            found: Findings::default(),
        }
    }

    pub(super) async fn play(mut self) -> Result<(), Violations> {
        for plan in answers() {
            let scene = self.scene(plan, "called");
            let played = scene.called().await;
            self.close(scene, played);
        }
        for plan in [Plan::OK, Plan::EXCLUSIVE] {
            let scene = self.scene(plan, "cloned when ready");
            let played = scene.cloned().await;
            self.close(scene, played);
            let scene = self.scene(plan, "dropped when ready");
            let played = scene.dropped_when_ready().await;
            self.close(scene, played);
        }
        let scene = self.scene(Plan::EXCLUSIVE, "ready and idle");
        let played = scene.idle().await;
        self.close(scene, played);
        for plan in ends() {
            self.dropped_anywhere(plan).await;
        }
        for plan in panics() {
            let scene = self.scene(plan, "over a panic");
            let played = scene.over_a_panic().await;
            self.close(scene, played);
        }
        for plan in [Plan::OK, Plan::EXCLUSIVE].map(|plan| plan.pending(1)) {
            self.racing(plan).await;
        }
        for plan in [Plan::OK.pending(NEVER), Plan::OK.unready(NEVER)] {
            let scene = self.scene(plan, "never answered");
            let played = scene.unanswered().await;
            self.close(scene, played);
        }
        self.found.result()
    }

    fn scene(&self, plan: Plan, what: &str) -> Scene<'a, S, Req, Res> {
        let stage = Stage::new(plan, Arc::clone(&self.contract.response));
        let subject = (self.make)(stage.inner());
        let what = format!("{what} over {plan}");
        Scene::new(self.contract, stage, subject, what)
    }

    /// Ends a scene: what it has found, what was done to the inner service, and what is left of it.
    fn close(&mut self, scene: Scene<'a, S, Req, Res>, played: Result<(), Broken>) {
        for (rule, how) in scene.close(played) {
            if !self.contract.without.contains(&rule) {
                self.found.note_once(rule.name(), how);
            }
        }
    }

    /// Drops a call after each number of steps that it takes.
    async fn dropped_anywhere(&mut self, plan: Plan) {
        for steps in 0.. {
            let scene = self.scene(plan, &format!("dropped after {steps} steps"));
            let mut run = scene.run();
            let ended = scene.drive(&mut run, Until::Steps(steps)).await;
            drop(run);
            let played = scene.comes_to_rest(Rule::DroppedAnywhere).await;
            self.close(scene, played);
            if ended.is_some() {
                return;
            }
        }
    }

    /// Several calls at once, one of which is dropped when all have begun.
    async fn racing(&mut self, plan: Plan) {
        for dropped in [None, Some(0), Some(1), Some(3)] {
            let scene = self.scene(plan, &format!("four at once, dropping {dropped:?}"));
            let played = scene.race(dropped).await;
            self.close(scene, played);
        }
    }
}

fn answers() -> impl Iterator<Item = Plan> {
    let plans = (0..=3)
        .flat_map(|pending| [0, 2].map(|unready| Plan::OK.pending(pending).unready(unready)));
    plans.flat_map(|plan| [End::Ok, End::Err].map(|end| plan.end(end)))
}

fn ends() -> impl Iterator<Item = Plan> {
    let plans = (0..=3).map(|pending| Plan::OK.pending(pending).unready(pending % 2));
    plans.flat_map(|plan| [End::Ok, End::Err, End::PanicWhenPolled].map(|end| plan.end(end)))
}

fn panics() -> impl Iterator<Item = Plan> {
    let places = [End::PanicWhenReady, End::PanicInCall, End::PanicWhenPolled];
    let plans = [Plan::OK, Plan::EXCLUSIVE, Plan::OK.pending(2)];
    plans
        .into_iter()
        .flat_map(move |plan| places.map(|end| plan.end(end)))
}
