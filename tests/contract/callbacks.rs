//! The user's code within the stack: it may panic, and it may look at everything from everywhere.
//!
//! I10: wherever it panics, no permit, no probe, no attempt and no withdrawal is lost, and the next call is answered.
//! I12: no lock is held while it runs, so whatever it asks the layers answers.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tower::{Layer, Service, ServiceBuilder, layer::layer_fn, load::TrackCompletion, service_fn};
use tower_mesh::{
    balance::BalanceLayer,
    breaker::Breaker,
    core::{
        BoxError, Classify, Clock, Endpoint, Endpoints, Finish, Layered, NewService, Outcome,
        Promises, Replay, Resolution,
    },
    limit::BulkheadHandle,
    retry::Budget,
};

use crate::support::{Heard, Kit, Situation, breaker_of, endpoint};

/// Where the user's code runs on the way of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    IsIdempotent,
    Keep,
    EndpointClassifies,
    EndpointCompletes,
    RetryClassifies,
    SendAgain,
    BreakerClassifies,
    BreakerCompletes,
    BulkheadCompletes,
}

const PLACES: [Place; 9] = [
    Place::IsIdempotent,
    Place::Keep,
    Place::EndpointClassifies,
    Place::EndpointCompletes,
    Place::RetryClassifies,
    Place::SendAgain,
    Place::BreakerClassifies,
    Place::BreakerCompletes,
    Place::BulkheadCompletes,
];

/// The user: panics once where it is told to, and asks every layer how it stands wherever it comes by.
#[derive(Clone, Default)]
struct User {
    panics_at: Arc<Mutex<Option<Place>>>,
    /// Failures that the endpoint still has to answer with.
    failures: Arc<AtomicU32>,
    sees: Arc<OnceLock<Sees>>,
    looks: Arc<AtomicU32>,
}

struct Sees {
    clock: Clock,
    bulkhead: BulkheadHandle,
    breaker: Breaker,
    budget: Budget,
    endpoints: Endpoints,
}

impl Sees {
    fn everything(&self) {
        self.bulkhead.snapshot();
        self.breaker.snapshot();
        self.budget.snapshot(self.clock.now());
        for endpoint in self.endpoints.current().endpoints() {
            endpoint.vitals().load().in_flight();
            breaker_of(endpoint).unwrap().snapshot();
        }
    }
}

impl User {
    fn at(&self, place: Place) {
        self.look();
        let panics = self.panics_at.lock().unwrap().take_if(|at| *at == place);
        if panics.is_some() {
            resume_unwind(Box::new("the user's code panics, as the test wants"));
        }
    }

