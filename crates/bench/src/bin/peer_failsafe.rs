//! failsafe: its default breaker around the plain service's future.

use std::{hint::black_box, process::ExitCode};

use failsafe::{Config, futures::CircuitBreaker};
use tower::{BoxError, Service};
use tower_mesh_bench::{Client, Inner, main as case};

#[derive(Clone)]
struct Asked<B> {
    breaker: B,
    inner: Inner,
}

impl<B> Client for Asked<B>
where
    B: CircuitBreaker<FailurePolicy: 'static, Instrument: 'static> + Clone + Send + Sync + 'static,
{
    async fn call(&mut self, number: u64) -> Result<(), BoxError> {
        let call = self.breaker.call(self.inner.call(number));
        assert_eq!(black_box(call.await.map_err(|_| "refused")?), number);
        Ok(())
    }
}

fn main() -> ExitCode {
    case(async |setup| {
        Ok(Asked {
            breaker: Config::new().build(),
            inner: setup.inner,
        })
    })
}
