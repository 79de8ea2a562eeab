//! A body that must not stand still.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_mesh_core::{BoxError, Clock, Instant, Kind, Refusal, Sent, Sleep};

pin_project! {
    /// A response's body that fails when nothing more of it comes for too long; made by
    /// [`HttpEndpoints`](crate::HttpEndpoints).
    ///
    /// It may take as long as it likes as long as it moves. Time in which nobody asks for it does not count. The timer is
    /// made when it is first waited for, so a body that is there costs none. It is boxed, so that the body stays `Unpin`.
    #[derive(Debug)]
    pub struct IdleTimeout<B> {
        #[pin]
        body: B,
        idle: Duration,
        timer: Option<Pin<Box<Sleep>>>,
        waiting: bool,
    }
}

impl<B> IdleTimeout<B> {
    /// Fails `body` when nothing comes for `idle` while it is waited for.
    pub const fn new(body: B, idle: Duration) -> Self {
        Self {
            body,
            idle,
            timer: None,
            waiting: false,
        }
    }
}

impl<B> Body for IdleTimeout<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            *this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let clock = Clock::tokio();
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(clock.sleep_until(Instant::NEVER)));
        if !mem::replace(this.waiting, true) {
            timer.as_mut().reset(clock.now() + *this.idle);
        }
        let over = timer.as_mut().poll(cx);
        over.map(|()| Some(Err(stood_still(*this.idle))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cold]
fn stood_still(idle: Duration) -> BoxError {
    let refusal = Refusal::remote(Kind::Transport, Sent::Maybe);
    refusal
        .with_context(format!("nothing more of the body came within {idle:?}"))
        .into()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::{sync::mpsc, time};
    use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A body that gives what it is sent.
    fn told() -> (
        mpsc::UnboundedSender<&'static str>,
        impl Body<Data = Bytes, Error = Infallible>,
    ) {
        let (tell, told) = mpsc::unbounded_channel();
        let frames = UnboundedReceiverStream::new(told)
            .map(|text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        (tell, StreamBody::new(frames))
    }

    // row 14
    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_stand_still() {
        let (tell, body) = told();
        let mut body = Box::pin(IdleTimeout::new(body, 10 * SECOND));
        for _ in 0..5 {
            let (frame, ()) = tokio::join!(body.frame(), async {
                time::advance(9 * SECOND).await;
                tell.send("drop by drop").unwrap();
            });
            assert!(frame.unwrap().is_ok());
        }
        let before = Clock::tokio().now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(Clock::tokio().now().since(before).as_secs(), 10);
        assert!(error.to_string().contains("within 10s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_nobody_reads_does_not_count() {
        let (tell, body) = told();
        let mut body = Box::pin(IdleTimeout::new(body, SECOND));
        tell.send("early").unwrap();
        time::advance(60 * SECOND).await;
        assert!(body.frame().await.unwrap().is_ok());
        drop(tell);
        assert!(body.frame().await.is_none());
    }

    #[test]
    fn a_body_that_is_there_needs_no_timer_and_no_runtime() {
        let mut body = IdleTimeout::new(Full::new(Bytes::from("all")), SECOND);
        assert_eq!(body.size_hint().exact(), Some(3));
        let frame = tokio_test::task::spawn(body.frame()).poll();
        assert!(matches!(frame, Poll::Ready(Some(Ok(_)))));
        assert!(body.is_end_stream() && body.timer.is_none());
    }
}