    fn look(&self) {
        if let Some(sees) = self.sees.get() {
            sees.everything();
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// It looks when it is woken, too.
impl Wake for User {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// A callback of the user at one place.
#[derive(Clone)]
struct At(User, Place);

impl<Res> Classify<Res> for At {
    type Answer = Outcome;

    fn classify(&self, result: Result<&Res, &(dyn Error + Send + Sync + 'static)>) -> Outcome {
        self.0.at(self.1);
        match result {
            Ok(_) => Outcome::success(),
            Err(_) => Outcome::failure(),
        }
    }
}

impl<G: Finish, Res> TrackCompletion<G, Res> for At {
    type Output = Res;

    fn track_completion(&self, guard: G, response: Res) -> Res {
        self.0.at(self.1);
        drop(guard);
        response
    }
}

impl Promises<Outcome> for At {}

impl Replay<u32> for User {
    type Kept = u32;

    fn is_idempotent(&self, _: &u32) -> bool {
        self.at(Place::IsIdempotent);
        true
    }

    fn keep(&self, request: &mut u32) -> Option<u32> {
        self.at(Place::Keep);
        Some(*request)
    }

    fn again(&self, kept: &u32) -> Option<u32> {
        self.at(Place::SendAgain);
        Some(*kept)
    }
}

/// The whole stack with the user's code at every place, over endpoints that fail as often as the user wants.
fn stack(
    kit: &Kit,
    user: &User,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: 'static> + Clone + use<> {
    let at = |place| At(user.clone(), place);
    let discovery = kit.discovery(2);
    let endpoints = discovery.endpoints().clone();
    let bulkhead = kit.bulkhead().completion(at(Place::BulkheadCompletes));
    let breaker = kit
        .breaker()
        .classify(at(Place::BreakerClassifies))
        .completion(at(Place::BreakerCompletes));
    let retry = kit
        .retry()
        .replay(user.clone())
        .classify(at(Place::RetryClassifies));
    let balance = kit
        .balance_over(&endpoints)
        .classify(at(Place::EndpointClassifies))
        .completion(at(Place::EndpointCompletes));
    let failures = Arc::clone(&user.failures);
    let answers = move |_: &Endpoint| {
        let failures = Arc::clone(&failures);
        service_fn(move |request: u32| {
            let fails = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
            std::future::ready(match fails {
                Ok(_) => Err(BoxError::from("it fails")),
                Err(_) => Ok(request),
            })
        })
    };
    let sees = Sees {
        clock: kit.clock.clone(),
        bulkhead: bulkhead.handle(),
        breaker: breaker.handle().clone(),
        budget: kit.budget(),
        endpoints: endpoints.clone(),
    };
    let stack = ServiceBuilder::new()
        .layer(layer_fn(|beneath| kit.deadline().over(beneath)))
        .layer(discovery)
        .layer(layer_fn(|beneath| bulkhead.over(beneath)))
        .layer(breaker)
        .layer(retry)
        .layer(balance)
        .service(Layered::new(answers, kit.endpoint_breakers()));
    kit.watch(&endpoints);
    assert!(user.sees.set(sees).is_ok());
    stack
}

/// Calls `service` and moves the clock on until it ends; `None` if it panics.
fn call(
    kit: &Kit,
    user: &User,
    service: impl Service<u32, Response = u32, Error = BoxError> + Clone,
) -> Option<Result<u32, BoxError>> {
    let waker = Waker::from(Arc::new(user.clone()));
    let mut cx = Context::from_waker(&waker);
    let mut service = service.clone();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = pin!(service.call(7));
        loop {
            match call.as_mut().poll(&mut cx) {
                Poll::Ready(ended) => return ended,
                Poll::Pending => kit.hand.advance_to(kit.hand.next_timer().unwrap()),
            }
        }
    }));
    ended.ok()
}

/// A lock that is taken twice on one thread hangs rather than fails; this fails.
fn within_a_minute(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let test = thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a layer waits for a lock that it holds"),
        _ => test.join().unwrap(),
    }
}

// I10, I12
#[test]
fn wherever_the_users_code_panics_nothing_is_lost_and_the_next_call_is_answered() {
    within_a_minute(|| {
        for situation in [Situation::Usual, Situation::HalfOpen] {
            for place in PLACES {
                for failures in [0, 1] {
                    panics_once(situation, place, failures);
                }
            }
        }
    });
}

fn panics_once(situation: Situation, place: Place, failures: u32) {
    let what = format!("{place:?} after {failures} failures, {situation:?}");
    let (kit, user) = (Kit::by_hand(situation), User::default());
    let stack = stack(&kit, &user);
    let heard = kit.heard();
    user.failures.store(failures, Ordering::Relaxed);
    *user.panics_at.lock().unwrap() = Some(place);

    let ended = call(&kit, &user, stack.clone());
    // Without a failure nothing is sent again, and nobody asks whether it could be.
    let comes_by = !matches!(place, Place::SendAgain | Place::IsIdempotent) || failures > 0;
    assert_eq!(ended.is_none(), comes_by, "{what}");
    kit.rests().expect(&what);
    if place == Place::EndpointClassifies {
        // The only attempt: what the endpoint answered nobody can say, so it has failed.
        assert_eq!(Heard::sum(&heard).failures, 1, "{what}");
    }

    user.failures.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let next = call(&kit, &user, stack.clone());
        assert_eq!(next.expect(&what).expect(&what), 7);
        kit.rests().expect(&what);
    }
    assert!(user.looks.load(Ordering::Relaxed) > 10, "{what}");
}

#[test]
fn a_classifier_that_panics_counts_against_the_service_as_it_does_against_an_endpoint() {
    let (kit, user) = (Kit::by_hand(Situation::Usual), User::default());
    let stack = stack(&kit, &user);
    *user.panics_at.lock().unwrap() = Some(Place::BreakerClassifies);
    assert!(call(&kit, &user, stack).is_none());
    let window = user.sees.get().unwrap().breaker.snapshot().failures;
    assert_eq!(
        window.map(|window| (window.calls, window.against)),
        Some((1, 1))
    );
}

/// Makes services, but for the first time not that of one endpoint.
struct PanicsFirst(AtomicU32);

impl NewService<Endpoint> for PanicsFirst {
    type Service = tower::util::BoxCloneSyncService<(), u16, BoxError>;

    fn new_service(&self, target: &Endpoint) -> Self::Service {
        let port = target.address().port();
        if port == 2 && self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            resume_unwind(Box::new("no service for this one, as the test wants"));
        }
        let answers = service_fn(move |()| std::future::ready(Ok::<_, BoxError>(port)));
        tower::util::BoxCloneSyncService::new(answers)
    }
}

#[test]
fn an_endpoint_whose_service_cannot_be_made_takes_no_calls_from_the_others() {
    let kit = Kit::by_hand(Situation::Usual);
    let endpoints = kit.fleet(2);
    let services = Layered::new(PanicsFirst(AtomicU32::new(0)), kit.endpoint_breakers());
    let layer: BalanceLayer = kit.balance_over(&endpoints);
    let mut balance = layer.layer(services);
    let mut ports = |calls| -> Vec<_> {
        let ports = (0..calls).map(|_| tokio_test::block_on(balance.call(())).unwrap());
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    assert_eq!(ports(50), [1]);
    // The next change of the set tries again.
    let mut same = endpoints.current().endpoints().to_vec();
    same.push(endpoint(3));
    endpoints.publish(Resolution::Found, same);
    assert_eq!(ports(200), [1, 2, 3]);
    let in_flight = |endpoint: &Endpoint| endpoint.vitals().load().in_flight();
    assert!(
        endpoints
            .current()
            .endpoints()
            .iter()
            .all(|e| in_flight(e) == 0)
    );
}
