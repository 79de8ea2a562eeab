use std::{
    cell::RefCell,
    panic,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use super::*;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn a_call_that_completes_reads_the_clock_twice_however_many_layers_ask() {
    let (clock, handle) = Clock::manual();
    let call = pin!(Call::new());
    let out = call.poll(&clock, &mut cx(), |_| {
        let start = now(&clock);
        assert_eq!(now(&clock), start);
        assert!(
            hidden(|| {
                handle.advance(Duration::from_millis(7));
                Poll::Ready(())
            })
            .is_ready()
        );
        assert_eq!(now(&clock).since(start), Duration::from_millis(7));
        assert_eq!(now(&clock).since(start), Duration::from_millis(7));
        Poll::Ready(())
    });
    assert!(out.is_ready());
    assert_eq!(handle.reads(), 2);
}

#[test]
fn pending_user_code_does_not_cost_another_read() {
    let (clock, handle) = Clock::manual();
    let call = pin!(Call::new());
    let out: Poll<()> = call.poll(&clock, &mut cx(), |_| {
        now(&clock);
        let out = hidden(|| Poll::Pending);
        now(&clock);
        out
    });
    assert!(out.is_pending());
    assert_eq!(handle.reads(), 1);
}

#[test]
fn observed_reads_anew_only_if_nobody_beneath_has() {
    let (clock, handle) = Clock::manual();
    let call = pin!(Call::new());
    let _ = call.poll(&clock, &mut cx(), |_| {
        now(&clock);
        let _ = observed(|| {
            let out = hidden(|| Poll::Ready(()));
            now(&clock);
            out
        });
        now(&clock);
        assert_eq!(handle.reads(), 2, "a mesh layer beneath had read");
        let _ = observed(|| Poll::Ready(()));
        now(&clock);
        Poll::Ready(())
    });
    assert_eq!(handle.reads(), 3, "user code directly beneath had not");
}

#[test]
fn without_a_frame_every_function_is_harmless() {
    let (clock, handle) = Clock::manual();
    now(&clock);
    now(&clock);
    assert_eq!(handle.reads(), 2);
    wake_at(Instant::from_nanos(1));
    mark_tried(3);
    assert_eq!(deadline(), None);
    assert_eq!(
        shorten_deadline(Instant::from_nanos(9)),
        Instant::from_nanos(9)
    );
    assert_eq!(deadline(), None);
    assert!(!was_tried(3) && !fired(Instant::from_nanos(0)));
    assert_eq!(begin_attempt(Instant::from_nanos(9)), 1);
    assert_eq!(begin_attempt(Instant::from_nanos(9)), 1);
}

#[test]
fn the_nearest_wish_arms_the_one_timer_and_firing_polls_again_without_a_read() {
    let (clock, handle) = Clock::manual();
    let start = clock.now();
    let reads = handle.reads();
    let at = start + Duration::from_secs(1);
    let mut call = pin!(Call::new());
    let mut step = |_: &mut Context<'_>| {
        wake_at(start + Duration::from_secs(5));
        wake_at(at);
        if fired(at) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    };
    assert!(
        call.as_mut()
            .poll(&clock, &mut cx(), &mut step)
            .is_pending()
    );
    assert!(
        call.as_mut()
            .poll(&clock, &mut cx(), &mut step)
            .is_pending()
    );
    assert_eq!((handle.timers(), handle.timers_registered()), (1, 1));
    handle.advance(Duration::from_secs(1));
    assert!(call.as_mut().poll(&clock, &mut cx(), &mut step).is_ready());
    assert_eq!(handle.reads(), reads);
}

#[test]
fn facts_live_as_long_as_the_call_and_user_code_sees_none() {
    let (clock, _) = Clock::manual();
    let at = clock.now() + Duration::from_secs(1);
    let mut call = pin!(Call::new());
    let first: Poll<()> = call.as_mut().poll(&clock, &mut cx(), |_| {
        shorten_deadline(at);
        shorten_deadline(Instant::NEVER);
        mark_tried(42);
        begin_attempt(clock.now());
        hidden(|| {
            assert_eq!(deadline(), None);
            assert!(!was_tried(42));
            Poll::Pending
        })
    });
    assert!(first.is_pending());
    assert_eq!(deadline(), None);
    let _ = call.poll(&clock, &mut cx(), |_| {
        assert_eq!(deadline(), Some(at));
        assert!(was_tried(42));
        assert_eq!(begin_attempt(at), 2);
        assert!(is_retry());
        Poll::Ready(())
    });
}

