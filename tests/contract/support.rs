//! Examinations of stacks whose layers can be looked into.

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroUsize},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_mesh::{
    balance::{Balance, BalanceLayer},
    breaker::{Breaker, BreakerLayer, Policy, State, Window},
    core::{
        BoxError, Clock, Empties, Endpoint, Endpoints, Finish, Instant, Judge, JudgeKind, Layered,
        ManualClock, Outcome, Ratio, Resolve, Rng, Sampling, ServiceName, Shared, Shut, Standing,
        Ticket, Update, Updates,
        testing::{
            Violations,
            contract::{Contract, Inner, Rule, Subject, Tally},
        },
    },
    discovery::{Discovery, DiscoveryLayer, Static},
    limit::{BulkheadLayer, DeadlineLayer},
    retry::{Backoff, Budget, RetryLayer},
};

/// The deadline of a call, and what a retry lets one attempt take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);
pub(crate) const PER_TRY: Duration = Duration::from_millis(300);
/// As many attempts as a call may make.
pub(crate) const ATTEMPTS: u32 = 3;
/// All of a call's attempts and the waits between them.
pub(crate) const ALL_TRIES: Duration = Duration::from_millis(1_000);

/// In which nothing expires: longer than any examination takes.
pub(crate) const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const OPEN_FOR: Duration = Duration::from_millis(1);

/// In what situation a stack is examined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Situation {
    Usual,
    /// No time is ever up, so that who was not woken is not found by a timer either.
    Patient,
    /// Each breaker has one place for a probe, and stays half-open whatever becomes of the probes.
    HalfOpen,
}

/// An examination on a clock that it moves by hand.
pub(crate) struct Exam<Req, Res> {
    request: Rc<dyn Fn() -> Req>,
    response: Arc<dyn Fn() -> Res + Send + Sync>,
    attempts: u32,
    ends_within: Option<Duration>,
    without: Option<Rule>,
}

impl Exam<&'static str, &'static str> {
    /// Requests and responses that need no layer to know HTTP.
    pub(crate) fn plain() -> Self {
        Self::new(|| "request", || "response")
    }
}

impl<Req: 'static, Res: 'static> Exam<Req, Res> {
    pub(crate) fn new(
        request: impl Fn() -> Req + 'static,
        response: impl Fn() -> Res + Send + Sync + 'static,
    ) -> Self {
        Self {
            request: Rc::new(request),
            response: Arc::new(response),
            attempts: 1,
            ends_within: None,
            without: None,
        }
    }

    pub(crate) fn attempts(mut self, most: u32) -> Self {
        self.attempts = most;
        self
    }

    pub(crate) fn ends_within(mut self, time: Duration) -> Self {
        self.ends_within = Some(time);
        self
    }

    pub(crate) fn without(mut self, rule: Rule) -> Self {
        self.without = Some(rule);
        self
    }

    /// The stack keeps every rule in every situation.
    #[track_caller]
    pub(crate) fn passes<S>(&self, stack: impl Fn(&Kit, Inner<Res>) -> S)
    where
        S: Service<Req> + Clone,
    {
        for situation in [Situation::Usual, Situation::Patient, Situation::HalfOpen] {
            if let Err(violations) = self.run(situation, &stack) {
                panic!("{situation:?}: {violations}");
            }
        }
    }

    /// The stack breaks these rules; a fault may show in others, too.
    #[track_caller]
    pub(crate) fn breaks<S>(
        &self,
        situation: Situation,
        rules: &[Rule],
        stack: impl Fn(&Kit, Inner<Res>) -> S,
    ) where
        S: Service<Req> + Clone,
    {
        let Err(broken) = self.run(situation, &stack) else {
            panic!("nothing is broken, though {rules:?} should be");
        };
        for rule in rules {
            assert!(
                broken.rules().contains(&rule.name()),
                "not {rule:?}: {broken}"
            );
        }
    }

