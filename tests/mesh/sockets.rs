//! Sockets that do what no well-behaved program does: read slowly or not at all, close one half, reset in the middle, never
//! end. Whatever they do, load and permits come back, memory is bounded, and the verdict is about who is to blame.

mod callers;
mod servers;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::support::until;

const PIECE: usize = 64 << 10;

/// More than all buffers between two ends of a connection hold, and less than what is made if nobody holds it up.
const BUFFERS: u64 = 256 << 20;

/// How much of an endless body was made.
#[derive(Clone, Default)]
struct Made(Arc<AtomicU64>);

impl Made {
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// A body without an end, as fast as somebody takes it.
    fn endless(
        &self,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        let made = self.clone();
        stream::repeat_with(move || {
            made.0.fetch_add(PIECE as u64, Ordering::SeqCst);
            Ok(Bytes::from(vec![0; PIECE]))
        })
    }

    /// Waits until no more is made for a while. A machine that stands still makes none either: it is then found too soon, and nothing is
    /// wrong with that.
    async fn stands_still(&self) {
        let mut last = 0;
        let mut times = 0;
        until("nobody takes more, and no more is made", || {
            let now = self.bytes();
            times = if now == last && now > 0 { times + 1 } else { 0 };
            last = now;
            assert!(now < BUFFERS, "{now} bytes were made that nobody has read");
            times == 20
        })
        .await;
    }
}
