//! Attempts that read at the same time, as the connections of two endpoints do.

use std::{sync::mpsc::channel, task::Poll, thread};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_test::{assert_pending, task};
use tower_mesh_core::BoxError;

use super::tests::{OVERTAKEN, again, error, futures, keep, poll, read, rest};
use crate::body::Body;

// The older attempt is in the middle of a poll, on another thread, when the newer begins.
#[test]
fn what_an_older_attempt_reads_while_it_is_overtaken_is_the_newers() {
    for (overtake, kept_is_dropped_first) in [(false, false), (true, false), (true, true)] {
        let (begun, is_begun) = channel();
        let (go_on, goes_on) = channel::<()>();
        let mut texts = ["0123456789abcdefg-", "z"].into_iter();
        let frames = futures(move || {
            let text = texts.next();
            if text == Some("0123456789abcdefg-") {
                begun.send(()).unwrap();
                goes_on.recv().unwrap();
            }
            text
        });
        let (mut first, kept) = keep(Body::new(frames));
        let mut kept = Some(kept);
        let older = thread::spawn(move || {
            let polled = poll(&mut first);
            (first, polled)
        });
        is_begun.recv().unwrap();
        let mut second = again(kept.as_ref().unwrap());
        if overtake {
            assert_pending!(poll(&mut second));
        }
        if kept_is_dropped_first {
            kept = None;
        }
        go_on.send(()).unwrap();
        let (mut first, polled) = older.join().unwrap();
        assert_eq!(second.is_woken(), overtake);
        if overtake {
            let Poll::Ready(Some(Err(error))) = polled else {
                panic!("{polled:?}");
            };
            assert_eq!(error.to_string(), OVERTAKEN);
        } else {
            assert_pending!(polled);
            drop(second);
            assert!(first.is_woken());
            assert_eq!(read(&mut first), "0123456789abcdefg-", "it is not lost");
            second = again(kept.as_ref().unwrap());
        }
        drop(kept);
        assert_eq!(rest(second), ("0123456789abcdefg-z".into(), None));
    }
}

#[test]
fn an_error_that_an_older_attempt_meets_while_it_is_overtaken_is_told_to_the_newer() {
    let (begun, is_begun) = channel();
    let (go_on, goes_on) = channel::<()>();
    let frames = std::iter::from_fn(move || {
        begun.send(()).unwrap();
        goes_on.recv().unwrap();
        Some(Err::<Frame<Bytes>, BoxError>("disk on fire".into()))
    });
    let (mut first, kept) = keep(Body::new(StreamBody::new(tokio_stream::iter(frames))));
    let older = thread::spawn(move || error(&mut first));
    is_begun.recv().unwrap();
    let mut second = again(&kept);
    assert_pending!(poll(&mut second));
    go_on.send(()).unwrap();
    assert_eq!(older.join().unwrap(), OVERTAKEN);
    assert!(second.is_woken());
    assert_eq!(error(&mut second), "disk on fire");
    assert!(kept.again().is_none());
}

#[test]
fn attempts_that_race_on_threads_never_send_half_a_body() {
    const WHOLE: &str = "abcdefg";
    for _ in 0..300 {
        let frames = (0..WHOLE.len()).map(|i| Ok::<_, BoxError>(Frame::data(WHOLE[i..=i].into())));
        let (first, kept) = keep(Body::new(StreamBody::new(tokio_stream::iter(frames))));
        let attempts: Vec<_> = std::iter::once(first)
            .chain((0..3).map_while(|_| kept.again().map(task::spawn)))
            .map(|body| {
                thread::yield_now();
                thread::spawn(move || tokio_test::block_on(body.into_inner().collect()))
            })
            .collect();
        let sent: Vec<_> = attempts
            .into_iter()
            .filter_map(|attempt| attempt.join().unwrap().ok())
            .map(|sent| sent.to_bytes())
            .collect();
        assert!(sent.iter().all(|sent| sent == WHOLE), "{sent:?}");
        assert_eq!(rest(again(&kept)), (WHOLE.into(), None));
    }
}