    fn run<S>(
        &self,
        situation: Situation,
        stack: &impl Fn(&Kit, Inner<Res>) -> S,
    ) -> Result<(), Violations>
    where
        S: Service<Req> + Clone,
    {
        let (clock, hand) = Clock::manual();
        let (request, response) = (Rc::clone(&self.request), Arc::clone(&self.response));
        let mut contract = Contract::new(move || request(), move || response())
            .on_clock(hand.clone())
            .attempts(self.attempts);
        if let (Some(time), false) = (self.ends_within, situation == Situation::Patient) {
            contract = contract.ends_within(time);
        }
        if let Some(rule) = self.without {
            contract = contract.without(rule);
        }
        let examined = contract.check(|inner| {
            let kit = Kit::new(situation, &clock, &hand);
            let stack = stack(&kit, inner);
            kit.examine(stack)
        });
        examined.now_or_never().expect("its clock waits for nobody")
    }
}

type Check = Box<dyn Fn() -> Result<(), String>>;

/// Makes the layers of one stack, as the mesh configures them or tighter, and knows where to look inside them.
pub(crate) struct Kit {
    pub(crate) clock: Clock,
    pub(crate) hand: ManualClock,
    situation: Situation,
    /// Nothing in it expires: what a call takes and does not use is back at rest, to the last unit.
    budget: Budget,
    checks: RefCell<Vec<Check>>,
    tally: RefCell<Option<Box<dyn Fn() -> Tally>>>,
    heard: RefCell<Arc<[Arc<Heard>]>>,
    kept: RefCell<Vec<Box<dyn Any>>>,
}

impl Kit {
    pub(crate) fn new(situation: Situation, clock: &Clock, hand: &ManualClock) -> Self {
        Self {
            clock: clock.clone(),
            hand: hand.clone(),
            situation,
            checks: RefCell::default(),
            tally: RefCell::default(),
            budget: Budget::new(Ratio::ONE)
                .min_per_second(0)
                .window(LONG)
                .burst(LONG),
            heard: RefCell::new(Arc::new([])),
            kept: RefCell::default(),
        }
    }

    /// For what is played by hand.
    pub(crate) fn by_hand(situation: Situation) -> Self {
        let (clock, hand) = Clock::manual();
        Self::new(situation, &clock, &hand)
    }

    pub(crate) fn at_rest(&self, check: impl Fn() -> Result<(), String> + 'static) {
        self.checks.borrow_mut().push(Box::new(check));
    }

    /// Whether everything is given back.
    pub(crate) fn rests(&self) -> Result<(), String> {
        self.checks.borrow().iter().try_for_each(|check| check())
    }

    /// `service`, and how to look into the layers that it is made of.
    pub(crate) fn examine<S>(self, service: S) -> Subject<S> {
        let tally = self.tally.take();
        let subject = Subject::new(service).at_rest(move || self.rests());
        match tally {
            Some(tally) => subject.tally(tally),
            None => subject,
        }
    }

    /// `time`, unless no time is ever up.
    fn time(&self, time: Duration) -> Duration {
        match self.situation {
            Situation::Patient => LONG,
            _ => time,
        }
    }

    pub(crate) fn deadline(&self) -> DeadlineLayer {
        DeadlineLayer::new(self.time(DEADLINE)).clock(self.clock.clone())
    }

