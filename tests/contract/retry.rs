//! Retries.

use tower::Layer;

use crate::support::{ALL_TRIES, ATTEMPTS, Exam};

// I3, I11
#[test]
fn retries_keep_the_contract_the_account_and_the_number_of_attempts() {
    Exam::plain()
        .attempts(ATTEMPTS)
        .ends_within(ALL_TRIES)
        .passes(|kit, inner| kit.retry().layer(inner));
}
