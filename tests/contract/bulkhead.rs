//! The bulkhead, one call at a time and three in the queue.

use tower::Layer;
use tower_mesh::limit::PerCall;

use crate::support::Exam;

// I1, I5
#[test]
fn a_bulkhead_keeps_the_contract_and_wakes_who_is_next_whoever_goes_away() {
    Exam::plain().passes(|kit, inner| kit.bulkhead().layer(inner));
}

#[test]
fn a_bulkhead_directly_over_what_is_always_ready_keeps_it_too() {
    Exam::plain().passes(|kit, inner| kit.bulkhead().over(PerCall::new(inner)));
}

#[test]
fn a_bulkhead_without_a_queue_refuses_and_keeps_the_contract() {
    Exam::plain().passes(|kit, inner| kit.bulkhead().queue(0).layer(inner));
}
