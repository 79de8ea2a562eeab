//! A request that a server of the mesh refuses, since it runs as many as it may.

use std::process::ExitCode;

use tower_mesh_bench::{Refusals, full_server, main as case};

fn main() -> ExitCode {
    case(async |setup| Ok(Refusals(full_server(setup).await?)))
}
