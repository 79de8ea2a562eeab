//! The shipped client of a service, everything by default, over a plain service.

use std::process::ExitCode;

use tower_mesh_bench::{Requests, main as case, mesh};

fn main() -> ExitCode {
    case(async |setup| {
        let (mesh, service) = mesh(setup.endpoints, setup.inner, setup.clock).await?;
        // It runs for as long as the process does.
        std::mem::forget(mesh);
        Ok(Requests(service))
    })
}
