//! A stream that one attempt after another may read.
//!
//! Each attempt has a [`Reader`], and one of them at a time has the stream. What it reads is recorded on a tape, as long
//! as a [`Keeper`] may ask for another reader, which then has the tape played before it reads on.
//!
//! | what happens | the stream |
//! |---|---|
//! | a reader is asked for | stands still: what is promised to it must not grow beyond the limit meanwhile |
//! | it is polled for the first time | is its; the reader before it ends with an error |
//! | it is dropped before that | goes on with the reader before it |
//! | a reader is dropped that has the stream | waits for another, or is dropped if there can be none |
//! | more goes through than the limit | belongs to who reads it, for good, and nothing is recorded any more |
//! | the last keeper is dropped | the same, once what is left to play has been played |
//! | it fails or panics | is gone |
//!
//! An attempt's body is polled where its connection is, so two readers may be polled at once, on different threads, and
//! the older may be one that nobody polls again, since its endpoint reads no more. So the stream lies in the middle, is
//! taken out to be polled, and put back: no lock is held while it is polled, and nobody waits longer than for one poll.

use std::{
    error, fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower_mesh_core::{BoxError, sync::lock};

use super::{Stream, tape::Tape};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The body of one attempt.
pub(super) struct Reader {
    shared: Arc<Shared>,
    id: u32,
}

/// Makes the bodies of further attempts.
pub(crate) struct Keeper(Arc<Shared>);

type Shared = Mutex<State>;

struct State {
    source: Source,
    /// What the stream said is left in it when it was polled last.
    rest: SizeHint,
    /// None once the stream cannot be had from its beginning.
    tape: Option<Tape>,
    /// Who has the stream, if it still exists.
    owner: Option<u32>,
    /// Who will have it when polled. Only together with a tape.
    claim: Option<u32>,
    /// The owner's, when it was told to wait.
    waiting: Option<Waker>,
    keepers: u32,
    ids: u32,
}

enum Source {
    Here(Stream),
    /// Being polled by an owner, perhaps a former one.
    Out,
    Ended,
    /// With the error, if the one who has to be told was not there.
    Failed(Option<BoxError>),
    /// It panicked, or belongs to one reader.
    Gone,
}

/// What a reader does.
enum Turn {
    Answer(Polled),
    Poll(Stream),
    /// Nobody else will ever want it.
    Own(Stream),
}

/// What a reader brings.
pub(super) enum Read {
    Frame(Polled),
    /// From now on the stream is this reader's alone.
    Alone(Stream),
}

/// Shares `stream` between this attempt and those that will be asked for.
pub(super) fn share(stream: Stream, limit: usize) -> (Reader, Keeper) {
    let rest = stream.size_hint();
    let expected = usize::try_from(rest.lower()).unwrap_or(usize::MAX);
    // Of what will not fit nothing has to be copied: until the first byte it can be sent again all the same.
    let limit = if expected > limit { 0 } else { limit };
    let shared = Arc::new(Mutex::new(State {
        source: Source::Here(stream),
        rest,
        tape: Some(Tape::new(limit, expected)),
        owner: Some(0),
        claim: None,
        waiting: None,
        keepers: 1,
        ids: 0,
    }));
    let reader = Reader {
        shared: Arc::clone(&shared),
        id: 0,
    };
    (reader, Keeper(shared))
}

impl Reader {
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Read {
        loop {
            let (turn, after) = lock(&self.shared).turn(self.id, cx);
            let out = match turn {
                Turn::Answer(answer) => {
                    after.happens();
                    return Read::Frame(answer);
                }
                Turn::Own(stream) => return Read::Alone(stream),
                Turn::Poll(stream) => TakenOut {
                    shared: &self.shared,
                    stream: Some(stream),
                },
            };
            after.happens();
            // At most once more: who has been overtaken is told so, and who has to wait waits.
            if let Some(answer) = self.poll_stream(out, cx) {
                return Read::Frame(answer);
            }
        }
    }

    /// Polls the stream and puts it back; nothing if what it brought is for another.
    fn poll_stream(&self, mut out: TakenOut<'_>, cx: &mut Context<'_>) -> Option<Polled> {
        let stream = out.stream.as_mut()?;
        let mut polled = stream.as_mut().poll_frame(cx);
        let rest = match &polled {
            Poll::Ready(Some(Ok(frame))) if !frame.is_trailers() && !stream.is_end_stream() => {
                Some(stream.size_hint())
            }
            _ => None,
        };
        let mut stream = out.stream.take();
        // What is left of the stream and of what it brought is dropped when the lock is free: it is the user's.
        let (is_mine, after) =
            lock(&self.shared).put_back(self.id, &mut stream, &mut polled, rest, cx);
        after.happens();
        is_mine.then_some(polled)
    }

    /// Another keeper, for one who keeps this request as well; nothing if some of it has been read.
    pub(super) fn keep(&self) -> Option<Keeper> {
        let mut state = lock(&self.shared);
        let unread = state.claim == Some(self.id)
            || (state.owner == Some(self.id) && state.tape.as_ref().is_some_and(Tape::is_empty));
        if !unread {
            return None;
        }
        state.keepers += 1;
        drop(state);
        Some(Keeper(Arc::clone(&self.shared)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = lock(&self.shared);
        let nothing_left = if state.claim == Some(self.id) {
            state.tape.as_ref().is_some_and(Tape::is_empty)
        } else {
            state.owner == Some(self.id) && !state.tape.as_ref().is_some_and(Tape::has_more)
        };
        nothing_left && matches!(state.source, Source::Ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = lock(&self.shared);
        let played = if state.claim == Some(self.id) {
            state.tape.as_ref().map_or(0, Tape::whole)
        } else if state.owner == Some(self.id) {
            state.tape.as_ref().map_or(0, Tape::left)
        } else {
            return SizeHint::default();
        };
        let mut hint = SizeHint::new();
        hint.set_lower(state.rest.lower().saturating_add(played));
        let upper = (state.rest.upper()).and_then(|upper| upper.checked_add(played));
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        let mut after = After::default();
        if state.claim == Some(self.id) {
            state.claim = None;
            after.wakes = state.waiting.take();
        } else if state.owner == Some(self.id) {
            state.owner = None;
            after.drops = state.waiting.take();
        }
        let unused = state.release();
        drop(state);
        drop(unused);
        after.happens();
    }
}

impl Keeper {
    /// The body of another attempt; nothing if the stream cannot be had from its beginning any more.
    ///
    /// One that was made before and not polled is of no use any more.
    pub(super) fn again(&self) -> Option<Reader> {
        let mut state = lock(&self.0);
        let whole = state.tape.is_some()
            && match state.source {
                Source::Here(_) | Source::Out | Source::Ended => true,
                Source::Failed(_) | Source::Gone => false,
            };
        if !whole {
            return None;
        }
        state.ids = state.ids.wrapping_add(1);
        state.claim = Some(state.ids);
        Some(Reader {
            shared: Arc::clone(&self.0),
            id: state.ids,
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.keepers -= 1;
        let unused = state.release();
        drop(state);
        drop(unused);
    }
}

impl State {
    /// What reader `id` does now that it is polled.
    fn turn(&mut self, id: u32, cx: &Context<'_>) -> (Turn, After) {
        let mut after = After::default();
        if self.claim == Some(id) {
            self.claim = None;
            self.owner = Some(id);
            // Whoever had the stream has it no more, and has to know.
            after.wakes = self.waiting.take();
            if let Some(tape) = &mut self.tape {
                tape.rewind();
            }
        }
        let turn = if self.owner != Some(id) {
            Turn::Answer(Interrupted::Overtaken.answer())
        } else if self.claim.is_some() {
            self.wait(cx, &mut after)
        } else {
            self.read(cx, &mut after)
        };
        (turn, after)
    }

    fn wait(&mut self, cx: &Context<'_>, after: &mut After) -> Turn {
        match &self.waiting {
            Some(waiting) if waiting.will_wake(cx.waker()) => {}
            _ => after.drops = self.waiting.replace(cx.waker().clone()),
        }
        Turn::Answer(Poll::Pending)
    }

    /// What the owner does, if nobody else wants the stream.
    fn read(&mut self, cx: &Context<'_>, after: &mut After) -> Turn {
        let kept = self.keepers > 0;
        if let Some(frame) = self.tape.as_mut().and_then(|tape| tape.play(kept)) {
            return Turn::Answer(Poll::Ready(Some(Ok(frame))));
        }
        self.forget();
        match std::mem::replace(&mut self.source, Source::Out) {
            Source::Here(stream) if self.tape.is_some() => Turn::Poll(stream),
            Source::Here(stream) => {
                self.source = Source::Gone;
                Turn::Own(stream)
            }
            Source::Out => self.wait(cx, after),
            Source::Ended => {
                self.source = Source::Ended;
                Turn::Answer(Poll::Ready(None))
            }
            Source::Failed(error) => {
                self.source = Source::Failed(None);
                Turn::Answer(error.map_or_else(
                    || Interrupted::Broken.answer(),
                    |error| Poll::Ready(Some(Err(error))),
                ))
            }
            Source::Gone => {
                self.source = Source::Gone;
                Turn::Answer(Interrupted::Broken.answer())
            }
        }
    }

    /// Takes back the stream that reader `id` has polled, with what that brought, and `rest` unless it has ended. Says
    /// whether that is this reader's; if not, it is where the one who gets it will find it.
    fn put_back(
        &mut self,
        id: u32,
        stream: &mut Option<Stream>,
        polled: &mut Polled,
        rest: Option<SizeHint>,
        cx: &Context<'_>,
    ) -> (bool, After) {
        let mut after = After::default();
        let overtaken = self.owner != Some(id);
        if overtaken {
            after.wakes = self.waiting.take();
        }
        let is_mine = !overtaken && self.claim.is_none();
        let goes_on = polled.is_pending() || rest.is_some();
        self.source = match stream.take_if(|_| goes_on && self.is_wanted()) {
            Some(stream) => Source::Here(stream),
            None => Source::Ended,
        };
        match polled {
            Poll::Pending if is_mine => {
                let _ = self.wait(cx, &mut after);
            }
            Poll::Pending => {}
            Poll::Ready(Some(Err(_))) => {
                self.rest = SizeHint::default();
                self.source = Source::Failed(None);
                if !is_mine
                    && let Poll::Ready(Some(Err(error))) = std::mem::replace(polled, Poll::Pending)
                {
                    self.source = Source::Failed(Some(error));
                }
            }
            Poll::Ready(frame) => {
                self.rest = rest.unwrap_or_else(|| SizeHint::with_exact(0));
                if let Some(Ok(frame)) = frame {
                    self.record(frame, is_mine);
                }
            }
        }
        (is_mine, after)
    }

    fn record(&mut self, frame: &Frame<Bytes>, is_had: bool) {
        let Some(tape) = &mut self.tape else {
            return;
        };
        if !is_had {
            tape.hold(frame);
        } else if self.keepers == 0 || !tape.record(frame) {
            self.tape = None;
        }
    }

    /// Whether anybody reads it or may still ask for it.
    fn is_wanted(&self) -> bool {
        self.keepers > 0 || self.claim.is_some() || self.owner.is_some()
    }

    /// Gives up the tape if it has been played to the one who has the stream, and nobody can be next.
    fn forget(&mut self) {
        // What a former owner still brings has to go onto the tape.
        let is_out = matches!(self.source, Source::Out);
        let is_left = self.tape.as_ref().is_some_and(Tape::has_more);
        if self.keepers == 0 && self.claim.is_none() && !is_out && !is_left {
            self.tape = None;
        }
    }

    /// Lets go of what nobody can want any more: the stream, to be dropped when the lock is free.
    fn release(&mut self) -> Option<Source> {
        if self.is_wanted() {
            self.forget();
            return None;
        }
        self.tape = None;
        Some(std::mem::replace(&mut self.source, Source::Gone))
    }
}

/// What has to happen when the lock is free: what tasks do when they are woken or dropped is theirs.
#[must_use]
#[derive(Default)]
struct After {
    wakes: Option<Waker>,
    drops: Option<Waker>,
}

impl After {
    fn happens(self) {
        drop(self.drops);
        if let Some(waker) = self.wakes {
            waker.wake();
        }
    }
}

/// The stream while it is polled: lost, if that panics.
struct TakenOut<'a> {
    shared: &'a Shared,
    stream: Option<Stream>,
}

impl Drop for TakenOut<'_> {
    fn drop(&mut self) {
        if self.stream.is_some() {
            let mut state = lock(self.shared);
            state.source = Source::Gone;
            state.rest = SizeHint::default();
            let after = After {
                wakes: state.waiting.take(),
                drops: None,
            };
            drop(state);
            after.happens();
        }
    }
}

/// Why the body of an attempt ends before its time, when the stream itself does not say why.
#[derive(Clone, Copy, Debug)]
enum Interrupted {
    Overtaken,
    Broken,
}

impl Interrupted {
    fn answer(self) -> Polled {
        Poll::Ready(Some(Err(self.into())))
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overtaken => "the request's body is read by a later attempt",
            Self::Broken => "the request's body broke in an earlier attempt",
        })
    }
}

impl error::Error for Interrupted {}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod threads;
