//! The plain service, called over HTTP.

use std::process::ExitCode;

use tower_mesh_bench::{Requests, main as case};

fn main() -> ExitCode {
    case(async |setup| Ok(Requests(setup.inner)))
}
