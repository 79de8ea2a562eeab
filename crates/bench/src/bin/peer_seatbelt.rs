//! seatbelt: timeout, retry, breaker.

use std::{process::ExitCode, time::Duration};

use seatbelt::{RecoveryInfo, ResilienceContext, breaker::Breaker, retry::Retry, timeout::Timeout};
use tower::{ServiceBuilder, util::MapErr};
use tower_mesh_bench::{Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let context: ResilienceContext<u64, Result<u64, String>> =
            ResilienceContext::new(tick::Clock::new_tokio());
        let recovery = |result: &Result<u64, String>| match result {
            Ok(_) => RecoveryInfo::never(),
            Err(_) => RecoveryInfo::retry(),
        };
        let stack = ServiceBuilder::new()
            .layer(
                Timeout::layer("timeout", &context)
                    .timeout(Duration::from_secs(10))
                    .timeout_error(|_| "too late".to_owned()),
            )
            .layer(
                Retry::layer("retry", &context)
                    .clone_input()
                    .recovery_with(move |result, _| recovery(result)),
            )
            .layer(
                Breaker::layer("breaker", &context)
                    .recovery_with(move |result, _| recovery(result))
                    .rejected_input_error(|_, _| "open".to_owned()),
            )
            // It wants one type of error all the way down.
            .service(MapErr::new(setup.inner, |never| match never {}));
        Ok(Numbers(stack))
    })
}
