//! One who follows a service by a clock that is moved by hand.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::StreamExt;
use tower_mesh_core::{Clock, ManualClock, Resolve, Rng, ServiceName, Update, Updates};
use tower_mesh_dns::{Dns, Records};

use crate::scene::chain;

pub(crate) struct Seen {
    updates: Updates,
    clock: Clock,
    manual: ManualClock,
    /// How long it has waited each time before it asked anew.
    pub(crate) pauses: Vec<Duration>,
}

/// An hour: so a timer within a minute is a pause, and the other one never fires.
const LIMIT: Duration = Duration::from_secs(3_600);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Address, priority and weight of what is told; none if there is no such service.
pub(crate) type Told = Option<Vec<(String, u8, u16)>>;

impl Seen {
    /// Follows the addresses of `orders.example`, port 80.
    pub(crate) fn addresses(dns: Dns) -> Self {
        let records = Records::addresses("{service}.example", 80).unwrap();
        Self::start(dns.records(records))
    }

    /// Follows the SRV records of `orders.example`.
    pub(crate) fn srv(dns: Dns) -> Self {
        Self::start(dns.records(Records::srv("{service}.example").unwrap()))
    }

    pub(crate) fn start(dns: Dns) -> Self {
        let (clock, manual) = Clock::manual();
        let dns = dns.clock(clock.clone()).rng(Rng::seeded(1));
        Self {
            updates: dns
                .time_limit(LIMIT)
                .resolve(&ServiceName::new("orders").unwrap()),
            clock,
            manual,
            pauses: Vec::new(),
        }
    }

    /// The next report, an error as its text with its causes; each pause before it passes at once.
    pub(crate) async fn report(&mut self) -> Result<Told, String> {
        let (clock, manual, pauses) = (&self.clock, &self.manual, &mut self.pauses);
        let mut next = pin!(self.updates.next());
        let next = poll_fn(|cx| {
            loop {
                if let Poll::Ready(item) = next.as_mut().poll(cx) {
                    return Poll::Ready(item);
                }
                let pause = manual.next_timer().map(|at| at.since(clock.now()));
                match pause.filter(|pause| *pause <= LONGEST_PAUSE) {
                    Some(pause) => {
                        pauses.push(pause);
                        manual.advance(pause);
                    }
                    None => return Poll::Pending,
                }
            }
        });
        let item = tokio::time::timeout(Duration::from_secs(60), next).await;
        let item = item.expect("a report in time").expect("it never ends");
        item.map(told).map_err(|error| chain(&error))
    }

    /// The last bytes of the addresses that the next report tells.
    pub(crate) async fn hosts(&mut self) -> Vec<u16> {
        let told = self.report().await.expect("an answer");
        let told = told.expect("there is such a service");
        told.iter().map(|(address, ..)| host(address)).collect()
    }

    pub(crate) async fn error(&mut self) -> String {
        self.report().await.expect_err("an error")
    }
}

fn host(address: &str) -> u16 {
    let ip: std::net::SocketAddrV4 = address.parse().unwrap();
    let [.., high, low] = ip.ip().octets();
    u16::from_be_bytes([high, low])
}

fn told(update: Update) -> Told {
    match update {
        Update::Absent => None,
        Update::Replace(all) => {
            let all = all.iter();
            let described = all.map(|e| (e.address().to_string(), e.priority(), e.weight().get()));
            Some(described.collect())
        }
        other => panic!("an answer of DNS is {other:?}"),
    }
}
