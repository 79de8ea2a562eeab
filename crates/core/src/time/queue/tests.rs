use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::time::Clock;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1 << 60) + Duration::from_millis(ms)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl std::task::Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Caller {
    woken: Arc<Counter>,
    place: Place,
    at: Instant,
}

impl Caller {
    fn new(queue: &'static Queue, at: Instant) -> Self {
        Self {
            woken: Arc::default(),
            place: queue.place(),
            at,
        }
    }

    fn poll(&mut self) -> Queued {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.place.poll(self.at, &mut Context::from_waker(&waker))
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// A queue with a driver that is woken by `driver`.
fn running(driver: &Arc<Counter>) -> &'static Queue {
    let queue = Queue::leak(1);
    queue.alarm.listen(&Waker::from(Arc::clone(driver)));
    assert_eq!(queue.look(at(0)), Instant::NEVER);
    queue
}

#[test]
fn what_is_due_fires_and_the_rest_is_looked_at_when_it_is() {
    let queue = running(&Arc::default());
    let mut callers = [30, 10, 20].map(|ms| Caller::new(queue, at(ms)));
    assert!(
        callers
            .iter_mut()
            .all(|caller| caller.poll() == Queued::Waits)
    );
    assert_eq!(queue.look(at(9)), at(10));
    assert_eq!(queue.look(at(20)), at(30));
    let [late, first, second] = &mut callers;
    assert_eq!([late.woken(), first.woken(), second.woken()], [0, 1, 1]);
    assert_eq!(first.poll(), Queued::Fired);
    assert_eq!(late.poll(), Queued::Waits);
    assert_eq!(queue.look(at(30)), Instant::NEVER);
    assert_eq!(late.poll(), Queued::Fired);
}

#[test]
fn only_a_timer_earlier_than_all_others_wakes_the_driver() {
    let driver = Arc::<Counter>::default();
    let queue = running(&driver);
    let mut callers = [20, 30, 10].map(|ms| Caller::new(queue, at(ms)));
    let mut woken = 0;
    let rings = callers.each_mut().map(|caller| {
        caller.poll();
        let before = std::mem::replace(&mut woken, driver.0.load(Ordering::Relaxed));
        queue.alarm.listen(&Waker::from(Arc::clone(&driver)));
        woken - before
    });
    assert_eq!(rings, [1, 0, 1]);
}

#[test]
fn a_timer_wakes_whoever_polled_it_last() {
    let queue = running(&Arc::default());
    let mut caller = Caller::new(queue, at(10));
    caller.poll();
    let before = std::mem::take(&mut caller.woken);
    caller.poll();
    queue.look(at(10));
    assert_eq!((before.0.load(Ordering::Relaxed), caller.woken()), (0, 1));
}

#[test]
fn a_timer_that_is_cancelled_leaves_its_place_to_the_next() {
    let queue = running(&Arc::default());
    for _ in 0..1_000 {
        let mut caller = Caller::new(queue, at(10));
        caller.poll();
    }
    let timers = lock(&queue.shards[0].0);
    assert!(timers.slots.is_empty());
    assert!(timers.slots.capacity() < 10);
}

#[test]
fn without_a_driver_nobody_waits() {
    let queue = running(&Arc::default());
    let mut caller = Caller::new(queue, at(10));
    assert_eq!(caller.poll(), Queued::Waits);
    queue.abandon();
    assert_eq!(caller.woken(), 1);
    assert_eq!(caller.poll(), Queued::Abandoned);
    assert_eq!(Caller::new(queue, at(10)).poll(), Queued::Abandoned);
    assert_eq!(
        Caller::new(Queue::leak(1), at(10)).poll(),
        Queued::Abandoned
    );
}

#[test]
fn the_next_driver_takes_over_who_still_waits() {
    let queue = running(&Arc::default());
    let mut caller = Caller::new(queue, at(10));
    caller.poll();
    queue.abandon();
    queue.alarm.listen(Waker::noop());
    assert_eq!(queue.look(at(5)), at(10));
    assert_eq!(caller.poll(), Queued::Waits);
    queue.look(at(10));
    assert_eq!(caller.woken(), 2);
    assert_eq!(caller.poll(), Queued::Fired);
}

#[test]
fn looking_takes_no_more_than_its_share_and_nothing_while_no_timer_waits() {
    assert_eq!(again(at(100), at(0), at(1)), at(100));
    assert_eq!(again(at(2), at(0), at(1)), at(21));
    assert_eq!(again(Instant::NEVER, at(0), at(1)), Instant::NEVER);
}

// On the real clock, as neither of the two can be paused: it waits for what has to happen, and measures nothing.
#[tokio::test]
async fn timers_of_the_system_clock_fire_with_its_driver_and_without() {
    let (clock, driver) = Clock::system();
    clock.sleep(Duration::from_millis(1)).await;
    let driver = tokio_test::task::spawn(driver);
    let mut first = Box::pin(clock.sleep(Duration::from_millis(1)));
    let mut second = Box::pin(clock.sleep(Duration::from_millis(2)));
    tokio::select! {
        () = &mut first => {}
        () = driver.into_inner() => unreachable!("it never completes"),
    }
    second.as_mut().await;
}
