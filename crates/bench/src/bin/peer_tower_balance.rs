//! tower: P2C by peak EWMA, behind the buffer that lets more than one caller have it.

use std::{process::ExitCode, time::Duration};

use tower::{
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
};
use tower_mesh_bench::{Numbers, main as case};

fn main() -> ExitCode {
    case(async |setup| {
        let endpoint = || {
            PeakEwma::new(
                setup.inner,
                Duration::from_secs(1),
                1e9,
                CompleteOnResponse::default(),
            )
        };
        let endpoints: Vec<_> = (0..setup.endpoints).map(|_| endpoint()).collect();
        let balance = Balance::new(ServiceList::new::<u64>(endpoints));
        Ok(Numbers(Buffer::new(balance, 1024)))
    })
}
