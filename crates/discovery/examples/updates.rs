//! What an update costs the driver: figures for a person.
//!
//! `cargo run --release -p tower-mesh-discovery --example updates`

use std::{
    net::Ipv4Addr,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;
use tower_mesh_core::{
    Clock, Empties, Endpoint, Endpoints, Resolve, ServiceName, Update, Updates, Weight,
};
use tower_mesh_discovery::{Discovery, Driver};

/// Reports what it is told, to the first who asks.
#[derive(Clone)]
struct Told(Arc<Mutex<Option<mpsc::UnboundedReceiver<Update>>>>);

impl Resolve for Told {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let told = self.0.lock().expect("nobody panics").take();
        let mut told = told.expect("there is one service, looked up once");
        Box::pin(futures_util::stream::poll_fn(move |cx| {
            told.poll_recv(cx).map(|update| update.map(Ok))
        }))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "told"
    }
}

struct Bench {
    tell: mpsc::UnboundedSender<Update>,
    endpoints: Endpoints,
    driver: tokio_test::task::Spawn<Driver>,
    _discovery: Discovery,
}

impl Bench {
    fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let (discovery, driver) = Discovery::builder(Told(Arc::new(Mutex::new(Some(told)))))
            .max_endpoints(NonZeroUsize::MAX)
            .build();
        let orders = ServiceName::new("orders").expect("a valid name");
        let endpoints = discovery.endpoints(&orders);
        Self {
            tell,
            endpoints,
            driver: tokio_test::task::spawn(driver),
            _discovery: discovery,
        }
    }

    /// How long the driver takes until it has no more to do, and the longest of its polls.
    async fn run(&mut self) -> (Duration, Duration) {
        // A fresh budget: tokio's channels pretend to be empty when a task has read much.
        tokio::task::yield_now().await;
        let clock = Clock::tokio();
        let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
        loop {
            let before = clock.now();
            let _ = self.driver.poll();
            let took = clock.now().since(before);
            all += took;
            longest = longest.max(took);
            if !self.driver.is_woken() {
                return (all, longest);
            }
        }
    }

    /// The least and the median of several runs, and the longest poll of the median one.
    async fn row(&mut self, what: &str, mut update: impl FnMut() -> Update) {
        let mut times = Vec::new();
        for _ in 0..11 {
            self.tell.send(update()).expect("the driver follows");
            times.push(self.run().await);
        }
        times.sort_unstable();
        let (least, (median, longest)) = (times[0].0, times[5]);
        let set = self.endpoints.current();
        let (n, revision) = (set.endpoints().len(), set.revision());
        println!(
            "{n:>7} {what:<30} {least:>9.1?} {median:>9.1?} {longest:>9.1?}  revision {revision}"
        );
    }
}

fn endpoint(i: u32, port: u16) -> Endpoint {
    Endpoint::new((Ipv4Addr::from(0x0a00_0000 + i), port).into())
        .with_zone("eu-1")
        .with_metadata("version", "1.2.3")
}

fn fleet(n: u32, port: u16) -> Vec<Endpoint> {
    (0..n).map(|i| endpoint(i, port)).collect()
}

fn patch(endpoint: Endpoint) -> Update {
    Update::Patch {
        upsert: vec![endpoint],
        remove: Vec::new(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:>7} {:<30} {:>9} {:>9} {:>9}",
        "", "", "least", "median", "poll"
    );
    for n in [1_000, 10_000, 100_000] {
        let mut bench = Bench::new();
        let mut count = 0;
        let mut next = || {
            count += 1;
            count
        };
        bench
            .row("replace, all others", || Update::Replace(fleet(n, next())))
            .await;
        let port = next() - 1;
        bench
            .row("replace, nothing changed", || {
                Update::Replace(fleet(n, port))
            })
            .await;
        bench
            .row("replace, all described anew", || {
                let weight = Weight::new(next());
                let all = fleet(n, port).into_iter();
                Update::Replace(all.map(|e| e.with_weight(weight)).collect())
            })
            .await;
        bench
            .row("patch of 1, described anew", || {
                patch(endpoint(n / 2, port).with_weight(Weight::new(next())))
            })
            .await;
        bench
            .row("patch of 1, another endpoint", || {
                patch(endpoint(n / 3, port).with_id(&next().to_string()))
            })
            .await;
    }
}
