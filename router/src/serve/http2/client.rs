//! A connection to a backend, shared by the queries that it carries at the same time.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::{HOST, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::body::Http2Body;
use super::pings::Pings;
use super::send::SendBody;
use super::tunnel::StreamIo;
use super::{FRAME_BYTES, PING_PATIENCE, STREAM_WINDOW, strip_connection_fields};
use crate::serve::incoming::Incoming;
use crate::serve::replay::RequestBody;
use crate::serve::upstream::Hearers;

/// What a backend may send us on all streams together before we have taken it: clients that do not read shall not hold up the others.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Of requests that h2 has taken and the backend has not, for each stream.
const SEND_BYTES: usize = 1 << 20;
/// Names and values of a response's head.
const HEAD_BYTES: u32 = 64 << 10;
/// A connection that carries queries is asked so often whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// A share in a connection: sends queries.
#[derive(Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    scheme: Scheme,
    /// Of the endpoint, for a request that names no host.
    authority: Authority,
    life: Rc<Life>,
}

/// What all of a connection's users know of it.
#[derive(Default)]
struct Life {
    is_closed: Cell<bool>,
    in_flight: Cell<usize>,
    /// The backend has said how it will have things.
    has_settings: Cell<bool>,
    /// An answer did not come in time. It may be slow, or the connection dead: until a ping is answered, nothing new is sent.
    is_doubted: Cell<bool>,
    changed: Notify,
    /// The connection's.
    task: Cell<Option<Waker>>,
}

/// Why a query got no answer.
pub(crate) enum SendError {
    /// The connection takes no more: nothing of it was sent.
    Unsent(Box<Request<RequestBody>>),
    /// It was sent, and then this.
    Failed(h2::Error),
    /// It was answered with 101 Switching Protocols, which HTTP/2 has not (RFC 9113, 8.6).
    Switching,
    /// A value in the answer's head begins or ends with a blank (RFC 9113, 8.2.1), which h2 lets pass.
    Malformed,
}

impl From<h2::Error> for SendError {
    fn from(error: h2::Error) -> SendError {
        SendError::Failed(error)
    }
}

