//! Waiting for a permit: in which order, for how long, and who is woken.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tower_layer::Layer;
use tower_mesh_core::{
    Clock, Kind, ManualClock, Refusal, Sent,
    frame::{self, Phase},
};
use tower_mesh_limit::{
    BulkheadHandle, BulkheadLayer, DeadlineExceeded, DeadlineLayer, Overloaded,
};
use tower_service::Service;

use crate::{Ask, Inner, MS, Now, OVERLOADED, SECOND, Switch, bulkhead, call, non_zero, poll};

/// One permit, this many places to wait, and a clock that stands still.
fn narrow(places: usize) -> (BulkheadLayer, Clock, ManualClock) {
    let (clock, time) = Clock::manual();
    (bulkhead(1).queue(places).clock(clock.clone()), clock, time)
}

#[test]
fn those_who_wait_come_in_in_their_order_and_nobody_overtakes() {
    let (layer, _, _) = narrow(2);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut first = call(&mut service, Ask::Later(1));
    let mut second = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut first), Now::Pending);
    assert_eq!(poll(&mut second), Now::Pending);
    assert_eq!(layer.handle().snapshot().waiting, 2);

    assert_eq!(poll(&mut running), Now::Answered);
    assert!(first.is_woken() && !second.is_woken());
    assert_eq!(
        poll(&mut second),
        Now::Pending,
        "woken or not, it is not its turn"
    );
    assert_eq!(poll(&mut first), Now::Pending);
    assert_eq!(poll(&mut first), Now::Answered);
    assert!(second.is_woken());
    assert_eq!(poll(&mut second), Now::Answered);
    assert_eq!(layer.handle().snapshot().in_use, 0);
}

#[test]
fn a_newcomer_does_not_take_the_permit_of_one_who_was_woken() {
    let (layer, _, _) = narrow(1);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    assert_eq!(poll(&mut running), Now::Answered);
    let mut newcomer = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut newcomer), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Answered);
    assert_eq!(poll(&mut newcomer), Now::Answered);
}

#[test]
fn the_queue_is_bounded() {
    let (layer, _, _) = narrow(1);
    let mut service = layer.layer(Inner::default());
    let mut tasks = [Ask::Never, Ask::Answer].map(|ask| call(&mut service, ask));
    assert!(tasks.iter_mut().all(|task| poll(task) == Now::Pending));
    let Poll::Ready(Err(error)) = call(&mut service, Ask::Answer).poll() else {
        panic!("the queue was full");
    };
    assert_eq!(
        error.to_string(),
        "overloaded: 1 calls may run at once and 1 wait, and do"
    );
    assert_eq!(layer.handle().snapshot().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_after_a_second_unless_told_otherwise() {
    let layer = bulkhead(1).queue(1);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    let clock = Clock::tokio();
    let start = clock.now();
    let error = service.call(Ask::Answer).await.unwrap_err();
    assert!(clock.now().since(start) < 1_002 * MS);
    let overloaded = error.downcast_ref::<Overloaded>().unwrap();
    assert_eq!(overloaded.waited(), SECOND);
    assert_eq!(
        error.to_string(),
        "overloaded: 1 calls may run at once, and its turn did not come in 1s"
    );
    let after = layer.handle().snapshot();
    assert_eq!((after.waiting, after.refused, after.timed_out), (0, 0, 1));
}

#[test]
fn one_who_gives_up_does_not_keep_the_next_from_coming_in() {
    let (layer, _, time) = narrow(2);
    let layer = layer.max_wait(10 * MS);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut early = call(&mut service, Ask::Answer);
    let mut late = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut early), Now::Pending);
    time.advance(9 * MS);
    assert_eq!(poll(&mut late), Now::Pending);
    time.advance(MS);
    assert!(early.is_woken() && !late.is_woken());
    assert_eq!(poll(&mut early), OVERLOADED);
    assert_eq!(time.timers(), 1, "of the one who still waits");
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(poll(&mut late), Now::Answered);
    assert_eq!(time.timers(), 0);
}

