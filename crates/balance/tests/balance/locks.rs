//! Flaw W11: a pick of tower's takes the locks of two loads, and calls user code under them. What becomes of all others
//! when one caller dies, or stands still, in the middle of a pick.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_test::task;
use tower::Service;
use tower_mesh_core::{Instant, Judge, JudgeKind, Outcome, Shut, Standing, Ticket};
use tracing::{Event, Metadata, Subscriber, span};

use crate::{flaws::towers, fleet::Fleet};

const CALLS: usize = 20;

/// How many of so many calls are answered.
fn answered(mut call: impl FnMut() -> bool) -> usize {
    let answers =
        (0..CALLS).filter(|_| catch_unwind(AssertUnwindSafe(&mut call)).is_ok_and(|is| is));
    answers.count()
}

/// What a balancer of ours asks of user code during a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Standing,
    Admit,
    Report,
}

/// A judge that lets every call pass, and does something first when it is asked this.
struct Asked<F>(Question, F);

impl<F: Fn()> Asked<F> {
    fn hear(&self, question: Question) {
        if question == self.0 {
            self.1();
        }
    }
}

impl<F> std::fmt::Debug for Asked<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<F: Fn() + Send + Sync + 'static> Judge for Asked<F> {
    fn standing(&self, _: Instant) -> Standing {
        self.hear(Question::Standing);
        Standing::Limited
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        self.hear(Question::Admit);
        Ok(Ticket::new(0, true))
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {
        self.hear(Question::Report);
    }

    fn release(&self, _: Ticket) {}
}

/// One endpoint, with a judge that does `this` first when it is asked `question`.
fn judged(question: Question, this: impl Fn() + Send + Sync + 'static) -> Fleet {
    let fleet = Fleet::new([1]);
    fleet.at(1).vitals().attach(JudgeKind::Breaker, |gate| {
        gate.set(true);
        Arc::new(Asked(question, this))
    });
    fleet
}

/// A subscriber of traces with a bug. It is told of a load while that is locked.
struct Bug;

impl Subscriber for Bug {
    fn enabled(&self, told: &Metadata<'_>) -> bool {
        told.target() == "tower::load::peak_ewma"
    }

    fn event(&self, _: &Event<'_>) {
        panic!("a bug in the subscriber")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn w11_who_dies_in_the_middle_of_a_pick_takes_nobody_along() {
    for question in [Question::Standing, Question::Admit, Question::Report] {
        let died = Arc::new(AtomicBool::new(false));
        let fleet = judged(question, {
            let died = Arc::clone(&died);
            move || assert!(died.swap(true, Ordering::Relaxed), "a bug in the judge")
        });
        let mut balance = fleet.balance();
        let mut call = || task::spawn(balance.call(())).poll().is_ready();
        let _ = catch_unwind(AssertUnwindSafe(&mut call));
        assert!(died.load(Ordering::Relaxed), "{question:?}");
        assert_eq!(answered(call), CALLS, "{question:?}");
    }

    let fleet = Fleet::new([1, 2]);
    let mut tower = towers(&fleet);
    let mut call = || {
        let ready = tower.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))));
        task::spawn(tower.call(())).poll().is_ready()
    };
    // A test beside this one may be the first to trace the same: then the subscriber is told only the next time.
    let all_die = (0..100).any(|_| {
        let dies = || catch_unwind(AssertUnwindSafe(&mut call)).is_err();
        tracing::subscriber::with_default(Bug, dies) && answered(&mut call) == 0
    });
    assert!(all_die, "the lock of its load is poisoned");
}

/// Where the first caller who comes by stands still until he may go on.
struct Stop {
    taken: AtomicBool,
    reached: Barrier,
    goes_on: Barrier,
}

impl Stop {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicBool::new(false),
            reached: Barrier::new(2),
            goes_on: Barrier::new(2),
        })
    }

    fn come_by(&self) {
        if !self.taken.swap(true, Ordering::Relaxed) {
            self.reached.wait();
            self.goes_on.wait();
        }
    }

    /// How many calls are answered while another caller stands here.
    fn answered_meanwhile(&self, call: impl Fn() -> bool + Sync) -> usize {
        std::thread::scope(|scope| {
            let stopped = scope.spawn(&call);
            self.reached.wait();
            let answered = answered(&call);
            self.goes_on.wait();
            assert!(stopped.join().unwrap(), "he is answered in the end");
            answered
        })
    }
}

/// A load as tower measures it: under a lock, under which a subscriber of traces is told.
#[derive(Default)]
struct Locked(Mutex<f64>);

impl Locked {
    /// Whether it could be had without waiting for somebody else.
    fn measure(&self, subscriber: impl FnOnce()) -> bool {
        let Ok(mut load) = self.0.try_lock() else {
            return false;
        };
        *load += 1.0;
        subscriber();
        true
    }
}

#[test]
fn w11_who_stands_still_in_the_middle_of_a_pick_stops_nobody() {
    for question in [Question::Standing, Question::Admit, Question::Report] {
        let stop = Stop::new();
        let fleet = judged(question, {
            let stop = Arc::clone(&stop);
            move || stop.come_by()
        });
        let balance = fleet.balance();
        let call = || task::spawn(balance.clone().call(())).poll().is_ready();
        assert_eq!(stop.answered_meanwhile(call), CALLS, "{question:?}");
    }

    let (stop, theirs) = (Stop::new(), Locked::default());
    let call = || theirs.measure(|| stop.come_by());
    assert_eq!(stop.answered_meanwhile(call), 0);
}
