//! What callers see of it.

use std::{
    convert::Infallible,
    future::{Future, Ready, poll_fn, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::join_all;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_mesh_core::{
    Clock, Kind, PerCall, Update,
    frame::{self, Call, Phase},
};
use tower_mesh_discovery::{
    Discovered, Discovery, DiscoveryLayer, ServiceNotFound, Static, Unresolved,
};

use crate::script::{Say, Script, endpoint, kind, moment, name, orders, pass, secs, start};

/// A client that answers at once.
#[derive(Clone)]
struct Answers;

impl Service<()> for Answers {
    type Response = &'static str;
    type Error = Infallible;
    type Future = Ready<Result<&'static str, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok("answer"))
    }
}

fn client(layer: &DiscoveryLayer) -> Discovered<PerCall<Answers>> {
    layer.layer(Answers)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_callers_share_one_look_up() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let calls = (0..1_000).map(|i| {
        let (discovery, script) = (discovery.clone(), script.clone());
        tokio::spawn(async move {
            // Each its own layer: what they share is discovery's.
            let call = client(&discovery.layer(&orders())).oneshot(());
            if i == 999 {
                pass(secs(1)).await;
                script.replace(&orders(), &[endpoint(1)]);
            }
            call.await
        })
    });
    let calls: Vec<_> = calls.collect();
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().unwrap(), "answer");
    }
    assert_eq!(script.lookups(&orders()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels_nothing() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let layer = discovery.layer(&orders());
    let first = tokio::spawn(client(&layer).oneshot(()));
    let second = tokio::spawn(client(&layer).oneshot(()));
    moment().await;
    first.abort();
    moment().await;
    script.replace(&orders(), &[endpoint(1)]);
    assert_eq!(second.await.unwrap().unwrap(), "answer");
    assert_eq!(script.lookups(&orders()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_says_so_and_takes_no_part_of_an_attempt() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let clock = Clock::tokio();
    let mut call = pin!(client(&discovery.layer(&orders())).oneshot(()));
    let mut outer = pin!(Call::new());
    let answers = tokio::spawn(async move {
        pass(secs(2)).await;
        script.replace(&orders(), &[endpoint(1)]);
    });
    let spent = poll_fn(|cx| {
        outer.as_mut().poll(&clock, cx, |cx| {
            let polled = call.as_mut().poll(cx);
            polled.map(|answer| answer.map(|_| frame::spent(clock.now())))
        })
    });
    let spent = spent.await.unwrap();
    answers.await.unwrap();
    assert!(
        spent.discovery >= secs(2) && spent.discovery < secs(3),
        "{spent:?}"
    );
    assert_eq!(
        (spent.attempts, spent.phase),
        (Duration::ZERO, Phase::Attempt)
    );
}

/// Flaw W6: tower's balancer leaves a call without endpoints pending for ever, with no error and no deadline.
#[tokio::test(start_paused = true)]
async fn w6_a_registry_that_says_nothing_fails_the_call_within_its_limit() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    script.say(&orders(), Say::Fail("connection refused"));
    let layer = discovery.layer(&orders()).wait(secs(3));
    let clock = Clock::tokio();
    let before = clock.now();
    let error = client(&layer).oneshot(()).await.unwrap_err();
    assert!(clock.now().since(before) >= secs(3));
    assert!(
        error
            .downcast_ref::<Unresolved>()
            .is_some_and(|e| *e.service() == orders())
    );
    assert_eq!(kind(&error), Kind::NoEndpoint);
    let why = error.source().unwrap().to_string();
    assert!(
        why.contains("no answer from script within 3s: connection refused"),
        "{why}"
    );
    // The next call is answered when the registry is.
    script.replace(&orders(), &[endpoint(1)]);
    assert!(client(&layer).oneshot(()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_deadline_waits_until_then_and_no_longer() {
    let discovery = start(Discovery::builder(Script::new()));
    let clock = Clock::tokio();
    for limit in [secs(1), secs(60)] {
        let mut call = pin!(client(&discovery.layer(&orders())).oneshot(()));
        let mut outer = pin!(Call::new());
        let before = clock.now();
        let error = poll_fn(|cx| {
            outer.as_mut().poll(&clock, cx, |cx| {
                frame::shorten_deadline(before + limit);
                call.as_mut().poll(cx)
            })
        });
        assert_eq!(kind(&error.await.unwrap_err()), Kind::DeadlineExceeded);
        let took = clock.now().since(before);
        assert!(took >= limit && took < limit + secs(1), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_a_typed_error_at_once() {
    let discovery = start(Discovery::builder(Static::new()));
    let before = Clock::tokio().now();
    let error = client(&discovery.layer(&orders()))
        .oneshot(())
        .await
        .unwrap_err();
    assert!(
        error
            .downcast_ref::<ServiceNotFound>()
            .is_some_and(|e| *e.service() == orders())
    );
    assert_eq!(kind(&error), Kind::ServiceNotFound);
    assert_eq!(
        error.source().unwrap().to_string(),
        "service not found: static knows no service named orders"
    );
    assert_eq!(Clock::tokio().now(), before);
}

/// Scenario 28. The source answers each look-up and then ends, so every look-up would reach the registry.
#[tokio::test(start_paused = true)]
async fn an_unknown_name_costs_one_look_up_per_negative_ttl_under_a_thousand_callers() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()).negative_ttl(secs(3)));
    let absent = |script: &Script| {
        script.say(&orders(), Say::Update(Update::Absent));
        script.say(&orders(), Say::End);
    };
    (0..100).for_each(|_| absent(&script));
    let layer = discovery.layer(&orders());
    let clock = Clock::tokio();
    let start = clock.now();
    let mut calls = 0;
    while clock.now().since(start) < secs(60) {
        for answer in join_all((0..1_000).map(|_| client(&layer).oneshot(()))).await {
            assert_eq!(kind(&answer.unwrap_err()), Kind::ServiceNotFound);
            calls += 1;
        }
        pass(secs(1)).await;
    }
    // Half of the TTL to one and a half: 1.5 s to 4.5 s.
    let lookups = script.lookups(&orders());
    assert!(
        (13..=41).contains(&lookups),
        "{lookups} look-ups for {calls} calls"
    );
}

/// The same for callers who ask for the endpoints each time and hold nothing.
#[tokio::test(start_paused = true)]
async fn an_unknown_name_that_nobody_holds_is_remembered_for_its_ttl_and_then_forgotten() {
    let script = Script::otherwise(|| Some(Say::Update(Update::Absent)));
    let discovery = start(Discovery::builder(script.clone()));
    for _ in 0..1_000 {
        discovery.endpoints(&orders()).resolved().await;
    }
    assert_eq!(
        (script.lookups(&orders()), discovery.status().len()),
        (1, 1)
    );
    pass(secs(10)).await;
    assert_eq!((script.open(), discovery.status().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_without_endpoints_is_the_balancers_to_refuse() {
    let discovery = start(Discovery::builder(Static::new().service(orders(), [])));
    assert!(
        client(&discovery.layer(&orders()))
            .oneshot(())
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_state_however_often_it_is_applied() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    script.replace(&orders(), &[endpoint(1)]);
    let layer = discovery.layer(&orders());
    for _ in 0..10 {
        assert!(client(&layer.clone()).oneshot(()).await.is_ok());
    }
    assert_eq!(script.lookups(&orders()), 1);
    assert_eq!(crate::script::status_of(&discovery, &orders()).holders, 1);
}

/// Readiness is awaited where it is used: a clone that is ready and idle keeps nothing from others.
#[tokio::test(start_paused = true)]
async fn the_inner_services_readiness_is_awaited_by_the_call() {
    #[derive(Clone)]
    struct NotYet(Arc<AtomicUsize>);

    impl Service<()> for NotYet {
        type Response = ();
        type Error = Infallible;
        type Future = Ready<Result<(), Infallible>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.0.fetch_add(1, Ordering::Relaxed) < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            assert!(
                self.0.load(Ordering::Relaxed) > 3,
                "called before it was ready"
            );
            ready(Ok(()))
        }
    }

    let discovery = start(Discovery::builder(Static::new().service(orders(), [])));
    let polls = Arc::new(AtomicUsize::new(0));
    let mut service = discovery.layer(&orders()).layer(NotYet(Arc::clone(&polls)));
    let ready = service.ready().await.unwrap();
    assert_eq!(polls.load(Ordering::Relaxed), 0);
    ready.call(()).await.unwrap();
    assert_eq!(polls.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn inner_errors_pass_unchanged_and_a_panic_harms_nobody_else() {
    let discovery = start(Discovery::builder(Static::new().service(orders(), [])));
    let layer = discovery.layer(&orders());
    let service = layer.layer(service_fn(|panic: bool| async move {
        assert!(!panic, "inner bug");
        Err::<(), _>(std::fmt::Error)
    }));
    let error = service.clone().oneshot(false).await.unwrap_err();
    assert!(error.is::<std::fmt::Error>());
    assert!(
        tokio::spawn(service.clone().oneshot(true))
            .await
            .unwrap_err()
            .is_panic()
    );
    assert!(
        service
            .oneshot(false)
            .await
            .unwrap_err()
            .is::<std::fmt::Error>()
    );
}

/// Row 38 of the hostile inputs: names that somebody makes up.
#[tokio::test(start_paused = true)]
async fn a_flood_of_names_stays_within_the_limit_and_spares_what_is_in_use() {
    let script = Script::otherwise(|| Some(Say::Update(Update::Absent)));
    let most = 100.try_into().unwrap();
    let discovery = start(Discovery::builder(script.clone()).max_services(most));
    script.replace(&orders(), &[endpoint(1)]);
    script.replace(&name("users"), &[endpoint(2)]);
    let held = discovery.endpoints(&orders());
    // Nobody holds it, but it was found: the made-up names go first.
    discovery.endpoints(&name("users")).resolved().await;
    for i in 0..10_000 {
        let made_up = discovery.endpoints(&name(&format!("made-up-{i}")));
        if i % 100 == 0 {
            made_up.resolved().await;
        }
        assert!(discovery.status().len() <= 100);
    }
    moment().await;
    assert!(script.open() <= 100, "{} look-ups", script.open());
    assert_eq!(held.current().endpoints().len(), 1);
    discovery.endpoints(&name("users")).resolved().await;
    assert_eq!(
        (script.lookups(&orders()), script.lookups(&name("users"))),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn when_every_service_is_in_use_the_next_is_refused_with_the_reason() {
    let source = Static::new().service(orders(), [endpoint(1)]);
    let one = 1.try_into().unwrap();
    let discovery = start(Discovery::builder(source).max_services(one));
    let held = discovery.layer(&orders());
    let error = client(&discovery.layer(&name("users")))
        .oneshot(())
        .await
        .unwrap_err();
    assert_eq!(kind(&error), Kind::Overloaded);
    assert!(error.source().unwrap().to_string().contains("max_services"));
    drop(held);
    let error = client(&discovery.layer(&name("users")))
        .oneshot(())
        .await
        .unwrap_err();
    assert_eq!(kind(&error), Kind::ServiceNotFound, "there is room now");
}

#[test]
fn what_calls_are_made_of_can_cross_threads() {
    fn send<T: Send>(_: &T) {}
    fn sync<T: Sync>(_: &T) {}
    let (discovery, driver) = Discovery::builder(Static::new()).build();
    send(&driver);
    send(&discovery);
    sync(&discovery);
    let layer = discovery.layer(&orders());
    send(&layer);
    sync(&layer);
    let mut service = client(&layer);
    send(&service);
    sync(&service);
    send(&service.call(()));
}
