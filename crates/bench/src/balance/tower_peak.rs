//! Tower's own balancer: P2C over peak-EWMA, as `tower::balance` and `tower::load` ship it.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::Stream;
use tokio::runtime::Builder;
use tower::{
    balance::p2c::Balance,
    discover::Change,
    load::{CompleteOnResponse, PeakEwma},
    util::rng::Rng,
};
use tower_mesh_sim::{Call, Connection, Policy, Seat};

use super::cell::{self, Cell, Measured};

/// Finagle's and linkerd's decay; tower has no default of its own.
const DECAY: Duration = Duration::from_secs(10);
/// Linkerd's guess of an endpoint that has not answered yet.
const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// Runs the cell on tokio's paused clock, which is the one that tower reads.
pub(super) fn measure(cell: &Cell) -> Measured {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a thread to run on");
    let _entered = runtime.enter();
    cell::measure(cell, Tower::default())
}

type Server = PeakEwma<Connection, CompleteOnResponse>;

#[derive(Default)]
struct Tower {
    feeds: Vec<Feed>,
}

impl Policy for Tower {
    type Service = Balance<Feed, Call>;

    fn client(&mut self, seat: &Seat) -> Self::Service {
        let feed = Feed::default();
        feed.catch_up(seat);
        self.feeds.push(feed.clone());
        Balance::from_rng(feed, Seeded(seat.rng().clone()))
    }

    fn changed(&mut self, seat: &Seat, _: &mut Self::Service) {
        self.feeds[seat.client()].catch_up(seat);
    }

    fn advance(&mut self, by: Duration) {
        // Tokio moves its clock in the first poll; what follows lets tasks run, and there are none.
        let _ = pin!(tokio::time::advance(by)).poll(&mut Context::from_waker(Waker::noop()));
    }
}

struct Seeded(tower_mesh::core::Rng);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Tells a balancer which servers there are.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<News>>);

#[derive(Default)]
struct News {
    told: usize,
    changes: Vec<Change<usize, Server>>,
    waker: Option<Waker>,
}

impl Feed {
    /// Tells of those that have joined; none leaves here.
    fn catch_up(&self, seat: &Seat) {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for member in &seat.members()[news.told..] {
            let connection = seat.connect(member.server);
            let decay = DECAY.as_nanos() as f64;
            let server = PeakEwma::new(
                connection,
                DEFAULT_RTT,
                decay,
                CompleteOnResponse::default(),
            );
            news.changes.push(Change::Insert(member.server, server));
        }
        news.told = seat.members().len();
        if let Some(waker) = news.waker.take() {
            waker.wake();
        }
    }
}

impl Stream for Feed {
    type Item = Result<Change<usize, Server>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match news.changes.pop() {
            Some(change) => Poll::Ready(Some(Ok(change))),
            None => {
                news.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
