//! The layers of the mesh by hand: without the outermost one that counts, and without HTTP.

use std::process::ExitCode;

use tower_mesh_bench::{Numbers, main as case, stack};

fn main() -> ExitCode {
    case(async |setup| Ok(Numbers(stack(setup).await)))
}
