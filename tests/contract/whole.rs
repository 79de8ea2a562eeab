//! The whole stack: by hand of plain values, by hand of HTTP, and as the mesh composes it.

use std::{future::Ready, num::NonZeroU32, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Response;
use http_body_util::Empty;
use tower::{
    Layer, Service, ServiceBuilder, layer::layer_fn, load::CompleteOnResponse, service_fn,
};
use tower_mesh::{
    Body, Mesh, MeshService, Policy,
    breaker::CircuitBreaker,
    core::{
        BoxError, Clock, Resolve, Shared,
        testing::contract::{Contract, Inner, Subject},
    },
    discovery::{Discovered, Static},
    http::{CompleteOnBody, HttpClassify, HttpReplay},
    limit::{Bulkhead, Deadline},
    retry::Retry,
};

use crate::{
    addressed::{self, Balanced, ByHead, Read, balanced, get},
    support::{ATTEMPTS, DEADLINE, Exam, Heard, Kit, Late, breaker_of, endpoint, none, orders},
};

/// As `integrator/src/stack.rs` has it.
fn by_hand(
    kit: &Kit,
    endpoints: u16,
    inner: Inner<&'static str>,
) -> impl Service<&'static str> + Clone + use<> {
    let discovery = kit.discovery(endpoints);
    let found = discovery.endpoints().clone();
    ServiceBuilder::new()
        .layer(layer_fn(|beneath| kit.deadline().over(beneath)))
        .layer(discovery)
        .layer(layer_fn(|beneath| kit.bulkhead().over(beneath)))
        .layer(kit.breaker())
        .layer(kit.retry())
        .service(kit.balance(&found, inner))
}

#[test]
fn the_stack_by_hand() {
    let exam = Exam::plain().attempts(ATTEMPTS).ends_within(DEADLINE);
    exam.passes(|kit, inner| by_hand(kit, 1, inner));
    exam.passes(|kit, inner| by_hand(kit, 3, inner));
}

#[test]
fn the_stack_by_hand_of_layers_that_know_nothing_of_each_other() {
    let exam = Exam::plain().attempts(ATTEMPTS).ends_within(DEADLINE);
    exam.passes(|kit, inner| {
        let discovery = kit.discovery(3);
        let found = discovery.endpoints().clone();
        ServiceBuilder::new()
            .layer(kit.deadline())
            .layer(discovery)
            .layer(kit.bulkhead())
            .layer(kit.breaker())
            .layer(kit.retry())
            .service(kit.balance(&found, inner))
    });
}

type Http<B> = Deadline<Discovered<Bulkhead<Guarded<B>, CompleteOnBody>>>;
type Guarded<B> = CircuitBreaker<Retried<B>, ByHead, CompleteOnResponse>;
type Retried<B> = Retry<Balanced<B>, HttpReplay, HttpClassify>;

fn by_hand_of_http<B: 'static>(kit: &Kit, inner: Inner<Response<B>>) -> Http<B> {
    let discovery = kit.discovery(3);
    let found = discovery.endpoints().clone();
    let bulkhead = kit.bulkhead().completion(CompleteOnBody::new());
    ServiceBuilder::new()
        .layer(layer_fn(|beneath| kit.deadline().over(beneath)))
        .layer(layer_fn(|beneath| discovery.over(beneath)))
        .layer(layer_fn(|beneath| bulkhead.over(beneath)))
        .layer(kit.breaker().classify(ByHead(HttpClassify::new())))
        .layer(addressed::retry(kit))
        .service(balanced(kit, &found, inner))
}

#[test]
fn the_stack_by_hand_of_http() {
    addressed::exam()
        .attempts(ATTEMPTS)
        .ends_within(DEADLINE)
        .passes(by_hand_of_http);
}

#[test]
fn the_stack_by_hand_of_http_with_bodies() {
    addressed::exam_of_bodies()
        .attempts(ATTEMPTS)
        .ends_within(DEADLINE)
        .passes(|kit, inner| {
            let stack = Read(by_hand_of_http(kit, inner));
            kit.counts_nothing();
            stack
        });
}

/// The defaults, but that no breaker opens of what an examination lets fail, and calls queue for one permit.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.timeout = DEADLINE;
    policy.limit.max_in_flight = std::num::NonZeroUsize::MIN;
    policy.limit.queue = 3;
    policy.breaker.consecutive_failures = NonZeroU32::MAX;
    policy.breaker.failure_rate = tower_mesh::core::Ratio::ONE;
    policy
}

async fn mesh(policy: Policy, clock: Clock, source: impl Resolve) -> Mesh {
    let builder = Mesh::builder("tests").defaults(policy);
    let mesh = builder.clock(clock).discovery(source).start();
    mesh.await.unwrap()
}

