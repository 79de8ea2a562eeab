//! Which parts do I need? Three of the mesh's layers, composed by hand over a service of one's own: no registry, no HTTP.
//!
//! `cargo run --example layers`

use std::{
    fmt::Write as _,
    io,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_mesh::{
    Endpoint, ServiceName,
    balance::BalanceLayer,
    breaker::{BreakerLayer, Policy},
    core::{Endpoints, Layered, Ratio},
    limit::DeadlineLayer,
    retry::{Budget, RetryLayer},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    print!("{}", run().await?);
    Ok(())
}

async fn run() -> Result<String, BoxError> {
    let all = (1..=3).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    let endpoints = Endpoints::fixed(ServiceName::new("doubles")?, all);

    // What stands for an endpoint: anything that is a tower service. The first one is broken.
    let connect = |endpoint: &Endpoint| {
        let port = endpoint.address().port();
        service_fn(move |n: u32| async move {
            ATTEMPTS[usize::from(port)].fetch_add(1, Ordering::Relaxed);
            match port {
                1 => Err(io::Error::other("broken")),
                _ => Ok(2 * n),
            }
        })
    };
    let breakers = BreakerLayer::new(Policy::default().open_for(Duration::from_secs(60)));
    let mut doubles = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(1)))
        .layer(RetryLayer::new(Budget::new(Ratio::percent(10))))
        .layer(BalanceLayer::new(endpoints.clone()))
        .service(Layered::new(connect, breakers));

    let mut answered = 0;
    for n in 0..1_000 {
        answered += u32::from(doubles.ready().await?.call(n).await.is_ok());
    }
    let mut out = String::new();
    writeln!(out, "{answered} of 1000 calls were answered")?;
    let tried = ATTEMPTS[1].load(Ordering::Relaxed);
    let how = if tried < 100 { "left alone" } else { "in use" };
    writeln!(out, "the broken endpoint is {how}")?;
    Ok(out)
}

static ATTEMPTS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_broken_one_costs_no_call_and_is_left_alone() {
        let out = super::run().await.unwrap();
        let expected = "1000 of 1000 calls were answered\nthe broken endpoint is left alone\n";
        assert_eq!(out, expected);
    }
}
