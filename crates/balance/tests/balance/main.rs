//! The balancer over services that the test plays.

mod calls;
mod failures;
mod flaws;
mod fleet;
mod updates;
