//! The deadline.

use tower::Layer;
use tower_mesh::limit::PerCall;

use crate::support::{DEADLINE, Exam};

#[test]
fn a_call_for_each_request_keeps_the_contract() {
    Exam::plain().passes(|_, inner| PerCall::new(inner));
}

#[test]
fn a_deadline_keeps_the_contract_and_the_time() {
    Exam::plain()
        .ends_within(DEADLINE)
        .passes(|kit, inner| kit.deadline().layer(inner));
}

#[test]
fn a_deadline_directly_over_what_is_always_ready_keeps_it_too() {
    Exam::plain()
        .ends_within(DEADLINE)
        .passes(|kit, inner| kit.deadline().over(PerCall::new(inner)));
}
