//! Against a plain model, whatever a body does and whatever its reader leaves undone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Response;
use proptest::prelude::*;
use tower_mesh_core::Class;

use super::{
    Event::{self, Finished, Released},
    Log, grpc, poll, track,
};
use crate::script::{Script, Step, grpc_status};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Data("x")),
        2 => Just(Step::Pending),
        1 => prop::sample::select(&["0", "3", "8", "14", "x"][..])
            .prop_map(|code| Step::Trailers(grpc_status(code))),
        1 => Just(Step::Error),
        1 => Just(Step::Panic),
    ]
}

/// What a guard has to see when `polls` polls are made of these steps.
fn expected(steps: &[Step], tells_end: bool, grpc: bool, polls: usize) -> Vec<Event> {
    let at_end = |code: Option<&str>| match (grpc, code) {
        (false, _) | (true, Some("0" | "3")) => Class::Success,
        (true, Some("8")) => Class::Overload,
        (true, _) => Class::Failure,
    };
    let over = |seen: usize| tells_end && seen == steps.len();
    let end = if over(0) {
        Some(at_end(None))
    } else {
        (0..polls).find_map(|i| match steps.get(i) {
            None => Some(at_end(None)),
            Some(Step::Trailers(trailers)) => Some(at_end(trailers["grpc-status"].to_str().ok())),
            Some(Step::Error | Step::Panic) => Some(Class::Failure),
            Some(Step::Data(_)) => over(i + 1).then(|| at_end(None)),
            Some(Step::Pending) => None,
        })
    };
    end.map(Finished).into_iter().chain([Released]).collect()
}

proptest! {
    // invariant I9
    #[test]
    fn whatever_a_body_does_and_wherever_it_is_dropped_the_guard_is_finished_at_most_once_and_released_once(
        steps in prop::collection::vec(step(), 0..6),
        tells_end: bool,
        is_grpc: bool,
        polls in 0usize..9,
    ) {
        let log = Log::default();
        let mut script = Script::new(steps.clone());
        if tells_end {
            script = script.telling_its_end();
        }
        let response = if is_grpc { grpc(script) } else { Response::new(script) };
        let mut body = track(response, log.guard());
        for _ in 0..polls {
            let _ = catch_unwind(AssertUnwindSafe(|| poll(&mut body).is_ready()));
        }
        drop(body);
        prop_assert_eq!(log.events(), expected(&steps, tells_end, is_grpc, polls));
    }
}
