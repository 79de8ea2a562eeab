//! The plain service, called as programs do.

use std::process::ExitCode;

use tower_mesh_bench::{Posts, main as case};

fn main() -> ExitCode {
    case(async |setup| Ok(Posts::new(setup.inner)))
}
