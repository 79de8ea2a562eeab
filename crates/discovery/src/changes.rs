//! The endpoints of a service as tower's own balancer wants them.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::task::AtomicWaker;
use tower::discover::Change;
use tower_mesh_core::{Endpoint, EndpointSet, Endpoints, NewService, Subscriber};

use crate::discovery::Discovery;

/// Follows the endpoints of a service as tower's [`Discover`](tower::discover::Discover): what
/// [`Balance`](https://docs.rs/tower/latest/tower/balance/p2c/struct.Balance.html) reads.
///
/// An endpoint is inserted when it appears and removed when it goes. One that is merely described anew, with another
/// weight for example, is not touched, so its connections stay; one that went and came back is inserted anew.
///
/// It never fails and never ends, because tower's balancer dies of an error and there is always a last known set.
#[must_use = "streams do nothing unless polled"]
pub struct Changes<N> {
    endpoints: Endpoints,
    news: Arc<News>,
    new_service: N,
    seen: u64,
    known: HashSet<Endpoint>,
    steps: VecDeque<Step>,
    /// The driver lives as long as there is a handle.
    _discovery: Discovery,
}

/// What is to be said before the next look at the set.
enum Step {
    Remove(Endpoint),
    Insert(Endpoint),
}

/// Wakes the stream.
struct News(AtomicWaker);

impl Subscriber for News {
    fn changed(&self, _: &EndpointSet) {
        self.0.wake();
    }
}

impl<N: NewService<Endpoint>> Changes<N> {
    pub(crate) fn new(discovery: Discovery, endpoints: Endpoints, new_service: N) -> Self {
        let news = Arc::new(News(AtomicWaker::new()));
        endpoints.subscribe(&news);
        Self {
            endpoints,
            news,
            new_service,
            seen: 0,
            known: HashSet::new(),
            steps: VecDeque::new(),
            _discovery: discovery,
        }
    }

    fn next_change(&mut self) -> Option<Change<Endpoint, N::Service>> {
        // A step is done when it is done: if `new_service` panics, the endpoint is still to be inserted.
        let change = match self.steps.front()? {
            Step::Remove(endpoint) => {
                self.known.remove(endpoint);
                Change::Remove(endpoint.clone())
            }
            Step::Insert(endpoint) => {
                let service = self.new_service.new_service(endpoint);
                self.known.replace(endpoint.clone());
                Change::Insert(endpoint.clone(), service)
            }
        };
        self.steps.pop_front();
        Some(change)
    }

    fn compare(&mut self) {
        let set = self.endpoints.current();
        let stays: HashSet<&Endpoint> = set.endpoints().iter().collect();
        let gone = self.known.iter().filter(|known| !stays.contains(known));
        self.steps.extend(gone.cloned().map(Step::Remove));
        let new = set.endpoints().iter().filter(|endpoint| {
            let known = self.known.get(endpoint);
            known.is_none_or(|known| !Arc::ptr_eq(known.vitals(), endpoint.vitals()))
        });
        self.steps.extend(new.cloned().map(Step::Insert));
        self.seen = set.revision();
    }
}

/// Nothing in it is pinned; tower's balancer asks for it.
impl<N> Unpin for Changes<N> {}

impl<N: NewService<Endpoint>> Stream for Changes<N> {
    type Item = Result<Change<Endpoint, N::Service>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(change) = this.next_change() {
                return Poll::Ready(Some(Ok(change)));
            }
            // Registered before the look, so a change in between wakes.
            this.news.0.register(cx.waker());
            if this.endpoints.current().revision() == this.seen {
                return Poll::Pending;
            }
            this.compare();
        }
    }
}

impl<N> fmt::Debug for Changes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("endpoints", &self.endpoints)
            .field("seen", &self.seen)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}
