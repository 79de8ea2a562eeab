//! Makes calls through the stack, or with `--bare` to the plain service, so that their instructions can be counted.

use std::process::ExitCode;

use tower::{Service, ServiceExt};
use tower_mesh_bench::{Inner, stack};
use tower_mesh_core::{BoxError, Clock};

const HELP: &str = "usage: calls [--endpoints N] [--calls N] [--pending] [--bare]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), BoxError> {
    let (mut endpoints, mut calls, mut inner, mut bare) = (1_000, 10_000, Inner::Ready, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or("a number is missing");
        match &*arg {
            "--endpoints" => endpoints = number()?.parse()?,
            "--calls" => calls = number()?.parse()?,
            "--pending" => inner = Inner::Pending,
            "--bare" => bare = true,
            other => return Err(format!("{other} does not exist").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        if bare {
            call(inner, calls).await
        } else {
            call(stack(endpoints, inner, Clock::tokio()).await, calls).await
        }
    })
}

/// Makes `calls` calls, one after another.
async fn call<S>(mut service: S, calls: u64) -> Result<(), BoxError>
where
    S: Service<u64, Response = u64>,
    S::Error: Into<BoxError>,
{
    for request in 0..calls {
        let service = service.ready().await.map_err(Into::into)?;
        let answer = service.call(request).await.map_err(Into::into)?;
        assert_eq!(std::hint::black_box(answer), request);
    }
    Ok(())
}