/// `service`, the last that `mesh` was asked for, with a look at its status and its endpoints.
fn examined<S>(mesh: &Mesh, service: MeshService<S>) -> Subject<MeshService<S>> {
    let endpoints = service.endpoints().clone();
    let mesh = mesh.clone();
    Subject::new(service).at_rest(move || {
        let status = mesh.status();
        let name = endpoints.service().as_str();
        let service = status.services.iter().find(|service| service.name == name);
        let service = service.ok_or("it has no status")?;
        none(service.in_flight as usize, "calls are in flight")?;
        none(service.limit.in_use, "permits are out")?;
        none(service.limit.waiting, "calls wait for a permit")?;
        let (balance, calls) = (service.retries.balance, service.calls as f64);
        // 10 % of the calls, or one retry and what the last call brought over and above; and one a second.
        let cap = (0.1 * calls).max(1.1) + 1.0;
        if !(0.0..=cap).contains(&balance) {
            return Err(format!("the budget holds {balance} retries"));
        }
        for endpoint in endpoints.current().endpoints() {
            none(
                endpoint.vitals().load().in_flight() as usize,
                "attempts are in flight",
            )?;
            let breaker = breaker_of(endpoint).ok_or("an endpoint has no breaker")?;
            none(breaker.snapshot().probes_out as usize, "probes are out")?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn the_meshs_own_stack() {
    for service_breaker in [false, true] {
        let (clock, hand) = Clock::manual();
        let mut policy = policy();
        policy.breaker.service = service_breaker;
        let source = Static::new().service(orders(), (1..=3).map(endpoint));
        let mesh = mesh(policy, clock, source).await;
        let orders = mesh.service("orders").unwrap();
        orders.endpoints().resolved().await;
        let heard: Arc<[_]> = orders
            .endpoints()
            .current()
            .endpoints()
            .iter()
            .map(Heard::of)
            .collect();

        let contract = |timeout| {
            Contract::new(get, Response::<Empty<Bytes>>::default)
                .on_clock(hand.clone())
                .attempts(ATTEMPTS)
                .ends_within(timeout)
        };
        contract(DEADLINE)
            .check(|inner| {
                let orders = mesh.layer("orders").unwrap().over(Shared::new(inner));
                let (heard, before) = (Arc::clone(&heard), Heard::sum(&heard));
                examined(&mesh, orders).tally(move || Heard::since(&heard, before))
            })
            .await
            .unwrap();
        contract(DEADLINE / 2)
            .check(|inner| {
                let orders = mesh.layer("orders").unwrap().over(Shared::new(inner));
                examined(&mesh, orders.with_timeout(DEADLINE / 2))
            })
            .await
            .unwrap();
        contract(DEADLINE)
            .check(|inner| examined(&mesh, mesh.layer("orders").unwrap().layer(inner)))
            .await
            .unwrap();
    }
}

// I5, from a cold start: each examination is the first to call its service.
#[tokio::test(start_paused = true)]
async fn the_meshs_own_stack_before_the_registry_has_answered() {
    let mesh = mesh(policy(), Clock::tokio(), Late).await;
    let services = std::cell::Cell::new(0);
    Contract::new(get, Response::<Empty<Bytes>>::default)
        .attempts(ATTEMPTS)
        .ends_within(DEADLINE)
        .check(|inner| {
            let name = format!("orders-{}", services.replace(services.get() + 1));
            let orders = mesh.layer(&name).unwrap().over(Shared::new(inner));
            examined(&mesh, orders)
        })
        .await
        .unwrap();
}

// I10: whoever asks for the status is not told that a caller went away.
#[tokio::test]
async fn a_call_that_panics_has_failed() {
    let source = Static::new().service(orders(), [endpoint(1)]);
    let mesh = mesh(policy(), Clock::tokio(), source).await;
    let panics = service_fn(
        |_: addressed::Get| -> Ready<Result<Response<Body>, BoxError>> {
            std::panic::resume_unwind(Box::new("user code"))
        },
    );
    let mut orders = mesh.layer("orders").unwrap().over(Shared::new(panics));
    orders.endpoints().resolved().await;
    let call = AssertUnwindSafe(orders.call(get())).catch_unwind();
    assert!(call.await.is_err());

    let status = mesh.status();
    let orders = &status.services[0];
    let counts = (
        orders.calls,
        orders.in_flight,
        orders.failed,
        orders.abandoned,
    );
    assert_eq!(counts, (1, 0, 1, 0));
    assert_eq!(orders.endpoints[0].failures, 1);
}
