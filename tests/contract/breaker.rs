//! The breaker of a service.

use tower::Layer;

use crate::support::Exam;

// I2, I9
#[test]
fn a_breaker_keeps_the_contract_and_hears_of_each_attempt_once() {
    Exam::plain().passes(|kit, inner| {
        let layer = kit.breaker();
        kit.counts_by(layer.handle());
        layer.layer(inner)
    });
}
