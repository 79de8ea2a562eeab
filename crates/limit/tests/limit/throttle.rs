//! The throttle: scenario 22 through the service.

use tower::{Layer, ServiceExt, service_fn};
use tower_mesh_core::{BoxError, Clock, Kind, Refusal, Rng, Sent};
use tower_mesh_limit::{ThrottleLayer, Throttled};

use super::SECOND;

/// Accepts while the switch is on.
async fn calls(layer: &ThrottleLayer, calls: u32, accept: bool) -> (u32, u32) {
    let service = layer.layer(service_fn(move |()| async move {
        if accept {
            Ok(())
        } else {
            Err::<(), BoxError>("full".into())
        }
    }));
    let (mut made, mut refused) = (0, 0);
    for _ in 0..calls {
        match service.clone().oneshot(()).await {
            Err(error) if error.is::<Throttled>() => refused += 1,
            _ => made += 1,
        }
    }
    (made, refused)
}

#[tokio::test]
async fn what_accepts_half_of_its_calls_is_called_for_all_of_them() {
    let (clock, _) = Clock::manual();
    let layer = ThrottleLayer::new().clock(clock).rng(Rng::seeded(1));
    for _ in 0..50 {
        assert_eq!(calls(&layer, 1, true).await, (1, 0));
        assert_eq!(calls(&layer, 1, false).await, (1, 0));
    }
    assert_eq!(layer.handle().snapshot().refused_share, 0.0);
}

// scenario 22: local refusals are requests, not accepts, so the share grows with them.
#[tokio::test]
async fn what_accepts_nothing_is_called_less_and_less_and_again_once_it_accepts() {
    let (clock, time) = Clock::manual();
    let layer = ThrottleLayer::new().clock(clock).rng(Rng::seeded(1));
    calls(&layer, 25, true).await;
    calls(&layer, 75, false).await;
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.requests, 100);
    let (made, refused) = calls(&layer, 1_000, false).await;
    assert!(
        made < 150 && refused > 850,
        "{made} made, {refused} refused"
    );
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.requests, snapshot.accepts), (1_100, 25));

    time.advance(130 * SECOND);
    assert_eq!(calls(&layer, 10, true).await, (10, 0), "it has forgotten");
}

#[tokio::test]
async fn a_refusal_is_local_was_never_sent_and_says_how_it_came_about() {
    let (clock, _) = Clock::manual();
    let layer = ThrottleLayer::new().clock(clock).rng(Rng::seeded(1));
    calls(&layer, 1_000, false).await;
    let service = layer.layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
    let error = loop {
        if let Err(error) = service.clone().oneshot(()).await {
            break error;
        }
    };
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::Overloaded, Sent::Never)
    );
    assert!(error.to_string().contains("0 were accepted"), "{error}");
}

#[tokio::test]
async fn a_call_counts_when_it_begins_and_a_caller_that_goes_away_says_nothing_against_it() {
    let (clock, _) = Clock::manual();
    let layer = ThrottleLayer::new().clock(clock);
    let service = layer.layer(service_fn(|()| {
        std::future::pending::<Result<(), BoxError>>()
    }));
    let mut call = tokio_test::task::spawn(service.oneshot(()));
    assert!(call.poll().is_pending());
    let begun = layer.handle().snapshot();
    assert_eq!((begun.requests, begun.accepts), (1, 0));
    drop(call);
    assert_eq!(layer.handle().snapshot().accepts, 1);
}