    /// Knows `endpoints` already.
    pub(crate) fn discovery(&self, endpoints: u16) -> DiscoveryLayer {
        let source = Static::new().service(orders(), (1..=endpoints).map(endpoint));
        let (discovery, mut driver) = Discovery::builder(source).clock(self.clock.clone()).build();
        let layer = discovery.layer(&orders()).wait(self.time(DEADLINE));
        let polled = driver.poll_unpin(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it goes on as long as the layer lives");
        self.kept.borrow_mut().push(Box::new(driver));
        layer
    }

    /// One permit, and room for three to wait.
    pub(crate) fn bulkhead(&self) -> BulkheadLayer {
        let layer = BulkheadLayer::new(NonZeroUsize::MIN)
            .queue(3)
            .max_wait(self.time(DEADLINE))
            .clock(self.clock.clone());
        let handle = layer.handle();
        self.at_rest(move || {
            let snapshot = handle.snapshot();
            none(snapshot.in_use, "permits are out")?;
            none(snapshot.waiting, "calls wait for a permit")
        });
        layer
    }

    /// The breaker of a service.
    pub(crate) fn breaker(&self) -> BreakerLayer {
        let layer = self.breakers_of("orders");
        let breaker = layer.handle().clone();
        if self.situation == Situation::HalfOpen {
            let fails = service_fn(|()| async { Err::<(), BoxError>("down".into()) });
            let failed = layer.layer(fails).oneshot(()).now_or_never();
            assert!(failed.is_some_and(|failed| failed.is_err()));
            self.hand.advance(OPEN_FOR);
        }
        let situation = self.situation;
        self.at_rest(move || breaker_rests(&breaker, situation));
        layer
    }

    /// Compares what the inner service does with the window of `breaker`, for one that sees attempts.
    pub(crate) fn counts_by(&self, breaker: &Breaker) {
        if self.situation != Situation::HalfOpen {
            let breaker = breaker.clone();
            *self.tally.borrow_mut() = Some(Box::new(move || {
                let window = breaker.snapshot().failures.expect("it has a rule");
                Tally {
                    successes: (window.calls - window.against).into(),
                    failures: window.against.into(),
                }
            }));
        }
    }

    /// What is heard of each endpoint.
    pub(crate) fn heard(&self) -> Arc<[Arc<Heard>]> {
        self.heard.borrow().clone()
    }

    /// Compares nothing: what the inner service answers is not the end of an attempt.
    pub(crate) fn counts_nothing(&self) {
        self.tally.take();
    }

    /// Breakers that the examination never opens; or half-open after the first failure, and for good.
    fn breakers_of(&self, name: &str) -> BreakerLayer {
        let (never, always) = (NonZeroU16::MAX, NonZeroU8::MAX);
        let policy = Policy::default()
            .failure_rate(Ratio::ONE)
            .window(Window::last(never))
            .min_calls(never.into());
        let policy = match self.situation {
            Situation::Usual | Situation::Patient => policy.consecutive_failures(None),
            Situation::HalfOpen => policy
                .consecutive_failures(NonZeroU32::MIN)
                .open_for(OPEN_FOR)
                .jitter(Ratio::ZERO)
                .probes(always)
                .reopen_at(Ratio::ONE),
        };
        BreakerLayer::new(policy)
            .name(name)
            .clock(self.clock.clone())
            .rng(Rng::seeded(1))
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Up to [`ATTEMPTS`].
    pub(crate) fn retry(&self) -> RetryLayer {
        let (budget, clock) = (self.budget(), self.clock.clone());
        (0..10).for_each(|_| budget.deposit(clock.now()));
        let layer = RetryLayer::new(budget.clone())
            .attempts(const { NonZeroU32::new(ATTEMPTS).unwrap() })
            .backoff(Backoff::exponential(
                Duration::from_millis(10),
                Duration::from_millis(40),
            ))
            .per_try_timeout(self.time(PER_TRY))
            .clock(clock.clone())
            .rng(Rng::seeded(1));
        self.at_rest(move || {
            let account = budget.snapshot(clock.now());
            let left = account.deposits as f64 - account.withdrawals as f64;
            match (account.balance - left).abs() < 1e-6 {
                true => Ok(()),
                false => Err(format!("{left} retries should be left of {account:?}")),
            }
        });
        layer
    }

    /// A fixed set of endpoints.
    pub(crate) fn fleet(&self, endpoints: u16) -> Endpoints {
        Endpoints::fixed(orders(), (1..=endpoints).map(endpoint))
    }

    pub(crate) fn balance_over(&self, endpoints: &Endpoints) -> BalanceLayer {
        BalanceLayer::new(endpoints.clone())
            .clock(self.clock.clone())
            .rng(Rng::seeded(1))
    }

    /// A balancer over `endpoints`, each of them `inner` and with a breaker.
    pub(crate) fn balance<S>(&self, endpoints: &Endpoints, inner: S) -> Balance<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let endpoint_services = Layered::new(Shared::new(inner), self.endpoint_breakers());
        let balance = self.balance_over(endpoints).layer(endpoint_services);
        self.watch(endpoints);
        balance
    }

    pub(crate) fn endpoint_breakers(&self) -> BreakerLayer {
        self.breakers_of("endpoints")
    }

    /// Looks at each endpoint, whose services and breakers have been made: at rest nothing is in flight and no probe is
    /// out; each attempt has one outcome.
    pub(crate) fn watch(&self, endpoints: &Endpoints) {
        let endpoints: Arc<[Endpoint]> = endpoints.current().endpoints().into();
        if self.situation == Situation::HalfOpen {
            for endpoint in &*endpoints {
                let probe = endpoint.vitals().attempt(&self.clock, Sampling::Mean);
                probe.unwrap().finish(Outcome::failure());
            }
            self.hand.advance(OPEN_FOR);
        }
        let heard: Arc<[_]> = endpoints.iter().map(Heard::of).collect();
        self.heard.replace(Arc::clone(&heard));
        *self.tally.borrow_mut() = Some(Box::new(move || Heard::sum(&heard)));
        let situation = self.situation;
        self.at_rest(move || {
            endpoints.iter().try_for_each(|endpoint| {
                let load = endpoint.vitals().load();
                none(load.in_flight() as usize, "attempts are in flight")?;
                let breaker = breaker_of(endpoint).ok_or("an endpoint has no breaker")?;
                breaker_rests(&breaker, situation)
            })
        });
    }
}

fn breaker_rests(breaker: &Breaker, situation: Situation) -> Result<(), String> {
    let snapshot = breaker.snapshot();
    none(snapshot.probes_out as usize, "probes are out")?;
    match (situation, snapshot.state) {
        // Open until the first call comes.
        (Situation::HalfOpen, State::HalfOpen | State::Open) => Ok(()),
        (Situation::Usual | Situation::Patient, State::Closed) => Ok(()),
        (_, state) => Err(format!("a breaker is {state}")),
    }
}

/// The breaker of an endpoint, whichever layer has made it.
pub(crate) fn breaker_of(endpoint: &Endpoint) -> Option<Breaker> {
    BreakerLayer::default().breaker(endpoint)
}

pub(crate) fn none(count: usize, what: &str) -> Result<(), String> {
    match count {
        0 => Ok(()),
        _ => Err(format!("{count} {what}")),
    }
}

pub(crate) fn orders() -> ServiceName {
    ServiceName::new("orders").unwrap()
}

pub(crate) fn endpoint(number: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], number).into())
}

