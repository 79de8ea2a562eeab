//! All interleavings of two threads over the shipped code.

use std::{sync::Arc, task::Waker};

use loom::{future::block_on, thread};
use tower_mesh_core::Priority;

use super::*;
use crate::{
    adaptive::{Hears, Latencies},
    bulkhead::permits::{Entry, Ticket},
};

/// Lowers at each overload, and grows with each call.
#[derive(Debug)]
struct Nervous;

impl Algorithm for Nervous {
    fn hears(&self) -> Hears {
        Hears::Overloads
    }

    fn overloaded(&mut self, _: Usage, _: Round) -> Option<Move> {
        Some(Move::to(1, Why::Overload))
    }

    fn returned(&mut self, usage: Usage) -> Option<Move> {
        Some(Move::to(usage.limit + 1, Why::Growth))
    }

    fn is_calm(&self) -> bool {
        false
    }

    fn measured(&mut self, _: Usage, _: Latencies) -> Option<Move> {
        None
    }
}

const NOW: Instant = Instant::from_nanos(1 << 60);

fn controlled(max: usize) -> Arc<(Permits, Control)> {
    let permits = Permits::new(max);
    let control = Control::new(&Adaptive::new().algorithm(|| Nervous), &permits, NOW);
    Arc::new((permits, control))
}

fn overload((permits, control): &(Permits, Control)) {
    control.failed(permits, Outcome::timeout(), Duration::ZERO, NOW);
}

fn release((permits, control): &(Permits, Control)) {
    if let Some(out) = permits.release() {
        control.returned(permits, out, NOW);
    }
}

/// Takes a permit as a call does; hangs, and so fails the model, if its wake-up is lost.
fn acquire(permits: &Permits) {
    let mut queued: Option<Ticket> = None;
    block_on(std::future::poll_fn(|cx| {
        let waker: Waker = cx.waker().clone();
        let entered = match queued {
            Some(ticket) => permits.is_turn(ticket, waker),
            None => match permits.enter(waker, 1, Priority::Default) {
                Entry::Admitted => true,
                Entry::Queued(ticket) => {
                    queued = Some(ticket);
                    false
                }
                Entry::Full => unreachable!("there is a place"),
            },
        };
        match entered {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    }));
}

#[test]
fn who_waits_is_let_in_when_the_limit_grows() {
    loom::model(|| {
        let this = controlled(2);
        // Two run, and the limit is lowered to one: whoever waits then gets in by the first's end and the growth it brings.
        assert!(this.0.try_acquire() && this.0.try_acquire());
        overload(&this);
        let waiter = {
            let this = Arc::clone(&this);
            thread::spawn(move || {
                acquire(&this.0);
                release(&this);
            })
        };
        release(&this);
        waiter.join().unwrap();
        release(&this);
        assert_eq!(this.0.count().out, 0);
    });
}

#[test]
fn what_is_in_force_is_what_was_decided_last() {
    loom::model(|| {
        let this = controlled(3);
        assert!(this.0.try_acquire());
        overload(&this);
        let other = {
            let this = Arc::clone(&this);
            thread::spawn(move || overload(&this))
        };
        release(&this);
        other.join().unwrap();
        assert_eq!(this.0.count().limit, this.1.view().limit);
    });
}

#[test]
fn nobody_enters_above_a_limit_that_was_just_lowered() {
    loom::model(|| {
        let this = controlled(2);
        assert!(this.0.try_acquire());
        let other = {
            let this = Arc::clone(&this);
            thread::spawn(move || {
                if this.0.try_acquire() {
                    this.0.release();
                }
            })
        };
        overload(&this);
        assert!(!this.0.try_acquire(), "one runs, and no more may");
        other.join().unwrap();
        assert_eq!(this.0.count().out, 1);
    });
}
