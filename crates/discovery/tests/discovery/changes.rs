//! tower's own balancer over discovery.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{FutureExt, Stream, StreamExt, stream};
use tower::{
    Layer, Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::{Change, Discover},
    load::Load,
};
use tower_mesh_core::{BoxError, Endpoint, Kind, ResolveError, Weight};
use tower_mesh_discovery::Discovery;

use crate::script::{Say, Script, endpoint, kind, moment, orders, pass, secs, start};

/// Answers with its port.
#[derive(Clone, Debug)]
struct Port(u16);

impl Service<()> for Port {
    type Response = u16;
    type Error = Infallible;
    type Future = Ready<Result<u16, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

impl Load for Port {
    type Metric = usize;

    fn load(&self) -> usize {
        0
    }
}

fn dial(endpoint: &Endpoint) -> Port {
    Port(endpoint.address().port())
}

/// What the stream says until it has no more to say.
fn said<S>(changes: &mut S) -> Vec<(char, u16)>
where
    S: Stream<Item = Result<Change<Endpoint, Port>, Infallible>> + Unpin,
{
    std::iter::from_fn(|| changes.next().now_or_never())
        .map(|change| match change.expect("it never ends") {
            Ok(Change::Insert(endpoint, port)) => {
                assert_eq!(endpoint.address().port(), port.0);
                ('+', port.0)
            }
            Ok(Change::Remove(endpoint)) => ('-', endpoint.address().port()),
        })
        .collect()
}

/// Scenario 27 for tower's balancer: what stays is not dialled again.
#[tokio::test(start_paused = true)]
async fn only_what_comes_and_goes_is_said() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let mut changes = discovery.changes(&orders(), dial);
    assert_eq!(said(&mut changes), []);
    script.replace(&orders(), &[1, 2, 3].map(endpoint));
    moment().await;
    assert_eq!(said(&mut changes), [('+', 1), ('+', 2), ('+', 3)]);
    let heavier = endpoint(2).with_weight(Weight::new(9));
    script.replace(&orders(), &[endpoint(1), heavier, endpoint(4)]);
    moment().await;
    assert_eq!(said(&mut changes), [('-', 3), ('+', 4)]);
    // Gone and back between two looks: it has been drained, so it is dialled again.
    script.patch(&orders(), &[], &["127.0.0.1:1"]);
    script.patch(&orders(), &[endpoint(1)], &[]);
    moment().await;
    assert_eq!(said(&mut changes), [('+', 1)]);
    script.say(&orders(), Say::Fail("no leader"));
    moment().await;
    assert_eq!(said(&mut changes), []);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_whoever_waits_for_it() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let mut changes = discovery.changes(&orders(), dial);
    let waits = tokio::spawn(async move { changes.next().await.is_some() });
    moment().await;
    script.replace(&orders(), &[endpoint(1)]);
    moment().await;
    assert!(waits.is_finished());
}

/// Calls through tower's `Buffer` and `Balance` over `discover`.
fn balanced<D>(discover: D) -> Buffer<(), <Balance<D, ()> as Service<()>>::Future>
where
    D: Discover<Service = Port> + Unpin + Send + 'static,
    D::Key: std::hash::Hash + Clone + Send,
    D::Error: Into<BoxError>,
{
    let (buffer, worker) = Buffer::pair(Balance::new(discover), 8);
    tokio::spawn(worker);
    buffer
}

/// Flaw W5: one discovery error is fatal for ever. First the flaw itself, then the same events through discovery.
#[tokio::test(start_paused = true)]
async fn w5_towers_balancer_outlives_an_error_of_the_source() {
    let error = || ResolveError::new("SERVFAIL");
    let events = [
        Ok(Change::Insert(1, Port(1))),
        Err(error()),
        Ok(Change::Insert(2, Port(2))),
    ];
    let naive = balanced(stream::iter(events).chain(stream::pending()));
    assert!(naive.clone().oneshot(()).await.is_err());
    assert!(naive.oneshot(()).await.is_err(), "for good");

    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let ours = balanced(discovery.changes(&orders(), dial));
    script.replace(&orders(), &[endpoint(1)]);
    script.say(&orders(), Say::Fail("SERVFAIL"));
    assert_eq!(ours.clone().oneshot(()).await.unwrap(), 1);
    script.replace(&orders(), &[endpoint(2)]);
    pass(secs(1)).await;
    assert_eq!(ours.oneshot(()).await.unwrap(), 2);
}

/// Flaw W6: without endpoints a call is pending for ever. First the flaw itself, then the same under the layer.
#[tokio::test(start_paused = true)]
async fn w6_towers_balancer_fails_in_time_under_the_layer_when_nothing_is_known() {
    let naive = balanced(stream::pending::<Result<Change<u16, Port>, Infallible>>());
    let waits = tokio::spawn(naive.oneshot(()));
    pass(secs(3_600)).await;
    assert!(!waits.is_finished());

    let discovery = start(Discovery::builder(Script::new()));
    let inner = balanced(discovery.changes(&orders(), dial));
    let ours = discovery.layer(&orders()).layer(inner);
    let error = ours.oneshot(()).await.unwrap_err();
    assert_eq!(kind(&error), Kind::NoEndpoint);
}

/// Flaw G1: an endpoint whose client could not be built counts as known and is never tried again.
#[tokio::test(start_paused = true)]
async fn g1_an_endpoint_whose_service_could_not_be_made_is_not_forgotten() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let made = Arc::new(AtomicUsize::new(0));
    let mut changes = discovery.changes(&orders(), {
        let made = Arc::clone(&made);
        move |endpoint: &Endpoint| {
            assert!(made.fetch_add(1, Ordering::Relaxed) > 0, "no socket left");
            dial(endpoint)
        }
    });
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    moment().await;
    assert!(catch_unwind(AssertUnwindSafe(|| said(&mut changes))).is_err());
    assert_eq!(said(&mut changes), [('+', 1), ('+', 2)]);
}
