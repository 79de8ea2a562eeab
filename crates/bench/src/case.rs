//! A case: a binary that makes calls through one client.

use std::{future::Future, process::ExitCode};

use tower::BoxError;
use tower_mesh::core::Clock;

use crate::{Client, Inner, client::calls};

const HELP: &str = "usage: CASE [--endpoints N] [--calls N] [--pending]";

/// What a case is made of.
#[derive(Debug)]
pub struct Setup {
    /// How many endpoints there are to choose from.
    pub endpoints: u32,
    /// What is called in the end.
    pub inner: Inner,
    /// What time is taken from.
    pub clock: Clock,
}

/// The whole of a case: makes a client out of the command line, and calls through it.
pub fn main<C, F>(client: impl FnOnce(Setup) -> F) -> ExitCode
where
    C: Client,
    F: Future<Output = Result<C, BoxError>>,
{
    match run(client) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run<C, F>(client: impl FnOnce(Setup) -> F) -> Result<(), BoxError>
where
    C: Client,
    F: Future<Output = Result<C, BoxError>>,
{
    let mut number_of_calls = 10_000;
    let mut setup = Setup {
        endpoints: 1_000,
        inner: Inner::Ready,
        clock: Clock::default(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or("a number is missing");
        match &*arg {
            "--endpoints" => setup.endpoints = number()?.parse()?,
            "--calls" => number_of_calls = number()?.parse()?,
            "--pending" => setup.inner = Inner::Pending,
            other => return Err(format!("{other} does not exist").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let client = client(setup).await?;
        calls(client, number_of_calls).await
    })
}
