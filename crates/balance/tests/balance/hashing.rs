//! Calls that go by a key.

use std::{
    collections::BTreeSet,
    task::{Context, Poll, Waker},
};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_core::{BoxError, Endpoint, Shared};

use crate::fleet::{Backend, Does, Fleet, endpoint};

/// A backend that is asked with a key.
#[derive(Clone)]
struct Keyed(Backend);

impl Service<Option<u32>> for Keyed {
    type Response = u16;
    type Error = <Backend as Service<()>>::Error;
    type Future = <Backend as Service<()>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, _: Option<u32>) -> Self::Future {
        self.0.call(())
    }
}

fn hashed(
    fleet: &Fleet,
) -> impl Service<Option<u32>, Response = u16, Error = BoxError> + Clone + use<> {
    let connect = fleet.connect();
    let hash_by = fleet.layer().hash_by(|request: &Option<u32>| *request);
    hash_by.layer(move |endpoint: &Endpoint| Keyed(connect(endpoint)))
}

fn port(
    service: &mut impl Service<Option<u32>, Response = u16, Error = BoxError>,
    key: Option<u32>,
) -> u16 {
    let answer = assert_ready!(task::spawn(service.call(key)).poll());
    answer.unwrap_or_else(|_| panic!("{key:?} is answered"))
}

#[test]
fn a_key_leads_to_the_same_endpoint_from_every_client_and_calls_without_one_are_spread() {
    let fleet = Fleet::new(1..=10);
    let (mut one, mut other) = (hashed(&fleet), hashed(&Fleet::new((1..=10).rev())));
    let homes: BTreeSet<_> = (0..200)
        .map(|key| {
            let home = port(&mut one, Some(key));
            assert_eq!(port(&mut other, Some(key)), home);
            home
        })
        .collect();
    assert_eq!(homes.len(), 10, "each is somebody's home");
    let without: BTreeSet<_> = (0..200).map(|_| port(&mut one, None)).collect();
    assert!(without.len() > 3, "{without:?}");
}

#[test]
fn a_key_that_is_asked_for_much_is_shared_and_a_home_that_is_not_ready_is_passed_over() {
    let fleet = Fleet::new(1..=5);
    let mut service = hashed(&fleet);
    let home = port(&mut service, Some(1));
    (1..=5).for_each(|port| fleet.let_it(port, Does::Hang));
    let mut held: Vec<_> = (0..40)
        .map(|_| task::spawn(service.call(Some(1))))
        .collect();
    held.iter_mut()
        .for_each(|call| assert_pending!(call.poll()));
    let most = (1..=5).map(|port| fleet.at(port).vitals().load().in_flight());
    assert_eq!(most.max(), Some(10), "1.25 times a fifth of 40");
    drop(held);
    (1..=5).for_each(|port| fleet.let_it(port, Does::Answer));
    fleet.let_it(home, Does::NotReady);
    let second = port(&mut service, Some(1));
    assert_ne!(second, home);
    for _ in 0..20 {
        assert_eq!(port(&mut service, Some(1)), second, "its second home");
    }
    fleet.let_it(home, Does::Answer);
    assert_eq!(port(&mut service, Some(1)), home);
}

#[test]
fn keys_stay_on_the_level_that_takes_calls_and_move_with_an_update() {
    let fleet = Fleet::of(
        (1..=3)
            .map(endpoint)
            .chain((4..=6).map(|p| endpoint(p).with_priority(1))),
    );
    let mut service = hashed(&fleet);
    let homes: Vec<_> = (0..50).map(|key| port(&mut service, Some(key))).collect();
    assert!(homes.iter().all(|port| *port <= 3));
    fleet.publish((2..=6).map(endpoint));
    let moved: Vec<_> = (0..50).map(|key| port(&mut service, Some(key))).collect();
    assert!(moved.iter().all(|port| *port > 1) && moved.iter().any(|port| *port > 3));
    let stayed = |(was, is): (&u16, &u16)| was == is || *was == 1 || *is > 3;
    assert!(homes.iter().zip(&moved).all(stayed));
}

#[test]
fn nothing_of_it_asks_for_more_than_a_request_and_a_closure() {
    let fleet = Fleet::new([1]);
    let echo = tower::service_fn(|name: String| async move { Ok::<_, std::io::Error>(name) });
    let hash_by = fleet
        .layer()
        .hash_by(|name: &String| Some(name.len()))
        .seed(3);
    let mut service = hash_by.capacity(f64::NAN).layer(Shared::new(echo));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = task::spawn(service.call("a".to_owned()));
    assert_eq!(assert_ready!(call.poll()).ok().as_deref(), Some("a"));
}
