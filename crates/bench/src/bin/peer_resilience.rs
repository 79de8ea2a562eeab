//! tower-resilience: breaker, retry, timeout, bulkhead.

use std::{process::ExitCode, time::Duration};

use tower::ServiceBuilder;
use tower_mesh_bench::{Numbers, main as case};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

fn main() -> ExitCode {
    case(async |setup| {
        let stack = ServiceBuilder::new()
            .layer(CircuitBreakerLayer::builder().build()?)
            .layer(RetryLayer::builder().max_attempts(3).build())
            .layer(
                TimeLimiterLayer::builder()
                    .timeout_duration(Duration::from_secs(10))
                    .build(),
            )
            .layer(
                BulkheadLayer::builder()
                    .max_concurrent_calls(1024)
                    .build()?,
            )
            .service(setup.inner);
        Ok(Numbers(stack))
    })
}