#[test]
fn a_permit_that_comes_when_the_time_is_up_is_taken() {
    let (layer, _, time) = narrow(1);
    let mut service = layer.max_wait(10 * MS).layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    time.advance(10 * MS);
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(poll(&mut waiting), Now::Answered);
}

#[test]
fn waiting_ends_at_the_deadline_of_the_call() {
    let (layer, clock, time) = narrow(1);
    let limited = layer.layer(Inner::default());
    let mut service = DeadlineLayer::new(10 * MS).clock(clock).layer(limited);
    let mut running = call(&mut service, Ask::When(Switch::default()));
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    time.advance(MS);
    assert_eq!(poll(&mut waiting), Now::Pending);
    assert_eq!(time.timers(), 2, "one a call");
    time.advance(10 * MS);
    let Poll::Ready(Err(error)) = waiting.poll() else {
        panic!("its time is up");
    };
    let exceeded = error.downcast_ref::<DeadlineExceeded>().unwrap();
    assert_eq!(exceeded.limit(), 10 * MS);
    assert_eq!(exceeded.spent().queue, 10 * MS);
    assert_eq!(exceeded.spent().phase, Phase::Queue);
    assert_eq!(
        error.to_string(),
        "deadline exceeded: the call had 10ms, of which 10ms waiting for a permit"
    );
    let after = layer.handle().snapshot();
    assert_eq!((after.waiting, after.timed_out), (0, 1));
}

#[test]
fn a_call_whose_deadline_has_passed_does_not_wait() {
    let (layer, clock, _) = narrow(1);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    let mut outer = pin!(frame::Call::new());
    let mut late = pin!(service.call(Ask::Answer));
    let mut cx = Context::from_waker(Waker::noop());
    let answer = outer.as_mut().poll(&clock, &mut cx, |cx| {
        frame::shorten_deadline(frame::now(&clock));
        late.as_mut().poll(cx)
    });
    let Poll::Ready(Err(error)) = answer else {
        panic!("nothing can come of waiting");
    };
    assert!(error.is::<DeadlineExceeded>());
    let after = layer.handle().snapshot();
    assert_eq!((after.waiting, after.refused), (0, 1));
}

#[test]
fn a_wait_of_zero_is_no_wait() {
    let (layer, _, time) = narrow(5);
    let mut service = layer.max_wait(Duration::ZERO).layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), OVERLOADED);
    assert_eq!(time.reads(), 0);
}

#[test]
fn the_longest_wait_there_is_does_not_overflow() {
    let (layer, _, time) = narrow(1);
    let mut service = layer.max_wait(Duration::MAX).layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    assert_eq!(time.timers(), 0);
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(poll(&mut waiting), Now::Answered);
}

#[test]
fn a_higher_limit_lets_in_all_it_has_room_for_in_their_order() {
    let (layer, _, _) = narrow(4);
    let handle = layer.handle();
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    let mut waiting: Vec<_> = (0..4).map(|_| call(&mut service, Ask::Never)).collect();
    for task in &mut waiting {
        assert_eq!(poll(task), Now::Pending);
    }
    handle.set_limit(non_zero(3));
    let woken: Vec<_> = waiting
        .iter()
        .map(tokio_test::task::Spawn::is_woken)
        .collect();
    assert_eq!(woken, [true, true, false, false]);
    let after = handle.snapshot();
    assert_eq!((after.in_use, after.waiting), (3, 2));

    handle.set_limit(non_zero(1));
    drop(waiting.remove(0));
    drop(waiting.remove(0));
    assert_eq!(handle.snapshot().waiting, 2, "still as many run as may");
    drop(running);
    assert!(waiting[0].is_woken() && !waiting[1].is_woken());
}

#[test]
fn one_who_goes_away_gives_the_permit_he_was_just_handed_to_the_next() {
    let (layer, _, _) = narrow(2);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    let mut first = call(&mut service, Ask::Answer);
    let mut second = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut first), Now::Pending);
    assert_eq!(poll(&mut second), Now::Pending);
    assert_eq!(poll(&mut running), Now::Answered);
    assert!(first.is_woken());
    drop(first);
    assert!(second.is_woken(), "I5: no lost wake-up");
    assert_eq!(poll(&mut second), Now::Answered);
}

