//! The queue under every order of two threads: a caller's and the driver's.

use std::{
    sync::{Arc, atomic},
    task::Wake,
};

use loom::thread;

use super::*;

const BEFORE: Instant = Instant::from_nanos((1 << 60) - 1);
const NOW: Instant = Instant::from_nanos(1 << 60);
const LATER: Instant = Instant::from_nanos((1 << 60) + 1);

/// Whether somebody was woken.
#[derive(Default)]
struct Flag(atomic::AtomicBool);

impl Flag {
    fn is_up(&self) -> bool {
        self.0.load(atomic::Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, atomic::Ordering::SeqCst);
    }
}

/// A queue whose driver has looked once, and will again now, for a timer that has been cancelled since.
fn running() -> &'static Queue {
    let queue = Queue::leak(1);
    queue.alarm.listen(Waker::noop());
    queue.look(BEFORE);
    let mut cancelled = queue.place();
    assert_eq!(poll(&mut cancelled, NOW, Waker::noop()), Queued::Waits);
    assert_eq!(queue.look(BEFORE), NOW);
    queue
}

fn poll(place: &mut Place, at: Instant, waker: &Waker) -> Queued {
    place.poll(at, &mut Context::from_waker(waker))
}

#[test]
fn a_timer_that_is_added_while_the_driver_looks_is_seen_or_wakes_it() {
    loom::model(|| {
        let queue = running();
        let driver = Arc::new(Flag::default());
        let looking = {
            let driver = Waker::from(Arc::clone(&driver));
            thread::spawn(move || {
                queue.alarm.listen(&driver);
                queue.look(NOW)
            })
        };
        let mut place = queue.place();
        assert_eq!(poll(&mut place, LATER, Waker::noop()), Queued::Waits);
        let next = looking.join().unwrap();
        assert!(next <= LATER || driver.is_up(), "{next:?}");
    });
}

#[test]
fn a_timer_that_is_added_while_the_driver_goes_is_woken_or_refused() {
    loom::model(|| {
        let queue = running();
        let caller = Arc::new(Flag::default());
        let going = thread::spawn(move || queue.abandon());
        let mut place = queue.place();
        let found = poll(&mut place, LATER, &Waker::from(Arc::clone(&caller)));
        going.join().unwrap();
        assert!(found == Queued::Abandoned || caller.is_up(), "{found:?}");
        assert_eq!(poll(&mut place, LATER, Waker::noop()), Queued::Abandoned);
    });
}

#[test]
fn a_timer_that_is_cancelled_while_it_fires_leaves_nothing() {
    loom::model(|| {
        let queue = running();
        let mut place = queue.place();
        assert_eq!(poll(&mut place, LATER, Waker::noop()), Queued::Waits);
        let firing = thread::spawn(move || queue.look(LATER));
        drop(place);
        firing.join().unwrap();
        assert!(lock(&queue.shards[0].0).slots.is_empty());
    });
}
