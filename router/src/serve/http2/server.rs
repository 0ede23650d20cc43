//! A client's connection: streams are taken as they come, and each is answered by a task of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::{Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::body::Http2Body;
use super::hints::Hints;
use super::pings::Pings;
use super::send::SendBody;
use super::tunnel::StreamIo;
use super::{FRAME_BYTES, PING_PATIENCE, STREAM_WINDOW, strip_connection_fields};
use crate::config::Limits;
use crate::serve::body::{PassError, ResponseBody};
use crate::serve::incoming::Incoming;
use crate::serve::interim::expects_continue;
use crate::serve::issue::is_of_its_own;

/// Of responses that h2 has taken and the client has not, for each stream.
const SEND_BYTES: usize = 400 << 10;

/// What a query has of its stream, beside head and body.
pub(crate) struct StreamSide {
    /// Where interim responses go.
    pub(crate) hints: Arc<Hints>,
    /// Where the tunnel comes from that was asked for (RFC 8441), once a success was sent. `None` as well when somebody has taken it.
    pub(crate) tunnel: Option<oneshot::Receiver<StreamIo>>,
}

/// The connection, as a future that ends with it.
pub(crate) struct Connection<S, A> {
    state: State<S>,
    every: Duration,
    answer: A,
}

enum State<S> {
    /// Until the client has said how it will have things; whether it is to end then.
    Handshake(Box<Handshake<S, Bytes>>, bool),
    Open(Box<(h2::server::Connection<S, Bytes>, Pings)>),
}

impl<S: AsyncRead + AsyncWrite + Unpin, A> Connection<S, A> {
    /// `answer` is called with each stream's head, body and side.
    pub(crate) fn new(stream: S, limits: &Limits, answer: A) -> Connection<S, A> {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(STREAM_WINDOW).max_frame_size(FRAME_BYTES);
        builder.max_send_buffer_size(SEND_BYTES).max_concurrent_streams(limits.h2_streams);
        builder.max_pending_accept_reset_streams(limits.h2_pending_resets);
        builder.max_local_error_reset_streams(Some(limits.h2_forced_resets));
        builder.max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
        builder.enable_connect_protocol();
        Connection { state: State::Handshake(Box::new(builder.handshake(stream)), false), every: limits.keepalive_timeout, answer }
    }

    /// Takes no more streams, and says so (GOAWAY).
    pub(crate) fn graceful_shutdown(self: Pin<&mut Self>)
    where
        A: Unpin,
    {
        match &mut self.get_mut().state {
            State::Handshake(_, is_closing) => *is_closing = true,
            State::Open(open) => open.0.graceful_shutdown(),
        }
    }
}

impl<S, A, F> Future for Connection<S, A>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Parts, Incoming, StreamSide) -> F + Unpin,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Connection { state, every, answer } = self.get_mut();
        loop {
            match state {
                State::Handshake(handshake, is_closing) => {
                    let mut connection = ready!(Pin::new(&mut **handshake).poll(cx))?;
                    if *is_closing {
                        connection.graceful_shutdown();
                    }
                    let pings = Pings::new(connection.ping_pong(), *every, PING_PATIENCE);
                    *state = State::Open(Box::new((connection, pings)));
                }
                State::Open(open) => {
                    let (connection, pings) = &mut **open;
                    if pings.poll_gone(true, cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    match ready!(connection.poll_accept(cx)) {
                        None => return Poll::Ready(Ok(())),
                        Some(accepted) => {
                            let (request, respond) = accepted?;
                            begin(request, respond, answer);
                        }
                    }
                }
            }
        }
    }
}

/// Starts to answer a stream.
fn begin<F>(request: Request<RecvStream>, respond: SendResponse<Bytes>, answer: &impl Fn(Parts, Incoming, StreamSide) -> F)
where
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let (mut head, stream) = request.into_parts();
    let hints = Arc::<Hints>::default();
    let is_head = head.method == Method::HEAD;
    let (body, opening, tunnel) = if becomes_upgrade(&mut head) {
        let (open, opened) = oneshot::channel();
        (Incoming::None, Some((stream, open)), Some(opened))
    } else {
        let waiting = expects_continue(head.headers.get(EXPECT).map(HeaderValue::as_bytes)).then(|| hints.clone());
        (Incoming::Http2(Box::new(Http2Body::of_request(&head.headers, stream, waiting))), None, None)
    };
    // It is large, and a task moves what it is made of several times.
    let answering = Box::pin(answer(head, body, StreamSide { hints: hints.clone(), tunnel }));
    let task = StreamTask { respond, hints, is_head, opening };
    tokio::task::spawn_local(async move {
        // A stream that fails is gone, and so is who could be told.
        let _ = task.run(answering).await;
    });
}

/// Makes a client's wish for a tunnel (RFC 8441) what it would be in HTTP/1.1: to all others an upgrade is an upgrade. False for whatever
/// else came; a CONNECT without a protocol is refused like any other.
fn becomes_upgrade(head: &mut Parts) -> bool {
    if head.method != Method::CONNECT || head.headers.contains_key(CONTENT_LENGTH) {
        return false;
    }
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let Some(protocol) = protocol.and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok()) else { return false };
    head.method = Method::GET;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    true
}

/// One stream until its response is sent.
struct StreamTask {
    respond: SendResponse<Bytes>,
    hints: Arc<Hints>,
    is_head: bool,
    /// The client's side of the tunnel that it wants, and who waits for it.
    opening: Option<(RecvStream, oneshot::Sender<StreamIo>)>,
}

impl StreamTask {
    async fn run(mut self, answering: Pin<Box<impl Future<Output = Response<ResponseBody>>>>) -> Result<(), h2::Error> {
        let Some(response) = self.wait_for(answering).await? else { return Ok(()) };
        let (mut head, mut body) = response.into_parts();
        strip_connection_fields(&mut head.headers);
        say_date(&mut head.headers);
        is_of_its_own(&mut head.headers);
        if let Some((comes, open)) = self.opening.take().filter(|_| head.status.is_success()) {
            let held = body.in_progress().map(|in_progress| {
                in_progress.is_tunnel();
                Box::new(in_progress) as Box<dyn std::any::Any>
            });
            let sends = self.respond.send_response(Response::from_parts(head, ()), false)?;
            // Who asked for it may be gone: then it is closed by being dropped.
            let _ = open.send(StreamIo::new(sends, comes, held));
            return Ok(());
        }
        let has_none = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(length) = body.size_hint().exact().filter(|length| *length > 0 && !has_none) {
            head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let is_empty = self.is_head || has_none || body.is_end_stream();
        let sends = self.respond.send_response(Response::from_parts(head, ()), is_empty)?;
        if !is_empty {
            SendBody::new(body, sends, PassError::reason).await;
        }
        Ok(())
    }

    /// The response, with the interim ones said before it; `None` when the client has lost interest.
    async fn wait_for(
        &mut self,
        mut answering: Pin<Box<impl Future<Output = Response<ResponseBody>>>>,
    ) -> Result<Option<Response<ResponseBody>>, h2::Error> {
        std::future::poll_fn(|cx| {
            let answer = answering.as_mut().poll(cx);
            for hint in self.hints.take(cx) {
                self.respond.send_informational(hint)?;
            }
            match answer {
                Poll::Ready(response) => Poll::Ready(Ok(Some(response))),
                Poll::Pending => self.respond.poll_reset(cx).map(|reset| reset.map(|_: Reason| None)),
            }
        })
        .await
    }
}

/// Says when it was, where nobody has (RFC 9110, 6.6.1).
fn say_date(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
}