#[test]
fn who_waits_never_wakes_himself() {
    let (layer, _, time) = narrow(1);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    for _ in 0..3 {
        assert_eq!(poll(&mut waiting), Now::Pending);
        time.advance(MS);
        assert!(!waiting.is_woken());
    }
    assert_eq!(
        time.timers_registered(),
        1,
        "armed once, however often it is polled"
    );
}

/// Looks at the bulkhead whenever it is woken or dropped: hangs if that happens under its lock.
struct Nosy(BulkheadHandle, Arc<AtomicUsize>);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(self.0.snapshot().limit, SeqCst);
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.1.fetch_add(self.0.snapshot().limit, SeqCst);
    }
}

fn poll_with(waker: Waker, future: Pin<&mut impl Future>) {
    let polled = future.poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
}

// I12
#[test]
fn wakers_are_woken_and_dropped_without_the_lock() {
    let (layer, _, _) = narrow(2);
    let layer = layer.max_wait(Duration::MAX); // No timer that holds the wakers, too.
    let looks = Arc::new(AtomicUsize::new(0));
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    let nosy = || Waker::from(Arc::new(Nosy(layer.handle(), Arc::clone(&looks))));
    let mut waiting = Box::pin(service.call(Ask::Answer));
    poll_with(nosy(), waiting.as_mut());
    poll_with(nosy(), waiting.as_mut());
    assert_eq!(looks.load(SeqCst), 1, "the first waker was replaced");
    let mut leaving = Box::pin(service.call(Ask::Answer));
    poll_with(nosy(), leaving.as_mut());
    drop(leaving);
    assert_eq!(looks.load(SeqCst), 2, "it left");
    drop(running);
    assert_eq!(looks.load(SeqCst), 4, "it was woken, and dropped");
    drop(waiting);
}

#[test]
fn who_waits_holds_nothing_of_the_inner_service() {
    let (layer, _, _) = narrow(1);
    let semaphore = tower::limit::ConcurrencyLimit::new(Inner::default(), 2);
    let mut service = layer.layer(semaphore.clone());
    let mut running = call(&mut service, Ask::Never);
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    let mut other = semaphore;
    let ready = tokio_test::task::spawn(std::future::poll_fn(|cx| other.poll_ready(cx))).poll();
    assert!(ready.is_ready(), "one of two is free");
}

#[test]
fn only_waiting_reads_the_clock() {
    let (layer, _, time) = narrow(1);
    let mut service = layer.layer(Inner::default());
    let mut running = call(&mut service, Ask::Later(1));
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!((time.reads(), time.timers_registered()), (0, 0));
}

#[test]
fn the_time_after_the_wait_is_the_services() {
    let (layer, clock, time) = narrow(1);
    let limited = layer.layer(Inner::default());
    let mut service = DeadlineLayer::new(10 * MS).clock(clock).layer(limited);
    let mut running = call(&mut service, Ask::Later(1));
    let mut waiting = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    time.advance(4 * MS);
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(poll(&mut waiting), Now::Pending);
    time.advance(6 * MS);
    let Poll::Ready(Err(error)) = waiting.poll() else {
        panic!("its time is up");
    };
    assert_eq!(Refusal::of(&*error).map(Refusal::sent), Some(Sent::Maybe));
    assert_eq!(
        error.to_string(),
        "deadline exceeded: the call had 10ms, of which 4ms waiting for a permit, \
         6ms in the service"
    );
}

#[test]
fn the_wait_was_surely_not_sent() {
    let (layer, clock, time) = narrow(1);
    let limited = layer.max_wait(SECOND).layer(Inner::default());
    let mut service = DeadlineLayer::new(2 * SECOND).clock(clock).layer(limited);
    let mut running = call(&mut service, Ask::Never);
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut waiting), Now::Pending);
    time.advance(SECOND);
    assert_eq!(
        poll(&mut waiting),
        Now::Refused(Kind::Overloaded, Sent::Never)
    );
}
