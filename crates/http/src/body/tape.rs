//! What has gone through of a stream, to be played again: no clock, no I/O, no locks.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// A record of the frames of a body, of limited length, and how far its reader has come.
///
/// Data is copied onto it, not shared: a share of a frame holds the buffer that it was cut from, which may be of any
/// size, and a thousand frames of a byte would cost more to hold than they say.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// What may have to be played yet, or again.
    chunks: Vec<Bytes>,
    /// The first of the chunks that the reader has not had.
    next: usize,
    /// What the reader had live, after all chunks; grows with each frame. Empty unless `next` is behind the last chunk.
    live: Vec<u8>,
    trailers: Option<HeaderMap>,
    trailers_had: bool,
    /// Bytes of all of it, the trailers' included.
    len: usize,
    limit: usize,
    /// How much is expected to be recorded.
    expected: usize,
}

/// So that a stream of small frames does not begin with many small steps.
const FIRST_STEP: usize = 1024;

impl Tape {
    /// A tape for up to `limit` bytes, of which `expected` will come if all goes well.
    pub(super) fn new(limit: usize, expected: usize) -> Self {
        Self {
            limit,
            expected,
            ..Self::default()
        }
    }

    /// Whether nothing is on it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.trailers.is_none()
    }

    /// Records what its reader just had live; false if that is more than fits.
    #[must_use]
    pub(super) fn record(&mut self, frame: &Frame<Bytes>) -> bool {
        debug_assert!(!self.has_more(), "live frames come after what is played");
        let len = length(frame);
        if len > self.limit - self.len.min(self.limit) {
            return false;
        }
        self.len += len;
        if let Some(data) = frame.data_ref() {
            self.grow(data.len());
            self.live.extend_from_slice(data);
            true
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.trailers_had = true;
            true
        } else {
            // A kind of frame that is not known here.
            false
        }
    }

    /// Records what its reader has yet to have, whatever its length: somebody relies on the tape being whole.
    pub(super) fn hold(&mut self, frame: &Frame<Bytes>) {
        self.cut();
        self.len += length(frame);
        if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
            self.chunks.push(Bytes::copy_from_slice(data));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    /// Begins again for another reader.
    pub(super) fn rewind(&mut self) {
        self.cut();
        self.next = 0;
        self.trailers_had = false;
    }

    /// The next frame that the reader has not had, which stays on the tape for another, or is taken off it.
    pub(super) fn play(&mut self, for_another: bool) -> Option<Frame<Bytes>> {
        if let Some(chunk) = self.chunks.get_mut(self.next) {
            self.next += 1;
            let data = if for_another {
                chunk.clone()
            } else {
                std::mem::take(chunk)
            };
            return Some(Frame::data(data));
        }
        if self.trailers_had {
            return None;
        }
        let trailers = self.trailers.clone()?;
        self.trailers_had = true;
        Some(Frame::trailers(trailers))
    }

    /// Whether there is anything the reader has not had.
    pub(super) fn has_more(&self) -> bool {
        self.next < self.chunks.len() || (self.trailers.is_some() && !self.trailers_had)
    }

    /// Bytes of data that the reader has not had.
    pub(super) fn left(&self) -> u64 {
        sum(&self.chunks[self.next..])
    }

    /// Bytes of data that another reader would have.
    pub(super) fn whole(&self) -> u64 {
        sum(&self.chunks) + self.live.len() as u64
    }

    /// Makes a chunk of what was had live.
    fn cut(&mut self) {
        if !self.live.is_empty() {
            let live = std::mem::take(&mut self.live);
            self.chunks.push(live.into());
            self.next += 1;
        }
    }

    /// Makes room for `more` bytes: twice as much as there was, as vectors do, but never for more than the limit.
    fn grow(&mut self, more: usize) {
        let needed = self.live.len() + more;
        let capacity = self.live.capacity();
        if needed > capacity {
            let most = self.limit - (self.len - needed.min(self.len)).min(self.limit);
            let step = if capacity == 0 {
                self.expected.max(FIRST_STEP)
            } else {
                2 * capacity
            };
            let target = step.min(most).max(needed);
            self.live.reserve_exact(target - self.live.len());
        }
    }
}

fn sum(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

fn length(frame: &Frame<Bytes>) -> usize {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => data.len(),
        (None, Some(trailers)) => trailers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum(),
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn played(tape: &mut Tape) -> Vec<Bytes> {
        std::iter::from_fn(|| tape.play(true))
            .filter_map(|frame| frame.into_data().ok())
            .collect()
    }

    #[test]
    fn what_was_had_live_is_played_again_in_one_piece_as_often_as_wanted() {
        let mut tape = Tape::new(10, 0);
        assert!(tape.record(&data("ab")) && tape.record(&data("")) && tape.record(&data("cd")));
        assert!(tape.play(true).is_none(), "its reader has had it all");
        for _ in 0..2 {
            tape.rewind();
            assert_eq!((tape.left(), tape.whole()), (4, 4));
            assert_eq!(played(&mut tape), ["abcd"]);
        }
        assert!(tape.record(&data("ef")));
        tape.rewind();
        assert_eq!(played(&mut tape), ["abcd", "ef"]);
    }

    #[test]
    fn the_limit_is_exact_and_holds_for_trailers_too() {
        let mut tape = Tape::new(4, 0);
        assert!(tape.record(&data("abcd")));
        assert!(!tape.record(&data("e")));
        let trailers = || Frame::trailers(crate::script::grpc_status("0"));
        assert!(!tape.record(&trailers()));
        assert!(Tape::new(12, 0).record(&trailers()));
        assert!(!Tape::new(11, 0).record(&trailers()));
    }

    #[test]
    fn what_is_held_is_what_the_reader_has_next_and_whatever_its_length() {
        let mut tape = Tape::new(2, 0);
        assert!(tape.record(&data("ab")));
        tape.hold(&data("cdef"));
        assert_eq!((tape.left(), tape.whole()), (4, 6));
        assert_eq!(played(&mut tape), ["cdef"]);
        tape.rewind();
        assert_eq!(played(&mut tape), ["ab", "cdef"]);
    }

    #[test]
    fn it_never_makes_room_for_more_than_the_limit() {
        const LIMIT: usize = 64 * 1024;
        for expected in [0, 5_000, LIMIT] {
            let mut tape = Tape::new(LIMIT, expected);
            for _ in 0..LIMIT / 1_000 {
                assert!(tape.record(&Frame::data(Bytes::from(vec![0; 1_000]))));
                assert!(tape.live.capacity() <= LIMIT, "{expected}");
                assert!(tape.live.capacity() >= expected);
            }
        }
    }

    #[test]
    fn what_is_played_for_nobody_else_is_not_kept() {
        let mut tape = Tape::new(10, 0);
        assert!(tape.record(&data("ab")));
        tape.rewind();
        assert_eq!(tape.play(false).unwrap().into_data().unwrap(), "ab");
        assert_eq!(tape.whole(), 0);
    }
}
