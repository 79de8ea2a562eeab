//! recloser: its breaker around the plain service's future.

use std::{hint::black_box, process::ExitCode};

use recloser::{AsyncRecloser, Recloser};
use tower::{BoxError, Service};
use tower_mesh_bench::{Client, Inner, main as case};

#[derive(Clone)]
struct Asked {
    breaker: AsyncRecloser,
    inner: Inner,
}

impl Client for Asked {
    async fn call(&mut self, number: u64) -> Result<(), BoxError> {
        let call = self.breaker.call(self.inner.call(number));
        assert_eq!(black_box(call.await.map_err(|_| "refused")?), number);
        Ok(())
    }
}

fn main() -> ExitCode {
    case(async |setup| {
        Ok(Asked {
            breaker: Recloser::custom().build().into(),
            inner: setup.inner,
        })
    })
}
