use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use tokio::sync::oneshot;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::Service;
use tower_mesh_core::{BoxError, BoxFuture, Clock, ManualClock};

use super::*;
use crate::Body;

const SECOND: Duration = Duration::from_secs(1);
const CANARY: &str = "canary-7f3a";

type Given = oneshot::Sender<Result<Token, BoxError>>;

/// A provider that is played by hand: each time it is asked, what it gives can be sent.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<Given>>>);

impl Script {
    fn asked(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Answers what was asked last.
    fn gives(&self, token: Result<Token, BoxError>) {
        let given = self.0.lock().unwrap().pop().expect("it was asked");
        given.send(token).unwrap();
    }
}

impl TokenProvider for Script {
    fn token(&self) -> BoxFuture<'_, Result<Token, BoxError>> {
        let (give, given) = oneshot::channel();
        self.0.lock().unwrap().push(give);
        Box::pin(async { given.await? })
    }
}

/// A service that answers with what it is shown, or as it is told to.
#[derive(Clone, Default)]
struct Orders {
    called: Arc<AtomicUsize>,
    refuses: Arc<Mutex<Option<HeaderValue>>>,
}

impl Service<Request<Body>> for Orders {
    type Response = Response<Option<HeaderValue>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.called.fetch_add(1, SeqCst);
        let shown = request.headers().get(AUTHORIZATION).cloned();
        let refused = shown.is_some() && *self.refuses.lock().unwrap() == shown;
        let mut response = Response::new(shown);
        if refused {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        std::future::ready(Ok(response))
    }
}

struct World {
    client: Credentialed<Orders>,
    service: Orders,
    script: Script,
    driver: task::Spawn<CredentialsDriver>,
    hand: ManualClock,
}

type Call = task::Spawn<CredentialsFuture<Orders, Request<Body>>>;

impl World {
    fn new() -> Self {
        let (clock, hand) = Clock::manual();
        let script = Script::default();
        let (layer, driver) = CredentialsLayer::new(script.clone()).clock(clock).build();
        let service = Orders::default();
        let mut this = Self {
            client: layer.over(service.clone()),
            service,
            script,
            driver: task::spawn(driver),
            hand,
        };
        this.drive();
        this
    }

    fn drive(&mut self) {
        assert_pending!(self.driver.poll());
    }

    fn pass(&mut self, time: Duration) {
        self.hand.advance(time);
        self.drive();
    }

    /// The driver gives what the script gives.
    fn gives(&mut self, token: Result<Token, BoxError>) {
        self.script.gives(token);
        self.drive();
    }

    /// A call that has to wait, of which the driver has heard.
    fn call(&mut self) -> Call {
        let mut call = task::spawn(self.client.call(Request::new(Body::empty())));
        assert_pending!(call.poll());
        self.drive();
        call
    }

    /// What a call shows that is answered at once.
    fn shows(&mut self) -> String {
        let mut call = task::spawn(self.client.call(Request::new(Body::empty())));
        text(assert_ready_ok!(call.poll()))
    }
}

fn text(response: Response<Option<HeaderValue>>) -> String {
    let shown = response.into_body().expect("nothing was shown");
    assert!(shown.is_sensitive());
    shown.to_str().unwrap().to_owned()
}

fn token(text: &str, life: Duration) -> Result<Token, BoxError> {
    Ok(Token::bearer(text)?.expires_in(life))
}

#[test]
fn all_who_wait_have_the_one_token_and_those_who_come_later_have_it_at_once() {
    let mut world = World::new();
    assert_eq!(world.script.asked(), 0, "nobody has called");
    let (mut first, mut second) = (world.call(), world.call());
    assert_eq!(
        (world.script.asked(), world.service.called.load(SeqCst)),
        (1, 0)
    );
    world.gives(token("one", 100 * SECOND));
    assert!(first.is_woken() && second.is_woken());
    assert_eq!(text(assert_ready_ok!(first.poll())), "Bearer one");
    assert_eq!(text(assert_ready_ok!(second.poll())), "Bearer one");
    assert_eq!(world.shows(), "Bearer one");
    world.pass(79 * SECOND);
    assert_eq!(world.script.asked(), 0);
}

#[test]
fn the_next_token_is_there_before_the_last_one_expires() {
    let mut world = World::new();
    let mut call = world.call();
    world.gives(token("one", 100 * SECOND));
    assert_ready_ok!(call.poll()).into_body();
    world.pass(80 * SECOND);
    assert_eq!(world.script.asked(), 1, "at four fifths");
    assert_eq!(world.shows(), "Bearer one", "nobody waits for it");
    world.gives(token("two", 100 * SECOND));
    assert_eq!(world.shows(), "Bearer two");
}

#[test]
fn a_service_that_nobody_calls_costs_no_token() {
    let mut world = World::new();
    let mut call = world.call();
    world.gives(token("one", 100 * SECOND));
    assert_ready_ok!(call.poll()).into_body();
    world.pass(80 * SECOND);
    world.gives(token("two", 100 * SECOND));
    for _ in 0..100 {
        world.pass(10 * SECOND);
    }
    assert_eq!(world.script.asked(), 0, "it was not used since");
    let mut call = world.call();
    assert_eq!(world.script.asked(), 1, "what has expired is not shown");
    world.gives(token("three", 100 * SECOND));
    assert_eq!(text(assert_ready_ok!(call.poll())), "Bearer three");
}

