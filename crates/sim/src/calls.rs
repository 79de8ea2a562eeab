//! The calls that run, and the wakers by which they ask to be polled.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tower_mesh_core::Instant;

/// Who asks to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Call(usize),
    Client(usize),
}

/// Those who ask to be polled, in the order in which they were woken.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<Vec<Woken>>);

impl Ready {
    /// A waker that notes `who`, once until it is taken.
    pub(crate) fn waker(self: &Arc<Self>, who: Woken) -> Alarm {
        let ready = Arc::clone(self);
        let bell = Arc::new(Bell {
            who,
            rung: AtomicBool::new(false),
            ready,
        });
        let waker = Waker::from(Arc::clone(&bell));
        Alarm { bell, waker }
    }

    /// Swaps what has been noted for `empty`.
    pub(crate) fn take(&self, empty: &mut Vec<Woken>) {
        mem::swap(&mut *self.lock(), empty);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Woken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Bell {
    who: Woken,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.who);
        }
    }
}

/// A waker that can ring again once it has been heard.
#[derive(Debug)]
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Alarm {
    /// Hears it, and gives the waker to poll with.
    pub(crate) fn heard(&self) -> &Waker {
        self.bell.rung.store(false, Ordering::Relaxed);
        &self.waker
    }
}

/// What is noted of a call while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) begun: Instant,
    /// What its first attempt will have to do.
    pub(crate) work: Option<f64>,
    /// Which report it counts in.
    pub(crate) generation: u32,
}

/// The calls that run. A place is used again, its box and its waker too.
#[derive(Debug)]
pub(crate) struct Calls<F> {
    places: Vec<Place<F>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
}

#[derive(Debug)]
struct Place<F> {
    future: Pin<Box<Option<F>>>,
    alarm: Alarm,
    note: Note,
}

impl<F: Future> Calls<F> {
    pub(crate) fn new(ready: &Arc<Ready>) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            ready: Arc::clone(ready),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Adds a call; it has not been polled yet.
    pub(crate) fn add(&mut self, future: F, note: Note) -> usize {
        let nth = self.free.pop().unwrap_or_else(|| {
            let nth = self.places.len();
            let alarm = self.ready.waker(Woken::Call(nth));
            let future = Box::pin(None);
            self.places.push(Place {
                future,
                alarm,
                note,
            });
            nth
        });
        let place = &mut self.places[nth];
        place.note = note;
        place.future.as_mut().set(Some(future));
        nth
    }

    /// What is noted of a call, if it runs: a waker may ring after the call has ended.
    pub(crate) fn note(&mut self, nth: usize) -> Option<&mut Note> {
        let place = &mut self.places[nth];
        place.future.is_some().then_some(&mut place.note)
    }

    /// Polls a call; when it ends, what it ended with is dropped.
    pub(crate) fn poll<T, E>(&mut self, nth: usize) -> Poll<(Note, Result<(), E>)>
    where
        F: Future<Output = Result<T, E>>,
    {
        let place = &mut self.places[nth];
        let mut cx = Context::from_waker(place.alarm.heard());
        let Some(future) = place.future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        future.poll(&mut cx).map(|result| {
            place.future.as_mut().set(None);
            self.free.push(nth);
            (place.note, result.map(drop))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn one_who_is_woken_twice_is_polled_once_and_can_be_woken_again() {
        let ready = Arc::new(Ready::default());
        let (one, other) = (ready.waker(Woken::Call(1)), ready.waker(Woken::Client(1)));
        let mut woken = Vec::new();
        one.waker.wake_by_ref();
        other.waker.wake_by_ref();
        one.waker.wake_by_ref();
        ready.take(&mut woken);
        assert_eq!(woken, [Woken::Call(1), Woken::Client(1)]);
        woken.clear();
        one.heard().wake_by_ref();
        ready.take(&mut woken);
        assert_eq!(woken, [Woken::Call(1)]);
    }

    #[test]
    fn the_place_of_a_call_that_has_ended_is_used_again() {
        let mut calls = Calls::new(&Arc::default());
        let note = Note {
            begun: Instant::from_nanos(1),
            work: None,
            generation: 0,
        };
        let done = || poll_fn(|_| Poll::Ready(Ok::<_, ()>(())));
        let first = calls.add(done(), note);
        assert!(calls.poll(first).is_ready());
        assert_eq!((calls.running(), calls.note(first).is_none()), (0, true));
        assert!(calls.poll(first).is_pending(), "a late wake-up is harmless");
        assert_eq!(calls.add(done(), note), first);
        assert_eq!(calls.running(), 1);
    }
}