/// Whether the backend says that it had not begun with a query (RFC 9113, 6.8 and 8.7): then it may be sent again, whatever its method.
pub(crate) fn was_refused(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

impl Sender {
    /// Begins to speak. The connection lives in a task of its own until nobody uses it any more, or the backend ends it.
    ///
    /// # Errors
    /// What went wrong on the connection.
    pub(crate) async fn begin<S>(stream: S, scheme: Scheme, authority: Authority) -> Result<Sender, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).max_frame_size(FRAME_BYTES);
        builder.max_send_buffer_size(SEND_BYTES).max_header_list_size(HEAD_BYTES).enable_push(false);
        let (requests, mut connection) = builder.handshake(stream).await?;
        let mut pings = Pings::new(connection.ping_pong(), PING_EVERY, PING_PATIENCE);
        pings.ask();
        let life = Rc::<Life>::default();
        let watched = life.clone();
        tokio::task::spawn_local(async move {
            // How often pings had been answered when the doubt came up.
            let mut answers_before = None;
            std::future::poll_fn(|cx| {
                watched.task.set(Some(cx.waker().clone()));
                if watched.is_doubted.get() && answers_before.is_none() {
                    answers_before = Some(pings.answers());
                    pings.ask();
                }
                if Pin::new(&mut connection).poll(cx).is_ready() || pings.poll_gone(watched.in_flight.get() > 0, cx).is_ready() {
                    return Poll::Ready(());
                }
                if answers_before.is_some_and(|before| pings.answers() > before) {
                    answers_before = None;
                    watched.is_doubted.set(false);
                }
                if pings.answers() > 0 && !watched.has_settings.replace(true) {
                    watched.changed.notify_waiters();
                }
                Poll::Pending
            })
            .await;
            watched.is_closed.set(true);
            watched.changed.notify_waiters();
        });
        Ok(Sender { requests, scheme, authority, life })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.life.is_closed.get()
    }

    /// An answer did not come in time.
    pub(crate) fn is_late(&self) {
        self.life.is_doubted.set(true);
        if let Some(task) = self.life.task.take() {
            task.wake();
        }
    }

    /// Whether it takes one more query now.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let is_open = !self.is_closed() && !self.life.is_doubted.get() && !matches!(self.requests.poll_ready(&mut cx), Poll::Ready(Err(_)));
        is_open && self.life.in_flight.get() < self.requests.current_max_send_streams()
    }

    /// Sends a query and waits for the head of its answer. An upgrade that the request asks for becomes a tunnel (RFC 8441) where the backend
    /// takes those, and a 101 when it agrees; where it does not, the request goes without the wish.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn send(&mut self, request: Request<RequestBody>, hearers: Hearers<'_>) -> Result<Response<Incoming>, SendError> {
        if std::future::poll_fn(|cx| self.requests.poll_ready(cx)).await.is_err() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        let (mut head, body) = request.into_parts();
        self.address(&mut head);
        let protocol = head.headers.remove(UPGRADE);
        strip_connection_fields(&mut head.headers);
        let protocol = match protocol {
            Some(protocol) if self.takes_tunnels().await => Some(protocol),
            _ => None,
        };
        if let Some(protocol) = &protocol {
            asks_for_tunnel(&mut head, protocol);
        }
        let is_whole = protocol.is_none() && body.is_end_stream();
        let (answer, stream) = self.requests.send_request(Request::from_parts(head, ()), is_whole).map_err(SendError::Failed)?;
        let in_flight = InFlight::new(self.life.clone());
        if let Some(protocol) = protocol {
            return open_tunnel(answer, stream, in_flight, hearers, protocol).await;
        }
        let upload = if is_whole { None } else { begin_upload(body, stream).await };
        let exchange = Exchange { upload, _in_flight: in_flight };
        let response = head_of(answer, hearers).await?;
        let (head, stream) = response.into_parts();
        let body = Http2Body::of_response(&head.headers, stream, exchange);
        Ok(Response::from_parts(head, Incoming::Http2(Box::new(body))))
    }

    /// HTTP/2 says host and scheme in the request's target.
    fn address(&self, head: &mut Parts) {
        let host = head.headers.remove(HOST);
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // A host that is no authority was refused when the request came in; an HTTP/1.0 request may have none.
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok()).unwrap_or_else(|| self.authority.clone());
        if let Ok(uri) = Uri::builder().scheme(self.scheme.clone()).authority(authority).path_and_query(path).build() {
            head.uri = uri;
        }
    }

    /// Whether the backend takes tunnels, which it says in its settings.
    async fn takes_tunnels(&self) -> bool {
        while !self.life.has_settings.get() && !self.life.is_closed.get() {
            self.life.changed.notified().await;
        }
        self.requests.is_extended_connect_protocol_enabled()
    }
}

/// RFC 8441, 4 and 5: the handshake of HTTP/1.1 has no part in it.
fn asks_for_tunnel(head: &mut Parts, protocol: &HeaderValue) {
    head.method = Method::CONNECT;
    head.headers.remove(SEC_WEBSOCKET_KEY);
    head.extensions.insert(h2::ext::Protocol::from(protocol.to_str().unwrap_or_default()));
}

/// The tunnel when the backend agrees; whatever else it says is an ordinary answer.
async fn open_tunnel(
    answer: ResponseFuture,
    mut stream: SendStream<Bytes>,
    in_flight: InFlight,
    hearers: Hearers<'_>,
    protocol: HeaderValue,
) -> Result<Response<Incoming>, SendError> {
    let (mut head, comes) = head_of(answer, hearers).await?.into_parts();
    if head.status.is_success() {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers.insert(UPGRADE, protocol);
        let io = StreamIo::new(stream, comes, Some(Box::new(in_flight)));
        return Ok(Response::from_parts(head, Incoming::Tunnel(Box::new(io))));
    }
    stream.send_data(Bytes::new(), true)?;
    let body = Http2Body::of_response(&head.headers, comes, Exchange { upload: None, _in_flight: in_flight });
    Ok(Response::from_parts(head, Incoming::Http2(Box::new(body))))
}

