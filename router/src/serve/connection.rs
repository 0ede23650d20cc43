//! One client connection: HTTP/1.1, or HTTP/2 with prior knowledge, told apart by its first bytes.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, Version};
use http_body::Body as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer;
use super::body::ResponseBody;
use super::clock::{Ask, ConnectionClock};
use super::events::EventsDoor;
use super::forward::{Journey, Plan};
use super::forwarded::ClientFields;
use super::hang_up::HangUp;
use super::headers;
use super::http2::{self, StreamSide};
use super::incoming::Incoming;
use super::interim::Hearer;
use super::listener::{Arrival, Place};
use super::open::Spoken;
use super::overrides::{Overrides, seconds_now};
use super::query::{self, Unit};
use super::routes::RouteWorker;
use super::scan::Head;
use super::seen::Seen;
use super::tunnel::{ClientEnd, Tunnel};
use super::watched::Watched;
use super::worker::Worker;
use crate::config::{Expose, Limits};
use crate::quality::Refusal;
use crate::vocabulary::PoolIndex;

/// What an HTTP/2 client with prior knowledge says first.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// While the preface is incomplete it is looked at again after these: a client that stops in the middle of it costs next to nothing.
fn preface_pauses() -> impl Iterator<Item = Duration> {
    const FIRST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_millis(250);
    std::iter::successors(Some(FIRST), |pause| Some((*pause * 2).min(LONGEST)))
}

/// A connection's client.
struct Client {
    address: IpAddr,
    fields: Rc<ClientFields>,
    /// Held as long as the connection is, also when it is no longer HTTP.
    place: Rc<Place>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let Arrival { stream, peer, tls, place } = arrival;
    let address = peer.ip().to_canonical();
    let (number, clock) = worker.clocks.start();
    let fields = ClientFields::new(address, tls.is_some(), &worker.routes().trusted_proxies, clock.signals.clone());
    let client = Rc::new(Client { address, fields: Rc::new(fields), place: Rc::new(place) });
    if let Ok(stream) = stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream)) {
        match tls {
            None => serve_in_the_clear(&worker, client, stream, &clock).await,
            Some(tls) => serve_over_tls(&worker, client, stream, &clock, tls).await,
        }
    }
    worker.clocks.forget(number);
}

async fn serve_in_the_clear(worker: &Rc<Worker>, client: Rc<Client>, stream: TcpStream, clock: &Rc<ConnectionClock>) {
    let is_h2 = tokio::select! {
        is_h2 = speaks_h2(&stream) => is_h2,
        _ = std::future::poll_fn(|cx| clock.poll_asked(cx)) => None,
    };
    match is_h2 {
        Some(true) => serve_h2(worker, client, stream, clock).await,
        Some(false) => serve_h1(worker, client, stream, clock).await,
        None => {}
    }
}

async fn serve_over_tls(worker: &Rc<Worker>, client: Rc<Client>, stream: TcpStream, clock: &Rc<ConnectionClock>, tls: Arc<ServerConfig>) {
    let Some(stream) = shake_hands(worker, stream, tls).await else {
        worker.refuse(Refusal::Handshake);
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_h2(worker, client, stream, clock).await;
    } else {
        serve_h1(worker, client, stream, clock).await;
    }
}

/// `None` when it fails, or takes too long.
async fn shake_hands(worker: &Worker, stream: TcpStream, tls: Arc<ServerConfig>) -> Option<TlsStream<TcpStream>> {
    let limit = worker.routes().limits.handshake_timeout;
    let shaken = tokio::time::timeout(limit, TlsAcceptor::from(tls).accept(stream)).await;
    shaken.ok()?.inspect_err(|error| tracing::debug!(%error, "TLS handshake failed")).ok()
}

/// Looks at the first bytes without taking them. `None` when the client goes away before it said anything.
async fn speaks_h2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; H2_PREFACE.len()];
    for pause in preface_pauses() {
        let seen = stream.peek(&mut first).await.ok()?;
        let bytes = first.get(..seen).filter(|bytes| !bytes.is_empty())?;
        if !H2_PREFACE.starts_with(bytes) {
            return Some(false);
        }
        if seen == H2_PREFACE.len() {
            return Some(true);
        }
        tokio::time::sleep(pause).await;
    }
    None
}

