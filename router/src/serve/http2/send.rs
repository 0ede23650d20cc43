//! A body on its way into a stream, as fast as the other side takes it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

/// Sends a body to its end, or to where either side breaks off. `reason` is what the other side is told when the body fails.
pub(super) struct SendBody<B: Body> {
    body: Pin<Box<B>>,
    stream: SendStream<Bytes>,
    /// Taken from the body, waiting for room; whether it is the last.
    next: Option<(Bytes, bool)>,
    reason: fn(&B::Error) -> Reason,
}

impl<B: Body<Data = Bytes>> SendBody<B> {
    pub(super) fn new(body: B, stream: SendStream<Bytes>, reason: fn(&B::Error) -> Reason) -> SendBody<B> {
        SendBody { body: Box::pin(body), stream, next: None, reason }
    }

    /// `None` goes on; `Some` is the end.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Result<Option<()>, h2::Error> {
        let frame = match frame {
            None => return self.stream.send_data(Bytes::new(), true).map(Some),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.stream.send_reset((self.reason)(&error));
                return Ok(Some(()));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = self.body.is_end_stream();
                if data.is_empty() {
                    return if is_last { self.stream.send_data(data, true).map(Some) } else { Ok(None) };
                }
                // Room for one byte is asked for, and only now that there is something to send: who holds a window of the connection and
                // has nothing for it would keep it from the other streams.
                self.stream.reserve_capacity(1);
                self.next = Some((data, is_last));
                Ok(None)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.stream.reserve_capacity(0);
                    self.stream.send_trailers(trailers).map(Some)
                }
                Err(_) => Ok(None),
            },
        }
    }

    /// Ready when there is room, or no stream any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            // The other side may lose interest while there is nothing to send.
            if self.stream.poll_reset(cx)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if self.next.is_some() {
                ready!(self.poll_room(cx))?;
            }
            if let Some((data, is_last)) = self.next.take() {
                self.stream.send_data(data, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = ready!(self.body.as_mut().poll_frame(cx));
            if self.take(frame)?.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<B: Body<Data = Bytes>> Future for SendBody<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A stream that fails is gone, and so is who could be told.
        self.get_mut().poll_to_end(cx).map(drop)
    }
}
