//! All interleavings of two or three threads over the shipped code.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use loom::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use tower_mesh_core::Priority;

use super::{Count, Entry, Permits, Ticket};

const PLACES: usize = 2;

/// Takes a permit as `Wait` does; hangs, and so fails the model, if its wake-up is lost.
fn acquire(permits: &Permits) {
    let mut ticket = None;
    block_on(std::future::poll_fn(|cx| {
        poll_acquire(permits, &mut ticket, cx)
    }));
}

fn poll_acquire(permits: &Permits, ticket: &mut Option<Ticket>, cx: &Context<'_>) -> Poll<()> {
    let waker = cx.waker().clone();
    let entered = match *ticket {
        Some(ticket) => permits.is_turn(ticket, waker),
        None if permits.try_acquire() => true,
        None => match permits.enter(waker, PLACES, Priority::Default) {
            Entry::Admitted => true,
            Entry::Queued(place) => {
                *ticket = Some(place);
                false
            }
            Entry::Full => unreachable!("there are as many places as threads"),
        },
    };
    if entered {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

fn at_rest(permits: &Permits, limit: usize) {
    let (out, waiting) = (0, 0);
    assert_eq!(
        permits.count(),
        Count {
            limit,
            out,
            waiting
        }
    );
    assert!(permits.try_acquire(), "the mark was left behind");
}

#[test]
fn everybody_gets_in_and_never_more_than_the_limit() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        let inside = Arc::new(AtomicUsize::new(0));
        let run = move |permits: &Permits, inside: &AtomicUsize| {
            acquire(permits);
            assert_eq!(inside.fetch_add(1, SeqCst), 0);
            inside.fetch_sub(1, SeqCst);
            permits.release();
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (permits, inside) = (Arc::clone(&permits), Arc::clone(&inside));
                thread::spawn(move || run(&permits, &inside))
            })
            .collect();
        run(&permits, &inside);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        at_rest(&permits, 1);
    });
}

#[test]
fn who_leaves_the_queue_takes_no_wake_up_with_him() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        assert!(permits.try_acquire());
        let quitter = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                match permits.enter(Waker::noop().clone(), PLACES, Priority::Default) {
                    Entry::Queued(ticket) if permits.leave(ticket) => {}
                    Entry::Admitted | Entry::Queued(_) => assert_eq!(permits.release(), None),
                    Entry::Full => unreachable!("there are as many places as threads"),
                }
            })
        };
        let waiter = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                acquire(&permits);
                permits.release();
            })
        };
        permits.release();
        quitter.join().unwrap();
        waiter.join().unwrap();
        at_rest(&permits, 1);
    });
}

#[test]
fn a_higher_limit_lets_in_who_waits() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        assert!(permits.try_acquire());
        let waiter = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                acquire(&permits);
                permits.release();
            })
        };
        permits.resize(2);
        waiter.join().unwrap();
        permits.release();
        at_rest(&permits, 2);
    });
}

#[test]
fn after_the_limit_was_lowered_nobody_enters_above_it() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(2));
        let other = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                if permits.try_acquire() {
                    permits.release();
                }
            })
        };
        permits.resize(1);
        if permits.try_acquire() {
            assert_eq!(permits.count().out, 1);
            permits.release();
        }
        other.join().unwrap();
        at_rest(&permits, 1);
    });
}