/// To a head that took too long.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Polls a connection to its end, or ends it when the worker asks for that. `Some` with how it ended by itself.
macro_rules! drive {
    ($clock:expr, $connection:expr) => {{
        let mut connection = std::pin::pin!($connection);
        let mut is_closing = false;
        std::future::poll_fn(|cx| std::task::Poll::Ready($clock.signals.is_written_by(cx.waker()))).await;
        let driven = std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                let Poll::Ready(ask) = $clock.poll_asked(cx) else { return Poll::Pending };
                match ask {
                    Ask::End if is_closing || !$clock.is_quiet() => {
                        $clock.signals.hang_up();
                        return Poll::Ready(None);
                    }
                    Ask::Cut => return Poll::Ready(None),
                    Ask::TimeOut => {
                        $clock.signals.interim(REQUEST_TIMEOUT);
                        // Writes it, if the client takes it.
                        let _ = connection.as_mut().poll(cx);
                        return Poll::Ready(None);
                    }
                    Ask::End | Ask::Close => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
        driven.await
    }};
}

async fn serve_h1<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, clock: &Rc<ConnectionClock>)
where
    S: AsyncRead + AsyncWrite + HangUp + Unpin + Send + 'static,
{
    client.place.becomes(Spoken::Http1);
    let builder = http1_builder(&worker.routes().limits);
    let service = service_fn(|request: Request<_>| {
        let (head, body) = request.into_parts();
        answer(worker.clone(), client.clone(), clock.clone(), head, Incoming::Http1(body), None)
    });
    let io = TokioIo::new(Watched::http1(stream, clock.signals.clone()));
    let ended = drive!(clock, builder.serve_connection(io, service).with_upgrades());
    if let Some(Err(error)) = ended
        && error.is_parse()
    {
        worker.refuse(if error.is_parse_too_large() { Refusal::HeadSize } else { Refusal::Head });
    }
}

async fn serve_h2<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, clock: &Rc<ConnectionClock>)
where
    S: AsyncRead + AsyncWrite + HangUp + Unpin + 'static,
{
    client.place.becomes(Spoken::Http2);
    clock.is_h2();
    let answer = |head, body, side| {
        let answering = answer(worker.clone(), client.clone(), clock.clone(), head, body, Some(side));
        async move { answering.await.unwrap_or_else(|never| match never {}) }
    };
    let io = Watched::http2(stream, clock.signals.clone());
    let connection = http2::Connection::new(io, &worker.routes().limits, answer);
    let ended = drive!(clock, connection);
    if let Some(Err(error)) = ended
        && is_protocol_error(&error)
    {
        worker.refuse(Refusal::Http2);
    }
}

/// The client broke the protocol, or one of its limits, and was told so (GOAWAY).
fn is_protocol_error(error: &h2::Error) -> bool {
    error.is_library() && error.reason().is_some_and(|reason| reason != h2::Reason::NO_ERROR)
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.headers).max_header_size(limits.header_bytes).max_buf_size(limits.header_bytes.max(64 << 10));
    builder.header_read_timeout(None).writev(false);
    builder
}

/// What a request is.
#[allow(clippy::large_enum_variant, reason = "nearly all are queries, and a box for each would cost them an allocation")]
enum Asked {
    Query(Plan),
    /// Events from this client.
    Events(Rc<EventsDoor>, IpAddr),
}

/// A request's life: checked, matched to a route, its unit found, split, forwarded.
async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    clock: Rc<ConnectionClock>,
    mut head: Parts,
    body: Incoming,
    side: Option<StreamSide>,
) -> Result<Response<ResponseBody>, Infallible> {
    let in_progress = clock.begin();
    let announces_close = (worker.is_draining() || clock.is_old()) && side.is_none();
    let (asked, raw) = match clock.signals.take_head() {
        Some(Head::Ambiguous) => (Err(Refusal::Framing), None),
        Some(Head::Whole(raw)) => (decide(&worker, &client, &clock, &mut head, None), Some(raw)),
        None => match side {
            Some(side) => (decide_h2(&worker, &client, &clock, &mut head, side), None),
            // The parser took for a request what the scan gave up on.
            None => (Err(Refusal::Framing), None),
        },
    };
    if let Some(raw) = &raw {
        headers::ask_of_server(&mut head, raw);
    }
    let mut response = match asked {
        Ok(Asked::Query(plan)) => {
            let mut journey = Journey::new(plan, raw, head, body);
            let response = journey.forward().await;
            journey.mirror();
            response
        }
        Ok(Asked::Events(door, from)) => door.answer(&head, body, from).await,
        Err(refusal) => {
            // Counted when its connection was cut, for all of its streams together.
            if refusal != Refusal::Resets {
                worker.refuse(refusal);
            }
            let mut response = answer::refused(refusal);
            if !body.is_end_stream() {
                answer::say_close(&mut response);
            }
            response
        }
    };
    clock.signals.head_follows();
    if announces_close {
        answer::say_close(&mut response);
    }
    in_progress.is_answered();
    response.body_mut().keeps(in_progress);
    Ok(response)
}

