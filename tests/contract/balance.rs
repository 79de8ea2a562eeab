//! The balancer over endpoints with breakers of their own.

use crate::support::Exam;

// I1, I2, I9
#[test]
fn a_balancer_of_one_endpoint_keeps_the_contract() {
    Exam::plain().passes(|kit, inner| kit.balance(&kit.fleet(1), inner));
}

#[test]
fn a_balancer_of_several_endpoints_keeps_the_contract() {
    Exam::plain().passes(|kit, inner| kit.balance(&kit.fleet(3), inner));
}
