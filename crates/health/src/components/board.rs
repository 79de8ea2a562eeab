//! What is known of each component.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use tower_mesh_core::{
    Clock, Instant, Rng,
    sync::{Mutex, lock},
};

use crate::{
    components::{
        snapshot::{ComponentSnapshot, ComponentsSnapshot},
        status::{Criticality, Report, Status},
        trend::History,
    },
    probe::Check,
    schedule::Pace,
};

/// Makes the future that asks a component.
pub(crate) type Ask = Arc<dyn Fn() -> Check<Report> + Send + Sync>;

/// What handles and driver share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) pace: Pace,
    pub(crate) capacity: usize,
    board: Mutex<Board>,
}

#[derive(Default)]
pub(crate) struct Board {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// What the driver has not begun to ask, and what it is to ask no longer.
    new: VecDeque<(u64, Ask)>,
    gone: Vec<u64>,
    closed: bool,
    waker: Option<Waker>,
}

struct Entry {
    name: Arc<str>,
    criticality: Criticality,
    status: Status,
    since: Instant,
    reported: Option<Instant>,
    error: Option<(Arc<str>, Instant)>,
    history: History,
}

/// What the driver has to do.
pub(crate) struct Orders {
    pub(crate) new: VecDeque<(u64, Ask)>,
    pub(crate) gone: Vec<u64>,
}

impl Shared {
    pub(crate) fn new(clock: Clock, rng: Rng, pace: Pace, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            clock,
            rng,
            pace,
            capacity,
            board: Mutex::default(),
        })
    }

    /// A place on the board, or why there is none.
    pub(crate) fn insert<E>(
        &self,
        name: &Arc<str>,
        criticality: Criticality,
        ask: Option<Ask>,
        full: impl FnOnce() -> E,
        taken: impl FnOnce() -> E,
    ) -> Result<u64, E> {
        let now = self.clock.now();
        self.change(|board| {
            if board.entries.values().any(|entry| entry.name == *name) {
                return Err(taken());
            }
            if board.entries.len() >= self.capacity {
                return Err(full());
            }
            board.next += 1;
            let entry = Entry {
                name: Arc::clone(name),
                criticality,
                status: Status::Unhealthy,
                since: now,
                reported: None,
                error: None,
                history: History::default(),
            };
            board.entries.insert(board.next, entry);
            board.new.extend(ask.map(|ask| (board.next, ask)));
            Ok(board.next)
        })
    }

    pub(crate) fn remove(&self, id: u64) {
        let unasked = self.change(|board| {
            board.entries.remove(&id);
            board.gone.push(id);
            let place = board.new.iter().position(|(new, _)| *new == id)?;
            board.new.remove(place)
        });
        drop(unasked); // Not under the lock: what it asks with is user code.
    }

    pub(crate) fn close(&self) {
        self.change(|board| board.closed = true);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let (changed, waker) = {
            let mut board = lock(&self.board);
            (change(&mut board), board.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        changed
    }

    /// What the driver has to do; nothing if it is to end.
    pub(crate) fn orders(&self, waker: &Waker) -> Option<Orders> {
        let new = waker.clone();
        let mut board = lock(&self.board);
        let old = board.waker.replace(new);
        let orders = Orders {
            new: std::mem::take(&mut board.new),
            gone: std::mem::take(&mut board.gone),
        };
        let closed = board.closed;
        drop(board);
        drop(old); // Not under the lock: a waker is user code.
        (!closed).then_some(orders)
    }

    /// Takes a report, and logs it if it is a change.
    pub(crate) fn report(&self, id: u64, report: Report) {
        let now = self.clock.now();
        let mut board = lock(&self.board);
        let Some(entry) = board.entries.get_mut(&id) else {
            return;
        };
        let is_first = entry.reported.is_none();
        let before = std::mem::replace(&mut entry.status, report.status);
        entry.reported = Some(now);
        entry.history.push(report.status);
        if let Some(error) = &report.error {
            entry.error = Some((Arc::clone(error), now));
        }
        let (name, status) = (Arc::clone(&entry.name), report.status);
        if before == status && !(is_first && status == Status::Unhealthy) {
            return;
        }
        entry.since = now;
        drop(board);
        log(&name, is_first, status, report.error.as_deref());
    }

    pub(crate) fn snapshot(&self) -> ComponentsSnapshot {
        let now = self.clock.now();
        let board = lock(&self.board);
        let mut components: Vec<_> = board.entries.values().map(|e| e.snapshot(now)).collect();
        let (status, ready) = board.overall();
        drop(board);
        components.sort_by(|a, b| a.name.cmp(&b.name));
        ComponentsSnapshot {
            status,
            ready,
            components,
        }
    }

    pub(crate) fn overall(&self) -> (Status, bool) {
        lock(&self.board).overall()
    }
}

impl Board {
    fn overall(&self) -> (Status, bool) {
        let weigh = |entry: &Entry| entry.criticality.weigh(entry.status);
        let worst = self.entries.values().map(weigh).max();
        let worst = worst.unwrap_or(Status::Healthy);
        (worst, worst != Status::Unhealthy)
    }
}

impl Entry {
    fn snapshot(&self, now: Instant) -> ComponentSnapshot {
        ComponentSnapshot {
            name: Arc::clone(&self.name),
            criticality: self.criticality,
            status: self.status,
            trend: self.history.trend(),
            age: self.reported.map(|at| now.since(at)),
            since: now.since(self.since),
            last_error: self.error.as_ref().map(|(error, _)| Arc::clone(error)),
            last_error_age: self.error.as_ref().map(|(_, at)| now.since(*at)),
        }
    }
}

fn log(component: &str, is_first: bool, status: Status, error: Option<&str>) {
    let error = error.unwrap_or_default();
    match status {
        // That all is well from the beginning is no news.
        Status::Healthy if is_first => {}
        Status::Healthy => tracing::info!(component, "component healthy again"),
        Status::Degraded => tracing::warn!(component, error, "component degraded"),
        Status::Unhealthy => tracing::warn!(component, error, "component unhealthy"),
    }
}
