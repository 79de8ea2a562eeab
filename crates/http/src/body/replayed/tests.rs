use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_test::{assert_pending, block_on, task};
use tower_mesh_core::BoxError;

use super::*;
use crate::{
    body::{Body, KeptBody, Kind, Streamed},
    script::{Script, Step, grpc_status},
};

const LIMIT: usize = 16;

type Send = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;
pub(super) type Task = task::Spawn<Body>;

/// A body that is kept for other attempts, and the other end of its stream.
fn kept() -> (Send, Task, KeptBody) {
    let (send, frames) = mpsc::unbounded_channel();
    let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(frames)));
    let (body, kept) = keep(body);
    (send, body, kept)
}

pub(super) fn keep(mut body: Body) -> (Task, KeptBody) {
    let kept = body.keep(LIMIT).unwrap();
    (task::spawn(body), kept)
}

fn scripted(steps: impl IntoIterator<Item = Step>) -> (Task, KeptBody) {
    keep(Body::new(Script::new(steps)))
}

pub(super) fn again(kept: &KeptBody) -> Task {
    task::spawn(kept.again().unwrap())
}

fn say(send: &Send, text: &'static str) {
    send.send(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
        .unwrap();
}

pub(super) fn poll(body: &mut Task) -> Polled {
    body.enter(|cx, body| body.poll_frame(cx))
}

/// The data that is there.
pub(super) fn read(body: &mut Task) -> Bytes {
    match poll(body) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("data"),
        other => panic!("{other:?}"),
    }
}

/// The error that is there.
pub(super) fn error(body: &mut Task) -> String {
    match poll(body) {
        Poll::Ready(Some(Err(error))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn assert_end(body: &mut Task) {
    let polled = poll(body);
    assert!(matches!(polled, Poll::Ready(None)), "{polled:?}");
}

/// All that is left, and the trailers.
pub(super) fn rest(body: Task) -> (Bytes, Option<http::HeaderMap>) {
    let all = block_on(body.into_inner().collect()).unwrap();
    let trailers = all.trailers().cloned();
    (all.to_bytes(), trailers)
}

pub(super) const OVERTAKEN: &str = "the request's body is read by a later attempt";
const BROKEN: &str = "the request's body broke in an earlier attempt";

#[test]
fn the_first_attempt_sends_what_is_there_and_reads_no_further() {
    let (send, mut first, _kept) = kept();
    assert_pending!(poll(&mut first));
    say(&send, "ab");
    assert!(first.is_woken());
    say(&send, "c");
    assert_eq!(read(&mut first), "ab");
    assert_eq!(read(&mut first), "c");
    assert_pending!(poll(&mut first));
    drop(send);
    assert!(first.is_woken());
    assert_end(&mut first);
}

#[test]
fn a_stream_is_polled_once_for_each_frame_that_is_asked_for() {
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let frames = futures(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Some("a")
    });
    let (mut first, kept) = keep(Body::new(frames));
    assert_eq!(polls.load(Ordering::Relaxed), 0);
    assert_eq!(read(&mut first), "a");
    assert_eq!(polls.load(Ordering::Relaxed), 1, "nothing is read ahead");
    let mut second = again(&kept);
    assert_eq!(read(&mut second), "a");
    assert_eq!(polls.load(Ordering::Relaxed), 1, "played, not read");
    assert_eq!(read(&mut second), "a");
    assert_eq!(polls.load(Ordering::Relaxed), 2);
}

#[test]
fn the_second_attempt_sends_what_the_first_has_sent_and_then_the_rest() {
    let (send, mut first, kept) = kept();
    say(&send, "ab");
    say(&send, "c");
    assert_eq!(
        (read(&mut first), read(&mut first)),
        ("ab".into(), "c".into())
    );
    drop(first);
    let mut second = again(&kept);
    assert_eq!(read(&mut second), "abc", "in one piece");
    assert_pending!(poll(&mut second));
    say(&send, "d");
    assert!(second.is_woken());
    assert_eq!(read(&mut second), "d");
    drop(second);
    say(&send, "e");
    drop(send);
    for _ in 0..2 {
        assert_eq!(rest(again(&kept)), ("abcde".into(), None));
    }
}

#[test]
fn an_attempt_that_fails_in_the_middle_of_what_it_is_played_loses_nothing() {
    let (send, mut first, kept) = kept();
    say(&send, "ab");
    read(&mut first);
    let mut second = again(&kept);
    read(&mut second);
    say(&send, "cd");
    read(&mut second);
    let mut third = again(&kept);
    assert_eq!(read(&mut third), "ab");
    drop(send);
    assert_eq!(rest(again(&kept)), ("abcd".into(), None));
}

#[test]
fn trailers_come_again_also_if_only_a_later_attempt_got_as_far() {
    let trailers = || Some(grpc_status("0"));
    let (mut first, kept) = scripted([
        Step::Data("a"),
        Step::Data("b"),
        Step::Trailers(grpc_status("0")),
    ]);
    assert_eq!(read(&mut first), "a");
    for _ in 0..3 {
        assert_eq!(rest(again(&kept)), ("ab".into(), trailers()));
    }
    assert_eq!(error(&mut first), OVERTAKEN);
}

#[test]
fn up_to_the_limit_it_can_be_had_again_and_with_one_byte_more_not_and_the_rest_goes_through() {
    let (send, mut first, kept) = kept();
    say(&send, "0123456789abcdef");
    assert_eq!(read(&mut first), "0123456789abcdef");
    drop(again(&kept));
    say(&send, "i");
    assert_eq!(read(&mut first), "i");
    assert!(kept.again().is_none());
    say(&send, "j");
    drop(send);
    assert_eq!(rest(first), ("j".into(), None));
    assert!(kept.again().is_none());
}

#[test]
fn what_says_it_is_longer_than_the_limit_can_be_had_again_until_its_first_byte_is_read() {
    let (mut first, kept) = keep(Body::new(Long));
    let mut second = again(&kept);
    assert_eq!(read(&mut second), "a");
    assert_eq!(error(&mut first), OVERTAKEN);
    assert!(kept.again().is_none(), "nothing is recorded in vain");
    assert_eq!(read(&mut second), "a");
}

/// Says that it is longer than the limit, and comes in small pieces.
struct Long;

impl http_body::Body for Long {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"a")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(LIMIT as u64 + 1)
    }
}

