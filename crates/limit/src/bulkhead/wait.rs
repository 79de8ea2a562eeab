//! Waiting for a permit.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Instant, Sent,
    frame::{self, Call, Phase},
};

use super::{
    permits::{Entry, Ticket},
    pool::{Permit, Pool},
};
use crate::deadline::DeadlineExceeded;

pin_project! {
    /// Waits for a permit, in the order of arrival, until the bulkhead's longest wait or the deadline of the call.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives its place in the queue to the next, or the permit if its turn had just come.
    pub(super) struct Wait {
        pool: Arc<Pool>,
        turn: Option<Turn>,
        #[pin]
        call: Call,
    }

    impl PinnedDrop for Wait {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(turn) = this.turn.take() {
                drop(turn.give_up(this.pool));
            }
        }
    }
}

/// A place in the queue, and how long it is worth keeping.
#[derive(Clone, Copy)]
struct Turn {
    ticket: Ticket,
    since: Instant,
    until: Instant,
    end: End,
}

/// What ends the wait at `until`.
#[derive(Clone, Copy)]
enum End {
    Bulkhead,
    Deadline,
}

impl Wait {
    /// Will wait, once polled.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            turn: None,
            call: Call::new(),
        }
    }
}

impl Future for Wait {
    type Output = Result<Permit, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (pool, slot) = (&*this.pool, this.turn);
        let clock = &pool.settings.clock;
        this.call.poll_joined(clock, cx, |cx| {
            let turn = match *slot {
                Some(turn) if pool.permits.is_turn(turn.ticket, cx.waker().clone()) => {
                    *slot = None;
                    frame::enter(Phase::Attempt, frame::now(clock));
                    return Poll::Ready(Ok(Permit::taken(Arc::clone(pool))));
                }
                Some(turn) => turn,
                None => match Turn::take(pool, cx) {
                    Ok(turn) => *slot.insert(turn),
                    Err(entered) => return Poll::Ready(entered),
                },
            };
            if frame::fired(turn.until) {
                *slot = None;
                return Poll::Ready(turn.expire(pool));
            }
            frame::wake_at(turn.until);
            Poll::Pending
        })
    }
}

impl Turn {
    /// Takes a place in the queue, unless a permit has become free, or waiting cannot help.
    fn take(pool: &Arc<Pool>, cx: &Context<'_>) -> Result<Self, Result<Permit, BoxError>> {
        let settings = &pool.settings;
        let since = frame::now(&settings.clock);
        let longest = since + settings.max_wait;
        let (until, end) = match frame::deadline() {
            Some(deadline) if deadline <= longest => (deadline, End::Deadline),
            _ => (longest, End::Bulkhead),
        };
        if until <= since {
            pool.count_refused();
            return Err(Err(DeadlineExceeded::already().into()));
        }
        let priority = settings.priority();
        let entry = pool
            .permits
            .enter(cx.waker().clone(), settings.places(priority), priority);
        match entry {
            Entry::Admitted => Err(Ok(Permit::taken(Arc::clone(pool)))),
            Entry::Full => Err(Err(pool.refuse().into())),
            Entry::Queued(ticket) => {
                frame::enter(Phase::Queue, since);
                Ok(Self {
                    ticket,
                    since,
                    until,
                    end,
                })
            }
        }
    }

    /// Leaves the queue; a permit that had just been handed to it comes back.
    fn give_up(self, pool: &Arc<Pool>) -> Option<Permit> {
        (!pool.permits.leave(self.ticket)).then(|| Permit::taken(Arc::clone(pool)))
    }

    /// Ends the wait, because its time is up.
    fn expire(self, pool: &Arc<Pool>) -> Result<Permit, BoxError> {
        if let Some(permit) = self.give_up(pool) {
            frame::enter(Phase::Attempt, self.until);
            return Ok(permit);
        }
        let waited = self.until.since(self.since);
        Err(match self.end {
            End::Bulkhead => pool.give_up(waited).into(),
            End::Deadline => {
                pool.count_timed_out();
                DeadlineExceeded::after(waited, frame::spent(self.until), Sent::Never).into()
            }
        })
    }
}
