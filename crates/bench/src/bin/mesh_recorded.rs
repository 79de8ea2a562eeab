//! The shipped client of a service, with a recorder that keeps all metrics.

use std::process::ExitCode;

use tower_mesh::core::metrics::MemoryRecorder;
use tower_mesh_bench::{Requests, main as case, mesh_recorded_by};

fn main() -> ExitCode {
    case(async |setup| {
        let recorder = MemoryRecorder::new();
        Ok(Requests(mesh_recorded_by(recorder, setup).await?))
    })
}