#[test]
fn an_attempt_that_still_reads_loses_the_stream_and_is_told() {
    let (send, mut first, kept) = kept();
    say(&send, "a");
    read(&mut first);
    assert_pending!(poll(&mut first));
    let mut second = again(&kept);
    assert!(!first.is_woken(), "not before the other reads");
    assert_eq!(read(&mut second), "a");
    assert!(first.is_woken());
    assert_eq!(error(&mut first), OVERTAKEN);
    assert_eq!(first.size_hint().exact(), None);
    assert!(!first.is_end_stream());
    say(&send, "b");
    assert_eq!(read(&mut second), "b");
    drop(first);
    say(&send, "c");
    assert_eq!(read(&mut second), "c");
}

#[test]
fn between_two_attempts_the_stream_stands_still_and_goes_on_if_the_other_is_not_made() {
    let (send, mut first, kept) = kept();
    say(&send, "a");
    read(&mut first);
    let second = again(&kept);
    say(&send, "b");
    assert_pending!(poll(&mut first));
    drop(second);
    assert!(first.is_woken());
    assert_eq!(read(&mut first), "b");
    assert_pending!(poll(&mut first));

    let mut third = again(&kept);
    assert_pending!(poll(&mut first));
    assert_eq!(read(&mut third), "ab");
    assert!(first.is_woken());
    assert_eq!(error(&mut first), OVERTAKEN);
}

#[test]
fn of_two_attempts_asked_for_the_later_counts() {
    let (send, _first, kept) = kept();
    say(&send, "a");
    let mut second = again(&kept);
    let mut third = again(&kept);
    assert_eq!(error(&mut second), OVERTAKEN);
    drop(second);
    assert_eq!(read(&mut third), "a");
}

#[test]
fn an_error_of_the_stream_ends_it_for_every_attempt() {
    let (mut first, kept) = scripted([Step::Data("a"), Step::Error, Step::Data("b")]);
    read(&mut first);
    assert_eq!(error(&mut first), "connection reset");
    assert!(kept.again().is_none());
    assert_eq!(error(&mut first), BROKEN, "and not as if it were complete");
    assert!(!first.is_end_stream());
}

#[test]
fn a_panic_of_the_stream_ends_it_for_every_attempt_and_nobody_else_panics() {
    let (mut first, kept) = scripted([Step::Data("a"), Step::Panic, Step::Data("b")]);
    read(&mut first);
    let panics = std::panic::AssertUnwindSafe(|| drop(poll(&mut first)));
    std::panic::catch_unwind(panics).unwrap_err();
    assert!(kept.again().is_none());
    assert_eq!(error(&mut first), BROKEN);
}

