//! What holds while calls run, which an examination sees only at rest.

use std::{
    future::{Future, pending, ready},
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, layer::layer_fn, service_fn};
use tower_mesh::{
    core::{BoxError, Instant, Kind, Ratio, Refusal},
    limit::{BulkheadLayer, DeadlineLayer},
    retry::Budget,
};

use crate::support::{ATTEMPTS, DEADLINE, Kit, PER_TRY, Situation, breaker_of};

/// A service, and how often it was called.
fn counted<F>(
    answer: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (
    impl Service<(), Response = (), Error = BoxError, Future = F> + Clone + Send + Sync + 'static,
    Arc<AtomicU32>,
)
where
    F: Future<Output = Result<(), BoxError>> + 'static,
{
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let service = service_fn(move |()| {
        counter.fetch_add(1, Ordering::Relaxed);
        answer()
    });
    (service, calls)
}

// I1
#[test]
fn what_is_in_flight_is_what_runs_at_every_layer() {
    let kit = Kit::by_hand(Situation::Usual);
    let bulkhead = BulkheadLayer::new(NonZeroUsize::new(10).unwrap()).clock(kit.clock.clone());
    let permits = bulkhead.handle();
    let endpoints = kit.fleet(3);
    let (never, _) = counted(pending);
    let balance = kit.balance(&endpoints, never);
    let mut service = bulkhead.over(kit.retry().layer(balance));
    let in_flight = || {
        let set = endpoints.current();
        let each = set.endpoints().iter();
        let attempts: u32 = each.map(|e| e.vitals().load().in_flight()).sum();
        (permits.snapshot().in_use, attempts)
    };

    let mut calls: Vec<_> = (0..7).map(|_| task::spawn(service.call(()))).collect();
    assert_eq!(in_flight(), (0, 0), "they were not polled");
    for (before, call) in calls.iter_mut().enumerate() {
        assert_eq!(in_flight(), (before, before as u32));
        assert_pending!(call.poll());
    }
    for left in (0..7).rev() {
        calls.pop();
        assert_eq!(in_flight(), (left, left as u32));
    }
    kit.rests().unwrap();
}

// I2
#[test]
fn no_more_probes_are_out_than_there_are_places_whoever_asks() {
    let kit = Kit::by_hand(Situation::HalfOpen);
    let (never, calls) = counted(pending);
    let mut service = kit.breaker().layer(never.clone());
    let breaker = service.breaker().clone();
    let mut probe = task::spawn(service.call(()));
    assert_pending!(probe.poll());
    for _ in 0..10 {
        let refused = assert_ready!(task::spawn(service.call(())).poll()).unwrap_err();
        let refusal = Refusal::of(&*refused).map(Refusal::kind);
        assert_eq!(refusal, Some(Kind::CircuitOpen));
        assert_eq!(breaker.snapshot().probes_out, 1);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    drop(probe);
    assert_eq!(breaker.snapshot().probes_out, 0);

    // The same of endpoints: two of them have two places.
    let endpoints = kit.fleet(2);
    let mut balance = kit.balance(&endpoints, never);
    let mut probes: Vec<_> = (0..6).map(|_| task::spawn(balance.call(()))).collect();
    let waiting = probes.iter_mut().filter_map(|probe| match probe.poll() {
        Poll::Pending => None,
        Poll::Ready(answer) => Some(answer.unwrap_err()),
    });
    let refused: Vec<_> = waiting.collect();
    let kinds = refused
        .iter()
        .map(|error| Refusal::of(&**error).map(Refusal::kind));
    assert_eq!(kinds.collect::<Vec<_>>(), [Some(Kind::NoEndpoint); 4]);
    let out = |e| breaker_of(e).unwrap().snapshot().probes_out;
    let out: Vec<_> = endpoints.current().endpoints().iter().map(out).collect();
    assert_eq!(out, [1, 1]);

    // A lease that is over gives the place away once, however late the first comes back.
    kit.hand.advance(Duration::from_secs(31));
    let mut second = task::spawn(balance.call(()));
    assert_pending!(second.poll());
    drop(probes);
    let out = |e| breaker_of(e).unwrap().snapshot().probes_out;
    let out: u32 = endpoints.current().endpoints().iter().map(out).sum();
    assert_eq!(out, 1, "the second's");
    drop(second);
    kit.rests().unwrap();
}

// I3
#[test]
fn the_retry_budget_stays_between_nothing_and_its_cap_when_all_is_well_and_when_all_fails() {
    for (share, floor) in [(0, 1), (10, 1), (30, 0), (100, 5)] {
        let kit = Kit::by_hand(Situation::Usual);
        let budget = Budget::new(Ratio::percent(share)).min_per_second(floor);
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        let (service, calls) = counted(move || {
            ready(match is_down.load(Ordering::Relaxed) {
                true => Err("down".into()),
                false => Ok(()),
            })
        });
        let retry = tower_mesh::retry::RetryLayer::new(budget.clone())
            .clock(kit.clock.clone())
            .rng(tower_mesh::core::Rng::seeded(7));
        let mut service = retry.layer(service);
        let share = f64::from(share) / 100.0;
        let mut running = Vec::new();
        for step in 0..2_000_u32 {
            down.store(step >= 1_000, Ordering::Relaxed);
            let mut call = task::spawn(service.call(()));
            if call.poll().is_pending() {
                running.push(call);
            }
            if step % 3 == 0 && !running.is_empty() {
                drop(running.remove(step as usize % running.len()));
            }
            kit.hand.advance(Duration::from_millis(7));
            running.retain_mut(|call| !call.is_woken() || call.poll().is_pending());

            let snapshot = budget.snapshot(kit.clock.now());
            // What the calls of a second have earned, or one retry and what the last call brought over and above.
            let second = Duration::from_secs(1).as_millis() as f64 / 7.0;
            let earned = (share * second.ceil()).max(if share > 0.0 { 1.0 + share } else { 0.0 });
            let cap = earned + f64::from(floor);
            assert!(
                (0.0..=cap).contains(&snapshot.balance),
                "{snapshot:?} {cap}"
            );
            let time = f64::from(step + 1) * 0.007;
            let most = share * f64::from(step + 1) + f64::from(floor) * (time + 1.0);
            assert!(snapshot.withdrawals as f64 <= most, "{snapshot:?} {most}");
        }
        let snapshot = budget.snapshot(kit.clock.now());
        assert_eq!(snapshot.deposits, 2_000);
        let attempts = u64::from(calls.load(Ordering::Relaxed));
        assert_eq!(attempts, snapshot.deposits + snapshot.withdrawals);
        assert!(snapshot.withdrawals > 0, "{snapshot:?}");
    }
}

// I11
#[test]
fn the_deadline_is_never_passed_by_more_than_a_tick_whatever_a_call_waits_for() {
    let tick = Duration::from_millis(7);
    for limit in [1, 7, 10, 299, 300, 301, 650, 1_000, 5_000].map(Duration::from_millis) {
        for fails in [false, true] {
            let kit = Kit::by_hand(Situation::Usual);
            let (service, calls) = counted(move || answer(fails));
            let endpoints = kit.fleet(3);
            let bulkhead = kit.bulkhead();
            let mut stack = ServiceBuilder::new()
                .layer(DeadlineLayer::new(limit).clock(kit.clock.clone()))
                .layer(layer_fn(|beneath| bulkhead.over(beneath)))
                .layer(kit.retry())
                .service(kit.balance(&endpoints, service));
            let begin = kit.clock.now();
            // The second waits for the permit of the first.
            let mut running: Vec<_> = (0..2).map(|_| task::spawn(stack.call(()))).collect();
            running.retain_mut(|call| call.poll().is_pending());
            while !running.is_empty() {
                kit.hand.advance(tick);
                running.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
                let late = kit.clock.now().since(begin + limit);
                assert!(
                    running.is_empty() || late < tick,
                    "{late:?} after {limit:?}"
                );
            }
            let most = 2 * ATTEMPTS;
            assert!(calls.load(Ordering::Relaxed) <= most);
            kit.rests().unwrap();
        }
    }
}

fn answer(fails: bool) -> impl Future<Output = Result<(), BoxError>> {
    let mut fails = fails;
    std::future::poll_fn(
        move |_: &mut Context<'_>| match std::mem::take(&mut fails) {
            true => Poll::Ready(Err("down".into())),
            false => Poll::Pending,
        },
    )
}

// I11
#[test]
fn a_call_that_nobody_answers_ends_at_its_deadline_to_the_nanosecond_with_one_timer() {
    let kit = Kit::by_hand(Situation::Usual);
    let (never, calls) = counted(pending);
    let endpoints = kit.fleet(3);
    let mut stack = kit
        .deadline()
        .over(kit.retry().layer(kit.balance(&endpoints, never)));
    let begin = kit.clock.now();
    let mut call = Box::pin(stack.call(()));
    let mut cx = Context::from_waker(Waker::noop());
    let mut at: Vec<Instant> = Vec::new();
    let error = loop {
        match call.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => break answer.unwrap_err(),
            Poll::Pending => {
                assert_eq!(kit.hand.timers(), 1);
                at.push(kit.hand.next_timer().unwrap());
                kit.hand.advance_to(*at.last().unwrap());
            }
        }
    };
    let kind = Refusal::of(&*error).map(Refusal::kind);
    assert_eq!(kind, Some(Kind::DeadlineExceeded));
    assert_eq!(at.first(), Some(&(begin + PER_TRY)));
    assert_eq!(at.last(), Some(&(begin + DEADLINE)));
    assert_eq!(calls.load(Ordering::Relaxed), ATTEMPTS);
    assert_eq!(kit.hand.timers(), 0);
    kit.rests().unwrap();
    // Each attempt was given up by the mesh itself, which is a failure of its endpoint: all three count.
    let failures = |e: &tower_mesh::Endpoint| e.vitals().load().failures();
    let failures: u64 = endpoints.current().endpoints().iter().map(failures).sum();
    assert_eq!(failures, u64::from(ATTEMPTS));
}

// I9: above the retries a breaker hears of calls, beneath them it hears of attempts.
#[test]
fn three_attempts_are_one_call_to_the_breaker_above_the_retries() {
    let kit = Kit::by_hand(Situation::Usual);
    let (fails, calls) = counted(|| ready(Err("down".into())));
    let (above, beneath) = (kit.breaker(), kit.breaker());
    let attempts = const { NonZeroU32::new(ATTEMPTS).unwrap() };
    let retry = kit.retry().attempts(attempts);
    let mut service = above.layer(retry.layer(beneath.layer(fails)));
    let mut call = task::spawn(service.call(()));
    while call.poll().is_pending() {
        kit.hand.advance_to(kit.hand.next_timer().unwrap());
    }
    let heard = |layer: &tower_mesh::breaker::BreakerLayer| {
        let window = layer.handle().snapshot().failures.unwrap();
        (window.calls, window.against)
    };
    assert_eq!(calls.load(Ordering::Relaxed), ATTEMPTS);
    assert_eq!((heard(&above), heard(&beneath)), ((1, 1), (3, 3)));
}
