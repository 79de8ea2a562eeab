//! Each layer of the mesh's stack directly over the one that stands beneath it there, in both forms where there are two.

use tower::Layer;

use crate::support::{ATTEMPTS, DEADLINE, Exam};

#[test]
fn a_deadline_over_discovery() {
    let exam = Exam::plain().ends_within(DEADLINE);
    exam.passes(|kit, inner| kit.deadline().over(kit.discovery(1).layer(inner)));
    exam.passes(|kit, inner| kit.deadline().layer(kit.discovery(1).layer(inner)));
}

#[test]
fn discovery_over_a_bulkhead() {
    Exam::plain().passes(|kit, inner| kit.discovery(1).layer(kit.bulkhead().layer(inner)));
}

#[test]
fn a_bulkhead_over_the_breaker_of_a_service() {
    let exam = Exam::plain();
    exam.passes(|kit, inner| {
        let breaker = kit.breaker();
        kit.counts_by(breaker.handle());
        kit.bulkhead().over(breaker.layer(inner))
    });
    exam.passes(|kit, inner| {
        let breaker = kit.breaker();
        kit.counts_by(breaker.handle());
        kit.bulkhead().layer(breaker.layer(inner))
    });
}

/// As in a mesh without a breaker of the service.
#[test]
fn a_bulkhead_over_retries() {
    let exam = Exam::plain().attempts(ATTEMPTS);
    exam.passes(|kit, inner| kit.bulkhead().over(kit.retry().layer(inner)));
    exam.passes(|kit, inner| kit.bulkhead().layer(kit.retry().layer(inner)));
}

#[test]
fn the_breaker_of_a_service_over_retries() {
    Exam::plain()
        .attempts(ATTEMPTS)
        .passes(|kit, inner| kit.breaker().layer(kit.retry().layer(inner)));
}

#[test]
fn retries_over_a_balancer() {
    let exam = Exam::plain().attempts(ATTEMPTS);
    exam.passes(|kit, inner| kit.retry().layer(kit.balance(&kit.fleet(1), inner)));
    exam.passes(|kit, inner| kit.retry().layer(kit.balance(&kit.fleet(3), inner)));
}

/// Every endpoint service is beneath the endpoint's breaker in all of these; here it is a layer of the mesh itself.
#[test]
fn a_balancer_over_a_bulkhead_for_each_endpoint() {
    Exam::plain().passes(|kit, inner| {
        let bulkhead = kit.bulkhead();
        kit.balance(&kit.fleet(2), bulkhead.layer(inner))
    });
}
