//! What the peers do to who calls, waits or is one key of many.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroUsize},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use allocation_counter::measure;
use recloser::Recloser;
use tokio_test::task::spawn;
use tower::{
    Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn, util::BoxCloneService,
};
use tower_mesh_breaker::{BreakerLayer, CircuitBreakerRegistry, Window};
use tower_mesh_core::{Clock, Outcome};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use super::{ask_peer, resilience};
use crate::{Ask, MS, S, after, answer, ask, service};

/// Whether a call ends that the classifier of a call makes through its own breaker.
fn a_call_within_a_classifier_ends<E: 'static>(
    make: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> BoxCloneService<Ask, &'static str, E>,
) -> bool {
    let again = Arc::new(Mutex::new(None::<BoxCloneService<_, _, E>>));
    let ended = Arc::new(Mutex::new(None));
    let mut service = {
        let (again, ended) = (Arc::clone(&again), Arc::clone(&ended));
        make(Box::new(move || {
            let first = again.lock().expect("no panic").take();
            if let Some(mut service) = first {
                let answer = ask_peer(&mut service, Ask::Succeed);
                *ended.lock().expect("no panic") = Some(answer.is_some());
            }
        }))
    };
    *again.lock().expect("no panic") = Some(service.clone());
    assert_eq!(ask_peer(&mut service, Ask::Succeed), Some(true));
    let ended = ended.lock().expect("no panic").take();
    ended.expect("the classifier was asked")
}

#[test]
fn flaw_t7_a_classifier_is_called_under_no_lock() {
    type Fault = dyn std::error::Error + Send + Sync + 'static;

    let ours = a_call_within_a_classifier_ends(|hook| {
        let hook: Arc<dyn Fn() + Send + Sync> = hook.into();
        let classify = move |_: Result<&&'static str, &Fault>| {
            hook();
            Outcome::success()
        };
        let layer = BreakerLayer::new(after(1)).classify(classify);
        BoxCloneService::new(layer.layer(service_fn(answer)))
    });
    assert!(ours);

    let theirs = a_call_within_a_classifier_ends(|hook| {
        let classify = move |_: &Result<&'static str, std::io::Error>| {
            hook();
            false
        };
        let config = resilience().failure_classifier(classify);
        let (layer, _) = config.build_with_handle().expect("it is valid");
        BoxCloneService::new(layer.layer(service_fn(answer)))
    });
    assert!(!theirs, "it waits for the lock under which it was asked");
}

/// So many callers of a breaker that is half open and whose one probe is out: how often they are woken in the next
/// 50 ms, and how many at once.
async fn wakes_of_waiters<S>(mut service: S) -> (usize, usize)
where
    S: Service<Ask> + Clone,
{
    ask_peer(&mut service, Ask::Fail);
    tokio::time::advance(S).await;
    let mut prober = service.clone();
    let mut probe = spawn(prober.call(Ask::Hang));
    assert!(probe.poll().is_pending());
    let mut waiters: Vec<_> = (0..100)
        .map(|_| spawn(service.clone().oneshot(Ask::Succeed)))
        .collect();
    waiters.retain_mut(|waiter| match waiter.poll() {
        Poll::Ready(answer) => {
            assert!(answer.is_err(), "a second probe");
            false
        }
        Poll::Pending => true,
    });
    let (mut wakes, mut at_once) = (0, 0);
    for _ in 0..50 {
        tokio::time::advance(MS).await;
        let mut woken = 0;
        for waiter in waiters.iter_mut().filter(|waiter| waiter.is_woken()) {
            woken += 1;
            assert!(waiter.poll().is_pending(), "the probe is still out");
        }
        wakes += woken;
        at_once = at_once.max(woken);
    }
    (wakes, at_once)
}

#[tokio::test(start_paused = true)]
async fn flaw_t11_nobody_waits_on_a_timer_of_his_own_for_a_breaker_to_close() {
    let ours = service(&BreakerLayer::new(after(1)));
    assert_eq!(wakes_of_waiters(ours).await, (0, 0), "they were refused");

    let theirs = CircuitBreakerLayer::builder()
        .wait_duration_in_open(Duration::ZERO)
        .consecutive_failures(1)
        .permitted_calls_in_half_open(1)
        .backpressure();
    let (layer, _) = theirs.build_with_handle().expect("it is valid");
    let (wakes, at_once) = wakes_of_waiters(layer.layer(service_fn(answer))).await;
    assert_eq!(at_once, 100, "all of them");
    assert!(wakes >= 1_000, "again and again: {wakes}");
}

