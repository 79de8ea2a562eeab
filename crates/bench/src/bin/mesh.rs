//! The shipped client of a service, everything by default, over a plain service.

use std::process::ExitCode;

use tower_mesh_bench::{Requests, main as case, mesh};

fn main() -> ExitCode {
    case(async |setup| Ok(Requests(mesh(setup).await?)))
}