#[test]
fn a_deadline_for_a_part_of_the_call_ends_with_that_part_even_by_panic() {
    let (clock, _) = Clock::manual();
    let at = clock.now() + Duration::from_secs(1);
    let near = at - Duration::from_millis(1);
    let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
        shorten_deadline(at);
        within(near, || assert_eq!(deadline(), Some(near)));
        assert_eq!(deadline(), Some(at));
        within(Instant::NEVER, || assert_eq!(deadline(), Some(at)));
        let part = || within(near, || panic!("user code"));
        assert!(panic::catch_unwind(part).is_err());
        assert_eq!(deadline(), Some(at));
        Poll::Ready(())
    });
    within(near, || assert_eq!(deadline(), None));
}

#[test]
fn a_call_inside_user_code_is_a_call_of_its_own() {
    let (clock, _) = Clock::manual();
    let at = clock.now() + Duration::from_secs(1);
    let outer = pin!(Call::new());
    let _ = outer.poll(&clock, &mut cx(), |_| {
        shorten_deadline(at);
        let out = hidden(|| {
            pin!(Call::new()).poll_joined(&clock, &mut cx(), |_| {
                assert_eq!(deadline(), None);
                shorten_deadline(at - Duration::from_millis(1));
                Poll::Ready(())
            })
        });
        assert_eq!(deadline(), Some(at));
        out
    });
}

#[test]
fn what_is_polled_with_a_waker_of_its_own_has_a_timer_of_its_own() {
    #[derive(Default)]
    struct Other(AtomicBool);

    impl Wake for Other {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (clock, handle) = Clock::manual();
    let at = clock.now() + Duration::from_secs(1);
    let other = Arc::new(Other::default());
    let waker = Waker::from(Arc::clone(&other));
    let (mut above, mut beneath) = (pin!(Call::new()), pin!(Call::new()));
    let _: Poll<()> = above.as_mut().poll(&clock, &mut cx(), |_| {
        let mut cx = Context::from_waker(&waker);
        beneath.as_mut().poll_joined(&clock, &mut cx, |_| {
            wake_at(at);
            Poll::Pending
        })
    });
    handle.advance(Duration::from_secs(1));
    assert!(other.0.load(Ordering::Relaxed));
}

#[test]
fn a_frame_of_another_clock_is_ignored() {
    let (clock, handle) = Clock::manual();
    let (other, other_handle) = Clock::manual();
    let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
        now(&clock);
        now(&other);
        now(&other);
        pin!(Call::new()).poll_joined(&other, &mut cx(), |_| {
            now(&other);
            Poll::Ready(now(&other))
        })
    });
    assert_eq!((handle.reads(), other_handle.reads()), (1, 3));
}

#[test]
fn a_panic_restores_what_was_open() {
    let (clock, _) = Clock::manual();
    let seen = RefCell::new(None);
    let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
        shorten_deadline(Instant::from_nanos(u64::MAX - 1));
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _: Poll<()> = hidden(|| {
                pin!(Call::new()).poll(&clock, &mut cx(), |_| {
                    timing_out(|| panic!("user code"));
                    Poll::Ready(())
                })
            });
        }));
        assert!(caught.is_err());
        *seen.borrow_mut() = deadline();
        assert!(!is_timing_out());
        Poll::Ready(())
    });
    assert_eq!(*seen.borrow(), Some(Instant::from_nanos(u64::MAX - 1)));
    assert_eq!(deadline(), None);
}

#[test]
fn the_time_of_a_call_is_told_by_phase() {
    let (clock, handle) = Clock::manual();
    let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
        let ms = Duration::from_millis;
        enter(Phase::Queue, clock.now());
        handle.advance(ms(5));
        enter(Phase::Attempt, clock.now());
        begin_attempt(clock.now());
        handle.advance(ms(20));
        enter(Phase::Backoff, clock.now());
        handle.advance(ms(3));
        let spent = spent(clock.now());
        assert_eq!(
            (
                spent.queue,
                spent.attempts,
                spent.backoff,
                spent.attempt,
                spent.phase
            ),
            (ms(5), ms(20), ms(3), 1, Phase::Backoff)
        );
        Poll::Ready(())
    });
}