#[test]
fn hints_are_exact_where_the_streams_are() {
    let full = http_body_util::Full::new(Bytes::from_static(b"abcde"));
    let (mut first, kept) = keep(Body::new(full));
    assert_eq!(first.size_hint().exact(), Some(5));
    assert_eq!(again(&kept).size_hint().exact(), Some(5));
    assert_eq!(read(&mut first), "abcde");
    assert_eq!(first.size_hint().exact(), Some(0));
    assert!(first.is_end_stream(), "without another poll");
    let mut second = again(&kept);
    assert_eq!(second.size_hint().exact(), Some(5));
    assert!(!second.is_end_stream());
    assert_eq!(read(&mut second), "abcde");
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(second.is_end_stream());

    let (send, mut first, kept) = self::kept();
    say(&send, "abc");
    read(&mut first);
    let second = again(&kept);
    assert_eq!(
        (second.size_hint().lower(), second.size_hint().upper()),
        (3, None)
    );
    assert!(!second.is_end_stream());
}

#[test]
fn trailers_are_not_forgotten_when_the_stream_says_its_end_after_them() {
    let script = Script::new([Step::Data("a"), Step::Trailers(grpc_status("0"))]);
    let (mut first, kept) = keep(Body::new(script.telling_its_end()));
    read(&mut first);
    assert!(!first.is_end_stream());
    assert!(poll(&mut first).is_ready());
    assert!(first.is_end_stream());
    assert!(!again(&kept).is_end_stream());
    assert_eq!(rest(again(&kept)), ("a".into(), Some(grpc_status("0"))));
}

#[test]
fn when_no_further_attempt_can_come_the_stream_is_the_readers_alone() {
    let (send, mut first, kept) = kept();
    say(&send, "a");
    read(&mut first);
    drop(kept);
    assert_pending!(poll(&mut first));
    assert!(matches!(first.0, Kind::Stream(Streamed::Boxed(_))));
    say(&send, "b");
    assert!(first.is_woken());
    assert_eq!(read(&mut first), "b");
}

#[test]
fn an_attempt_that_is_under_way_gets_all_of_it_though_no_further_one_can_come() {
    let (send, mut first, kept) = kept();
    say(&send, "ab");
    read(&mut first);
    let mut second = again(&kept);
    assert_pending!(poll(&mut first));
    drop(kept);
    assert_pending!(poll(&mut first));
    assert_eq!(read(&mut second), "ab");
    assert_eq!(error(&mut first), OVERTAKEN);
    say(&send, "c");
    drop(send);
    assert_eq!(rest(second), ("c".into(), None));
}

#[test]
fn the_stream_is_dropped_with_the_last_who_can_read_it_although_an_older_attempt_hangs() {
    let (send, mut first, kept) = kept();
    say(&send, "ab");
    read(&mut first);
    let mut second = again(&kept);
    read(&mut second);
    drop(second);
    assert!(!send.is_closed(), "a third may come");
    drop(kept);
    assert!(send.is_closed());
    assert_eq!(error(&mut first), OVERTAKEN);
}

#[test]
fn who_keeps_it_once_more_keeps_the_same_and_only_if_it_is_unread() {
    let (send, first, outer) = kept();
    let mut first = first.into_inner();
    let inner = first.keep(LIMIT).unwrap();
    let mut first = task::spawn(first);
    say(&send, "a");
    read(&mut first);
    let mut second = again(&inner);
    assert_eq!(read(&mut second), "a");
    assert!(second.into_inner().keep(LIMIT).is_none());
    drop(inner);
    say(&send, "b");
    drop(send);
    let mut third = outer.again().unwrap();
    let inner = third.keep(LIMIT).unwrap();
    assert_eq!(rest(task::spawn(third)), ("ab".into(), None));
    assert_eq!(rest(again(&inner)), ("ab".into(), None));
}

#[test]
fn what_many_threads_share_can_be_sent_and_shared_between_them() {
    fn check<T: std::marker::Send + Sync + 'static>() {}
    check::<Reader>();
    check::<Keeper>();
}

/// A stream of what `next` says.
pub(super) fn futures(
    mut next: impl FnMut() -> Option<&'static str> + std::marker::Send + 'static,
) -> impl http_body::Body<Data = Bytes, Error = BoxError> + std::marker::Send {
    let frames = std::iter::from_fn(move || next().map(|text| Ok(Frame::data(text.into()))));
    StreamBody::new(tokio_stream::iter(frames))
}
