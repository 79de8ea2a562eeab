//! The same, found by the authority of each request.

use std::process::ExitCode;

use tower_mesh_bench::{Posts, main as case, mesh_by_authority};

fn main() -> ExitCode {
    case(async |setup| Ok(Posts::new(mesh_by_authority(setup).await?)))
}