/// Knows every service, 50 ms after it was asked.
pub(crate) struct Late;

impl Resolve for Late {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let answer = stream::once(async {
            Clock::tokio().sleep(Duration::from_millis(50)).await;
            Ok(Update::Replace(vec![endpoint(1)]))
        });
        Box::pin(answer.chain(stream::pending()))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "late"
    }
}

/// Hears every outcome that an endpoint's gate is told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    successes: AtomicU64,
    failures: AtomicU64,
}

impl Heard {
    /// Listens at `endpoint` from now on. An endpoint has one such judge.
    pub(crate) fn of(endpoint: &Endpoint) -> Arc<Self> {
        let vitals = endpoint.vitals();
        let judge = vitals.attach(JudgeKind::Health, |_| Arc::new(Self::default()));
        let judge: Arc<dyn Any + Send + Sync> = Arc::<dyn Judge>::clone(judge);
        judge
            .downcast()
            .expect("nobody checks the health of endpoints here")
    }

    /// What was heard of all of them.
    pub(crate) fn sum(all: &[Arc<Self>]) -> Tally {
        let sum = |count: fn(&Self) -> &AtomicU64| {
            let each = all.iter().map(|heard| count(heard).load(Ordering::Relaxed));
            each.sum()
        };
        Tally {
            successes: sum(|heard| &heard.successes),
            failures: sum(|heard| &heard.failures),
        }
    }

    /// What was heard of them since `before`.
    pub(crate) fn since(all: &[Arc<Self>], before: Tally) -> Tally {
        let now = Self::sum(all);
        Tally {
            successes: now.successes - before.successes,
            failures: now.failures - before.failures,
        }
    }
}

impl Judge for Heard {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Open
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        Ok(Ticket::new(0, false))
    }

    fn report(&self, _: Ticket, outcome: Outcome, _: Duration, _: Instant) {
        let count = match outcome.is_success() {
            true => &self.successes,
            false => &self.failures,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self, _: Ticket) {}
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").finish_non_exhaustive()
    }
}
