//! The plain service, called with numbers.

use std::process::ExitCode;

use tower_mesh_bench::{Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| Ok(Numbers(setup.inner)))
}