/// Allocations of a hundred calls.
fn allocations<S: Service<Ask>>(mut service: S) -> u64 {
    ask_peer(&mut service, Ask::Succeed);
    let cost = measure(|| {
        for _ in 0..100 {
            assert_eq!(ask_peer(&mut service, Ask::Succeed), Some(true));
        }
    });
    cost.count_total
}

#[test]
fn flaw_t27_a_call_needs_no_box() {
    assert_eq!(allocations(service(&BreakerLayer::default())), 0);

    let (theirs, _) = resilience().build_with_handle().expect("it is valid");
    assert!(allocations(theirs.layer(service_fn(answer))) >= 100);
}

/// Whether others can call a service for one at a time while a call is made but nobody has polled it.
fn a_call_that_nobody_polls_keeps_nobody_waiting<S>(mut service: S) -> bool
where
    S: Service<Ask> + Clone,
{
    let mut other = service.clone();
    assert!(spawn(service.ready()).poll().is_ready());
    let made = service.call(Ask::Succeed);
    let answer = ask_peer(&mut other, Ask::Succeed);
    drop(made);
    answer == Some(true)
}

#[test]
fn flaw_t27_a_call_that_nobody_polls_holds_nothing_of_the_service() {
    let scarce = || ConcurrencyLimit::new(service_fn(answer), 1);
    let ours = BreakerLayer::default().layer(scarce());
    assert!(a_call_that_nobody_polls_keeps_nobody_waiting(ours));

    // The service that was made ready is moved into the box, and called when that is polled.
    let (theirs, _) = resilience().build_with_handle().expect("it is valid");
    assert!(!a_call_that_nobody_polls_keeps_nobody_waiting(
        theirs.layer(scarce())
    ));
}

/// Keyed breakers as seatbelt keeps them: in a map, each for ever.
#[derive(Default)]
struct Engines(BTreeMap<String, BreakerLayer>);

impl Engines {
    fn get_or_create(&mut self, key: &str) {
        self.0.entry(key.into()).or_default();
    }
}

/// How many breakers there are after a flood of keys, each used once.
fn after_a_flood_of_keys(mut get_or_create: impl FnMut(&str) -> usize) -> usize {
    let kept = (0..10_000).map(|key| get_or_create(&key.to_string()));
    kept.max().unwrap_or(0)
}

#[test]
fn flaw_b2_breakers_by_key_are_bounded() {
    let (clock, time) = Clock::manual();
    let registry = CircuitBreakerRegistry::new(after(1))
        .clock(clock)
        .capacity(NonZeroUsize::new(100).expect("not zero"));
    let ours = after_a_flood_of_keys(|key| {
        time.advance(MS);
        registry.get_or_create(key).expect("room is made");
        registry.len()
    });
    assert_eq!(ours, 100);

    let mut engines = Engines::default();
    let theirs = after_a_flood_of_keys(|key| {
        engines.get_or_create(key);
        engines.0.len()
    });
    assert_eq!(theirs, 10_000);
}

/// Whether a breaker with the smallest window that can be said survives its first call.
fn survives_its_first_call(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_ok()
}

#[test]
fn flaw_f3_the_smallest_window_does_not_panic() {
    let none = NonZeroU16::new(0);
    assert!(none.is_none(), "a window of no calls cannot be said");
    for window in [Window::last(NonZeroU16::MIN), Window::over(Duration::ZERO)] {
        let layer = BreakerLayer::new(after(1).window(window));
        assert!(survives_its_first_call(|| {
            let _ = ask(&mut service(&layer), Ask::Fail);
        }));
    }

    let theirs = Recloser::custom().closed_len(0).build();
    assert!(!survives_its_first_call(|| {
        let _ = theirs.call(|| Err::<(), _>(()));
    }));
}