#[test]
fn a_provider_that_fails_fails_those_who_wait_and_is_left_alone_for_longer_and_longer() {
    let mut world = World::new();
    let mut pause = SECOND;
    for _ in 0..8 {
        let mut call = world.call();
        assert_eq!(world.script.asked(), 1);
        world.gives(Err("down".into()));
        let error = assert_ready_err!(call.poll());
        assert_eq!(error.to_string(), "there is no token for the service");
        assert_eq!(error.source().unwrap().to_string(), "down");
        let mut next = task::spawn(world.client.call(Request::new(Body::empty())));
        assert_ready_err!(next.poll());
        assert_eq!(world.script.asked(), 0, "not asked again at once");
        world.pass(pause);
        pause = (2 * pause).min(30 * SECOND);
    }
    assert_eq!(world.service.called.load(SeqCst), 0, "nothing was sent");
    let mut call = world.call();
    world.gives(token("one", 100 * SECOND));
    assert_ready_ok!(call.poll()).into_body();
}

#[test]
fn while_a_token_holds_a_provider_that_fails_hurts_nobody() {
    let mut world = World::new();
    let mut call = world.call();
    world.gives(token("one", 100 * SECOND));
    assert_ready_ok!(call.poll()).into_body();
    world.pass(80 * SECOND);
    world.gives(Err("down".into()));
    assert_eq!(world.shows(), "Bearer one");
    world.pass(SECOND);
    assert_eq!(
        world.script.asked(),
        1,
        "it is in use, so it is tried again"
    );
    world.gives(token("two", 100 * SECOND));
    assert_eq!(world.shows(), "Bearer two");
}

#[test]
fn a_provider_that_hangs_or_panics_is_one_that_fails() {
    let mut world = World::new();
    let mut call = world.call();
    world.pass(10 * SECOND);
    let error = assert_ready_err!(call.poll());
    assert_eq!(
        error.source().unwrap().to_string(),
        "the provider gave none in 10s"
    );

    let (clock, _hand) = Clock::manual();
    let panics = || async { panic!("boom") };
    let (layer, driver) = CredentialsLayer::new(panics).clock(clock).build();
    let mut driver = task::spawn(driver);
    let mut client = layer.over(Orders::default());
    let mut call = task::spawn(client.call(Request::new(Body::empty())));
    assert_pending!(call.poll());
    assert_pending!(driver.poll());
    let error = assert_ready_err!(call.poll());
    assert_eq!(error.source().unwrap().to_string(), "the provider panicked");
}

#[test]
fn a_token_that_is_refused_is_not_shown_again_and_renewed_once_a_second_at_most() {
    let mut world = World::new();
    let mut call = world.call();
    world.gives(token("one", 100 * SECOND));
    assert_ready_ok!(call.poll()).into_body();
    *world.service.refuses.lock().unwrap() = Some(HeaderValue::from_static("Bearer one"));
    let mut refused = task::spawn(world.client.call(Request::new(Body::empty())));
    let answer = assert_ready_ok!(refused.poll());
    assert_eq!(
        answer.status(),
        StatusCode::UNAUTHORIZED,
        "it is the caller's"
    );
    let mut call = world.call();
    assert_eq!(world.script.asked(), 0, "a second has not passed");
    world.pass(SECOND);
    world.gives(token("two", 100 * SECOND));
    assert_eq!(text(assert_ready_ok!(call.poll())), "Bearer two");
}

#[test]
fn what_a_request_shows_by_itself_it_shows() {
    let mut world = World::new();
    let own = Request::builder().header(AUTHORIZATION, "Basic own");
    let own = own.body(Body::empty()).unwrap();
    let mut call = task::spawn(world.client.call(own));
    let answer = assert_ready_ok!(call.poll());
    assert_eq!(answer.into_body().unwrap(), "Basic own");
    world.drive();
    assert_eq!(world.script.asked(), 0);
}

#[test]
fn a_driver_that_is_gone_fails_those_who_wait_and_a_call_that_is_dropped_leaves_nothing() {
    let mut world = World::new();
    drop(world.call());
    let mut call = world.call();
    assert_eq!(world.script.asked(), 1, "one was asked for all");
    drop(world.driver);
    assert!(call.is_woken());
    let error = assert_ready!(call.poll()).unwrap_err();
    assert_eq!(
        error.source().unwrap().to_string(),
        "what asks for it has ended"
    );
    assert_eq!(world.hand.timers(), 0);
}

// row 21
#[test]
fn a_token_is_printed_nowhere() {
    let mut world = World::new();
    let mut call = world.call();
    world.gives(token(CANARY, 100 * SECOND));
    assert_eq!(
        text(assert_ready_ok!(call.poll())),
        format!("Bearer {CANARY}")
    );
    let mut shown = Request::new(Body::empty());
    let held = token(CANARY, SECOND).unwrap();
    shown
        .headers_mut()
        .insert(AUTHORIZATION, held.header.clone());
    let invalid = Token::bearer(&format!("{CANARY} {CANARY}")).unwrap_err();
    let call = task::spawn(world.client.call(Request::new(Body::empty())));
    let printed = format!(
        "{:?} {:?} {held:?} {shown:?} {invalid} {invalid:?} {:?}",
        world.client, world.driver, call,
    );
    assert!(!printed.contains(CANARY), "{printed}");
}
