//! The shipped client of a service, everything by default, over a client of the user's own, called as programs do.

use std::process::ExitCode;

use tower_mesh_bench::{Posts, main as case, mesh_of_client};

fn main() -> ExitCode {
    case(async |setup| Ok(Posts::new(mesh_of_client(setup).await?)))
}
