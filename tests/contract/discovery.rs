//! Waiting for the first answer of the registry.

use tower::Layer;
use tower_mesh::{
    core::testing::contract::{Contract, Subject},
    discovery::Discovery,
    limit::DeadlineLayer,
};

use crate::support::{DEADLINE, Exam, LONG, Late, orders};

#[test]
fn a_service_that_is_found_is_called_under_the_contract() {
    Exam::plain().passes(|kit, inner| kit.discovery(1).layer(inner));
}

// I5: of four first calls each hears of the answer, whichever goes away.
#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_the_first_answer_keep_the_contract() {
    Contract::new(|| "request", || "response")
        .check(|inner| {
            let (discovery, driver) = Discovery::builder(Late).build();
            tokio::spawn(driver);
            // Nobody's time is up, so nobody is woken but by the answer.
            let layer = discovery.layer(&orders()).wait(LONG);
            Subject::new(layer.layer(inner))
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_with_a_deadline_that_wait_for_the_first_answer_keep_the_contract() {
    Contract::new(|| "request", || "response")
        .ends_within(DEADLINE)
        .check(|inner| {
            let (discovery, driver) = Discovery::builder(Late).build();
            tokio::spawn(driver);
            let discovered = discovery.layer(&orders()).layer(inner);
            Subject::new(DeadlineLayer::new(DEADLINE).over(discovered))
        })
        .await
        .unwrap();
}
