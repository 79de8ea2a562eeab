//! Retries.

use tower::Layer;
use tower_mesh::limit::PerCall;

use crate::support::{ALL_TRIES, ATTEMPTS, Exam};

// I3, I11
#[test]
fn retries_keep_the_contract_the_account_and_the_number_of_attempts() {
    Exam::plain()
        .attempts(ATTEMPTS)
        .ends_within(ALL_TRIES)
        .passes(|kit, inner| kit.retry().layer(inner));
}

#[test]
fn retries_directly_over_what_is_always_ready_keep_it_too() {
    Exam::plain()
        .attempts(ATTEMPTS)
        .ends_within(ALL_TRIES)
        .passes(|kit, inner| kit.retry().over(PerCall::new(inner)));
}

// As the mesh stacks them: one frame, opened above.
#[test]
fn retries_joined_to_the_frame_of_a_deadline_keep_it_too() {
    Exam::plain()
        .attempts(ATTEMPTS)
        .ends_within(ALL_TRIES)
        .passes(|kit, inner| {
            let retry = kit.retry().joined().over(PerCall::new(inner));
            kit.deadline().over(retry)
        });
}