fn poll_joined_to(
    clock: &Clock,
    cx: &mut Context<'_>,
    step: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Poll<()> {
    Joined::poll(pin!(()), clock, cx, step)
}

#[test]
fn a_layer_that_is_joined_shares_the_frame_of_the_one_above() {
    let (clock, handle) = Clock::manual();
    let out = pin!(Call::new()).poll(&clock, &mut cx(), |cx| {
        let start = now(&clock);
        poll_joined_to(&clock, cx, |_| {
            assert_eq!(now(&clock), start);
            Poll::Ready(())
        })
    });
    assert!(out.is_ready());
    assert_eq!(handle.reads(), 1);
}

#[test]
fn a_layer_that_is_joined_to_no_frame_of_its_clock_and_task_says_so_at_once() {
    let (clock, _) = Clock::manual();
    let (other, _) = Clock::manual();
    let refuses = |joined: &dyn Fn() -> Poll<()>| {
        let refused = panic::catch_unwind(panic::AssertUnwindSafe(joined));
        let what = refused.unwrap_err();
        let what = what.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(what.contains("one above opens the frame"), "{what}");
    };
    let never = |_: &mut Context<'_>| -> Poll<()> { unreachable!("it has no frame") };
    refuses(&|| poll_joined_to(&clock, &mut cx(), never));
    refuses(&|| pin!(Call::new()).poll(&other, &mut cx(), |cx| poll_joined_to(&clock, cx, never)));
    refuses(&|| {
        pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            let task = Waker::from(Arc::new(Unheard));
            poll_joined_to(&clock, &mut Context::from_waker(&task), never)
        })
    });
}

struct Unheard;

impl Wake for Unheard {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn user_code_sees_which_attempt_it_is_and_what_is_left_of_that_over_several_polls() {
    let (clock, handle) = Clock::manual();
    let ms = Duration::from_millis;
    assert_eq!((left(), attempt()), (None, 1));
    attempt_ends(clock.now());
    assert_eq!(left(), None, "there is no call");
    let mut call = pin!(Call::new());
    let _ = call.as_mut().poll(&clock, &mut cx(), |_| -> Poll<()> {
        let at = now(&clock);
        assert_eq!((left(), attempt()), (None, 1));
        begin_attempt(at);
        attempt_ends(at + ms(30));
        hide(|| assert_eq!((left(), attempt()), (Some(ms(30)), 1)));
        shorten_deadline(now(&clock) + ms(20));
        assert_eq!(left(), Some(ms(20)), "the nearer of the two");
        attempt_ends(at + ms(10));
        Poll::Pending
    });
    handle.advance(ms(4));
    let _ = call.as_mut().poll(&clock, &mut cx(), |_| -> Poll<()> {
        let at = now(&clock);
        let another = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            begin_attempt(now(&clock));
            Poll::Ready((left(), attempt()))
        });
        assert_eq!(another, Poll::Ready((None, 1)), "another call has its own");
        now(&clock);
        hide(|| assert_eq!((left(), attempt()), (Some(ms(6)), 1)));
        now(&clock);
        begin_attempt(at);
        attempt_ends(Instant::NEVER);
        hide(|| assert_eq!((left(), attempt()), (Some(ms(16)), 2)));
        Poll::Pending
    });
    assert_eq!((left(), attempt()), (None, 1));
}

#[test]
fn user_code_sees_what_is_left_of_the_deadline_and_nothing_else() {
    let (clock, handle) = Clock::manual();
    let ms = Duration::from_millis;
    assert_eq!(left(), None);
    let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
        shorten_deadline(clock.now() + ms(100));
        hide(|| assert_eq!(left(), None, "nobody knows what the time is"));
        now(&clock);
        handle.advance(ms(1));
        hide(|| {
            assert_eq!(left(), Some(ms(100)), "as of the reading");
            assert_eq!(deadline(), None);
            let inner = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
                now(&clock);
                Poll::Ready(left())
            });
            assert_eq!(inner, Poll::Ready(None), "another call has its own");
        });
        now(&clock);
        handle.advance(ms(200));
        hide(|| assert_eq!(left(), Some(ms(99))));
        now(&clock);
        hide(|| assert_eq!(left(), Some(Duration::ZERO)));
        Poll::Ready(())
    });
    assert_eq!(left(), None);
}