/// The head of the answer; interim ones are told as they come.
async fn head_of(mut answer: ResponseFuture, hearers: Hearers<'_>) -> Result<Response<h2::RecvStream>, SendError> {
    while let Some(interim) = std::future::poll_fn(|cx| answer.poll_informational(cx)).await {
        let (head, ()) = interim?.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Switching);
        }
        if has_blanks_around(&head.headers) {
            return Err(SendError::Malformed);
        }
        hearers.hear(head.status, head.headers);
    }
    let response = answer.await?;
    if has_blanks_around(response.headers()) { Err(SendError::Malformed) } else { Ok(response) }
}

/// Whether a value begins or ends with a blank.
fn has_blanks_around(headers: &HeaderMap) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers.values().any(|value| is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last()))
}

/// Sends the body; most bodies are here already, and need no task for it.
async fn begin_upload(body: RequestBody, stream: SendStream<Bytes>) -> Option<AbortHandle> {
    let mut sending = SendBody::new(body, stream, |_| Reason::CANCEL);
    let is_sent = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut sending).poll(cx).is_ready())).await;
    (!is_sent).then(|| tokio::task::spawn_local(sending).abort_handle())
}

/// What goes on beside an answer. When it is dropped before the answer is whole, the query is of no interest any more, and the
/// backend is told so.
pub(super) struct Exchange {
    upload: Option<AbortHandle>,
    _in_flight: InFlight,
}

impl Exchange {
    /// The answer is whole. An upload that is not goes on by itself, as long as the backend takes it.
    pub(super) fn is_answered(&mut self) {
        self.upload = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

/// A query on its connection.
struct InFlight(Rc<Life>);

impl InFlight {
    fn new(life: Rc<Life>) -> InFlight {
        life.in_flight.set(life.in_flight.get() + 1);
        InFlight(life)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected() -> (Sender, h2::server::Connection<tokio::io::DuplexStream, Bytes>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let begun = Sender::begin(near, Scheme::HTTP, Authority::from_static("backend.test:80"));
        let (sender, server) = tokio::join!(begun, h2::server::handshake(far));
        (sender.unwrap(), server.unwrap())
    }

    fn query() -> Request<RequestBody> {
        Request::get("/rank?q=a").header(HOST, "search.test").header("te", "gzip").body(RequestBody::Empty).unwrap()
    }

    #[test]
    fn a_connection_that_nobody_uses_any_more_ends() {
        on_a_worker(async {
            let (sender, mut server) = connected().await;
            let share = sender.clone();
            drop(sender);
            let mut share = share;
            assert!(share.is_usable());
            drop(share);
            // What the server still has to say finds nobody.
            let end = server.accept().await;
            assert!(end.as_ref().is_none_or(|end| end.as_ref().is_err_and(h2::Error::is_io)), "no stream, but the end: {end:?}");
        });
    }

    #[test]
    fn a_request_says_whom_it_is_for_in_its_target() {
        on_a_worker(async {
            let (mut sender, mut server) = connected().await;
            let old = Request::get("/rank").header(HOST, "").body(RequestBody::Empty).unwrap();
            for (request, target) in [(query(), "http://search.test/rank?q=a"), (old, "http://backend.test:80/rank")] {
                let sending = async { assert_eq!(sender.send(request, Hearers::NONE).await.ok().unwrap().status(), 204) };
                let serving = async {
                    let (request, mut respond) = server.accept().await.unwrap().unwrap();
                    assert_eq!(request.uri().to_string(), target);
                    assert!(request.headers().is_empty(), "{:?}", request.headers());
                    respond.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
                    // Until it is sent.
                    std::future::poll_fn(|cx| Poll::Ready(server.poll_closed(cx).is_ready())).await;
                };
                tokio::join!(sending, serving);
            }
        });
    }

    #[test]
    fn a_connection_that_is_going_gives_the_request_back() {
        on_a_worker(async {
            let (mut sender, mut server) = connected().await;
            assert!(sender.is_usable());
            server.abrupt_shutdown(Reason::NO_ERROR);
            assert!(server.accept().await.is_none());
            drop(server);
            while sender.is_usable() {
                tokio::task::yield_now().await;
            }
            assert!(
                matches!(sender.send(query(), Hearers::NONE).await, Err(SendError::Unsent(request)) if request.uri().path() == "/rank")
            );
        });
    }

    fn on_a_worker<F: Future>(test: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(test));
    }
}
