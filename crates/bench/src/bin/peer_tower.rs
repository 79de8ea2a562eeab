//! tower: timeout, retry with a budget, concurrency limit.

use std::{future, process::ExitCode, sync::Arc, time::Duration};

use tower::{
    ServiceBuilder,
    limit::ConcurrencyLimitLayer,
    retry::{
        Policy, RetryLayer,
        budget::{Budget, TpsBudget},
    },
    timeout::TimeoutLayer,
};
use tower_mesh_bench::{Numbers, main as case};

/// As tower's documentation writes one: what succeeds deposits, what fails withdraws and is tried again.
#[derive(Clone)]
struct WithBudget(Arc<TpsBudget>);

impl<E> Policy<u64, u64, E> for WithBudget {
    type Future = future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Self::Future> {
        match result {
            Ok(_) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| future::ready(())),
        }
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

fn main() -> ExitCode {
    case(async |setup| {
        let budget = TpsBudget::new(Duration::from_secs(10), 1, 0.1);
        let stack = ServiceBuilder::new()
            .layer(TimeoutLayer::new(Duration::from_secs(10)))
            .layer(RetryLayer::new(WithBudget(Arc::new(budget))))
            .layer(ConcurrencyLimitLayer::new(1024))
            .service(setup.inner);
        Ok(Numbers(stack))
    })
}
