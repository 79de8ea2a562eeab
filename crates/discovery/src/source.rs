//! One look-up at a source, of which nothing is believed but that it is `Send`: it may fail, end and panic.

use std::{
    any::Any,
    error::Error,
    fmt::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

use tower_mesh_core::{Resolve, ServiceName, Update, Updates};

/// How much of an error's text is kept: it may come from far away.
const TEXT: usize = 300;

/// The stream of a [`Resolve`], opened when it is first polled.
#[derive(Default)]
pub(crate) struct Source {
    updates: Option<Updates>,
    heard: Heard,
}

/// What a look-up has brought so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    #[default]
    Nothing,
    Error,
    Answer,
}

#[derive(Debug)]
pub(crate) enum Heed {
    Update(Update),
    /// It goes on by itself.
    Failed(Box<str>),
    Ended,
    /// It has panicked and is closed.
    Panicked(Box<str>),
}

impl Source {
    pub(crate) fn poll(
        &mut self,
        resolve: &dyn Resolve,
        service: &ServiceName,
        cx: &mut Context<'_>,
    ) -> Poll<Heed> {
        if self.updates.is_none() {
            self.heard = Heard::Nothing;
        }
        let updates = &mut self.updates;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let updates = updates.get_or_insert_with(|| resolve.resolve(service));
            updates.as_mut().poll_next(cx)
        }));
        let heed = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(update)))) => Heed::Update(update),
            Ok(Poll::Ready(Some(Err(error)))) => Heed::Failed(text(&error)),
            Ok(Poll::Ready(None)) => Heed::Ended,
            Err(panic) => Heed::Panicked(panic_text(&*panic)),
        };
        match &heed {
            Heed::Update(_) => self.heard = Heard::Answer,
            Heed::Failed(_) => self.heard = self.heard.max(Heard::Error),
            Heed::Ended | Heed::Panicked(_) => self.close(),
        }
        Poll::Ready(heed)
    }

    /// What the look-up has brought; what the last one brought, if none is under way.
    pub(crate) fn heard(&self) -> Heard {
        self.heard
    }

    /// Whether a look-up is under way.
    pub(crate) fn is_open(&self) -> bool {
        self.updates.is_some()
    }

    /// Ends the look-up, if one is under way; the next poll begins another.
    pub(crate) fn close(&mut self) {
        let updates = self.updates.take();
        // Its destructor is the user's code as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(updates)));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("open", &self.is_open())
            .field("heard", &self.heard)
            .finish()
    }
}

/// The error and what caused it, cut off where it gets long.
fn text(error: &(dyn Error + 'static)) -> Box<str> {
    struct Bounded(String);

    impl fmt::Write for Bounded {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            let room = TEXT.saturating_sub(self.0.len());
            self.0.push_str(cut(s, room));
            if s.len() > room {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }

    let mut text = Bounded(String::new());
    let mut next = Some(error);
    let mut separator = "";
    while let Some(error) = next {
        if write!(text, "{separator}{error}").is_err() {
            text.0.push('…');
            break;
        }
        separator = ": ";
        next = error.source();
    }
    text.0.into()
}

fn panic_text(panic: &(dyn Any + Send)) -> Box<str> {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    format!("the source panicked: {}", cut(message, TEXT)).into()
}

/// The beginning of `text`, at most `len` bytes.
fn cut(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