/// What the parser of HTTP/1 sees to by itself, and then the same.
fn decide_h2(worker: &Worker, client: &Client, clock: &ConnectionClock, head: &mut Parts, side: StreamSide) -> Result<Asked, Refusal> {
    if clock.has_too_many_resets(&worker.routes().limits) {
        if clock.cut() {
            worker.refuse(Refusal::Resets);
        }
        return Err(Refusal::Resets);
    }
    if head.headers.len() > worker.routes().limits.headers {
        return Err(Refusal::HeadSize);
    }
    query::check_h2_host(head)?;
    query::join_cookies(&mut head.headers);
    decide(worker, client, clock, head, Some(side))
}

/// Makes `head` what a backend shall have. `side` is there of a stream of HTTP/2.
fn decide(worker: &Worker, client: &Client, clock: &ConnectionClock, head: &mut Parts, side: Option<StreamSide>) -> Result<Asked, Refusal> {
    let seen = Seen::of(&head.headers);
    query::check(head, seen)?;
    let routes = worker.routes();
    if routes.events.is_for(head) {
        let from = client.fields.client(client.address, &head.headers, seen, &routes.trusted_proxies);
        return Ok(Asked::Events(routes.events.clone(), from));
    }
    if routes.table.tells_paths_apart && query::has_dot_segment(head.uri.path()) {
        return Err(Refusal::Path);
    }
    let index = routes.table.find(head).ok_or(Refusal::NoRoute)?;
    let route = routes.all.get(index.get()).ok_or(Refusal::NoRoute)?.clone();
    if let Some(most) = route.config.max_request_body
        && query::announces_more(head, most)
    {
        return Err(Refusal::BodySize);
    }
    let asked = if seen.has_own { overridden(worker, &routes.overrides, &route, head) } else { None };
    let (chosen, live, mirror) = {
        let address = client.fields.client(client.address, &head.headers, seen, &routes.trusted_proxies);
        let unit = Unit::of(head, &route.config.unit, address);
        let mut split = route.split.borrow_mut();
        let chosen = split.decide(&unit, head, asked, route.counters());
        if split.lacks_instance() {
            route.needs_instance.notify_one();
        }
        let mirror = split.mirror(&unit, &chosen);
        (chosen, split.flags.live, mirror)
    };
    let hearer = side.as_ref().map(|side| Hearer::Stream(side.hints.clone()));
    let tunnel = if seen.has_upgrade { tunnel(head, &route.config.upgrades, client, clock, side)? } else { None };
    let hears_interim = head.version != Version::HTTP_10;
    headers::prepare_request(head, seen, &client.fields);
    let tunnel = tunnel.map(|mut tunnel| {
        tunnel.ask(&mut head.headers);
        Box::new(tunnel)
    });
    let expose = if asked.is_some() { route.config.expose.and(Expose::POOL) } else { route.config.expose };
    Ok(Asked::Query(Plan { route, chosen, live, mirror, tunnel, client: client.fields.clone(), expose, hears_interim, hearer }))
}

/// The tunnel that a request asks for, if the route allows it. An upgrade of HTTP/1.1 that is not allowed passes as if it had not been asked
/// for; a CONNECT of HTTP/2 asks for nothing else.
#[cold]
fn tunnel(
    head: &mut Parts,
    allowed: &[String],
    client: &Client,
    clock: &ConnectionClock,
    side: Option<StreamSide>,
) -> Result<Option<Tunnel>, Refusal> {
    let Some(side) = side else {
        let connection = |upgrade| ClientEnd::Connection { upgrade, place: client.place.clone(), signals: clock.signals.clone() };
        return Ok(Tunnel::wanted(head, allowed, |head| head.extensions.remove::<OnUpgrade>().map(connection)));
    };
    Tunnel::wanted(head, allowed, |_| side.tunnel.map(ClientEnd::Stream)).ok_or(Refusal::Method).map(Some)
}

/// The pool that a signed override asks for. One that is not good is ignored, and counted.
#[cold]
fn overridden(worker: &Worker, overrides: &Overrides, route: &RouteWorker, head: &Parts) -> Option<PoolIndex> {
    let asked = overrides.look(&head.headers, &route.config, seconds_now())?;
    asked.inspect_err(|fault| worker.ignore_override(*fault)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_preface_is_looked_at_soon_and_then_seldom() {
        let within = |limit: Duration| {
            let ends = preface_pauses().scan(Duration::ZERO, |passed, pause| {
                *passed += pause;
                Some(*passed)
            });
            ends.take_while(|passed| *passed <= limit).count()
        };
        assert_eq!(within(Duration::from_millis(30)), 4, "after 2, 6, 14 and 30 ms");
        assert!(within(Duration::from_secs(10)) < 50);
    }
}
