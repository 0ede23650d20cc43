//! One client connection: HTTP/1.1, or HTTP/2 with prior knowledge, told apart by its first bytes.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, Version};
use http_body::Body as _;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer;
use super::body::ResponseBody;
use super::clock::{Ask, ConnectionClock};
use super::events::EventsDoor;
use super::forward::{Journey, Plan};
use super::forwarded::ClientFields;
use super::head::Head;
use super::headers;
use super::http1::{self, Asked as Http1Asked, Stream, Upgraded};
use super::http2::{self, Asked as Http2Asked, StreamSide};
use super::incoming::Incoming;
use super::interim::Hearer;
use super::listener::{Arrival, Place};
use super::open::Spoken;
use super::overrides::{Overrides, seconds_now};
use super::pair::Pair;
use super::query::{self, Unit};
use super::routes::RouteWorker;
use super::seen::Seen;
use super::tunnel::{ClientEnd, Tunnel};
use super::worker::Worker;
use crate::config::Expose;
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
            // Boxed, as is all that not every connection needs: the task of each is as large as the largest way that it can take.
            Some(tls) => Box::pin(serve_over_tls(&worker, client, stream, &clock, tls)).await,
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
        Some(true) => Box::pin(serve_h2(worker, client, Stream::Plain(stream), clock)).await,
        Some(false) => serve_h1(worker, client, Stream::Plain(stream), clock).await,
        None => {}
    }
}

async fn serve_over_tls(worker: &Rc<Worker>, client: Rc<Client>, stream: TcpStream, clock: &Rc<ConnectionClock>, tls: Arc<ServerConfig>) {
    let stream = match shake_hands(worker, stream, tls).await {
        Ok(stream) => stream,
        Err(refusal) => return worker.refuse(refusal),
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stream::Tls(Box::new(stream.into()));
    if is_h2 { serve_h2(worker, client, stream, clock).await } else { serve_h1(worker, client, stream, clock).await }
}

/// # Errors
/// [`Refusal::Handshake`] when it fails, or takes too long, and [`Refusal::NoTls`] when what came was none.
async fn shake_hands(worker: &Worker, stream: TcpStream, tls: Arc<ServerConfig>) -> Result<TlsStream<TcpStream>, Refusal> {
    let limit = worker.routes().limits.handshake_timeout;
    let shaken = tokio::time::timeout(limit, TlsAcceptor::from(tls).accept(stream)).await;
    shaken.map_err(|_| Refusal::Handshake)?.map_err(|error| {
        if is_no_tls(&error) {
            tracing::debug!("the listener for TLS got something else: plain HTTP, most likely");
            return Refusal::NoTls;
        }
        tracing::debug!(%error, "TLS handshake failed");
        Refusal::Handshake
    })
}

/// What came is no record of TLS.
fn is_no_tls(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
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

/// What a connection does that ends when the worker wants it so.
trait Driven {
    type End;
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End>;
    /// It ends after what is being answered.
    fn graceful_shutdown(&mut self);
    /// A head took too long: its client is told, and it ends.
    fn time_out(&mut self, cx: &mut Context<'_>);
    /// It is dropped next, and its client takes nothing.
    fn hang_up(&mut self);
}

/// Polls a connection to its end, or ends it when the worker asks for that. `Some` with how it ended by itself.
///
/// No `async fn`: that would have room for what it is given, and for the same where it uses it.
fn drive<C: Driven>(clock: &ConnectionClock, mut connection: C) -> impl Future<Output = Option<C::End>> {
    let (mut is_begun, mut is_closing, mut was_late) = (false, false, false);
    std::future::poll_fn(move |cx| {
        if !std::mem::replace(&mut is_begun, true) {
            clock.signals.is_written_by(cx.waker());
        }
        loop {
            if let Poll::Ready(end) = connection.poll(cx) {
                return Poll::Ready(Some(end));
            }
            let Poll::Ready(ask) = clock.poll_asked(cx) else { return Poll::Pending };
            match ask {
                Ask::End if is_closing || !clock.is_quiet() => {
                    connection.hang_up();
                    return Poll::Ready(None);
                }
                Ask::Cut => return Poll::Ready(None),
                Ask::TimeOut if was_late => return Poll::Ready(None),
                Ask::TimeOut => {
                    was_late = true;
                    connection.time_out(cx);
                }
                Ask::End | Ask::Close => {
                    is_closing = true;
                    connection.graceful_shutdown();
                }
            }
        }
    })
}

impl<A, R, F> Driven for http1::Connection<A, R, F>
where
    A: Fn(Http1Asked) -> F,
    R: Fn(Refusal) -> Response<ResponseBody>,
    F: Future<Output = Response<ResponseBody>>,
{
    type End = ();

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        http1::Connection::poll(self, cx)
    }

    fn graceful_shutdown(&mut self) {
        http1::Connection::graceful_shutdown(self);
    }

    fn time_out(&mut self, cx: &mut Context<'_>) {
        http1::Connection::time_out(self, cx);
    }

    fn hang_up(&mut self) {
        http1::Connection::hang_up(self);
    }
}

impl<A, R, F> Driven for http2::Connection<A, R>
where
    A: Fn(Http2Asked) -> F,
    R: Fn(Refusal) -> Response<ResponseBody>,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    type End = Result<(), h2::Reason>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Reason>> {
        http2::Connection::poll(self, cx)
    }

    fn graceful_shutdown(&mut self) {
        http2::Connection::graceful_shutdown(self);
    }

    /// Between its streams, bytes are no head.
    fn time_out(&mut self, _: &mut Context<'_>) {}

    fn hang_up(&mut self) {
        http2::Connection::hang_up(self);
    }
}

async fn serve_h1(worker: &Rc<Worker>, client: Rc<Client>, stream: Stream, clock: &Rc<ConnectionClock>) {
    client.place.becomes(Spoken::Http1);
    let (fields, heads) = {
        let limits = &worker.routes().limits;
        (limits.headers, limits.header_bytes)
    };
    let answer = |asked: Http1Asked| {
        let Http1Asked { head, seen, body, upgrade } = asked;
        answer(worker.clone(), client.clone(), clock.clone(), head, body, From::Http1 { seen, upgrade })
    };
    let refuse = |refusal| {
        worker.refuse(refusal);
        answer::refused(refusal)
    };
    drive(clock, http1::Connection::new(stream, heads, fields, clock.signals.clone(), answer, refuse)).await;
}

async fn serve_h2(worker: &Rc<Worker>, client: Rc<Client>, stream: Stream, clock: &Rc<ConnectionClock>) {
    client.place.becomes(Spoken::Http2);
    clock.is_h2();
    let limits = worker.routes().limits.clone();
    let answer = |asked: Http2Asked| {
        let Http2Asked { head, seen, body, side } = asked;
        answer(worker.clone(), client.clone(), clock.clone(), head, body, From::Http2 { seen, side })
    };
    let refuse = |refusal| {
        worker.refuse(refusal);
        answer::refused(refusal)
    };
    let connection = http2::Connection::new(stream, limits, clock.signals.clone(), answer, refuse);
    // Its client broke the protocol, or one of its limits, and was told so.
    if let Some(Err(reason)) = drive(clock, connection).await {
        tracing::debug!(%reason, "a connection of HTTP/2 was ended");
        worker.refuse(Refusal::Http2);
    }
}

/// What a request is known by beside its head.
enum From {
    Http1 {
        seen: Seen,
        /// What its connection is once a 101 was sent.
        upgrade: Option<oneshot::Receiver<Upgraded>>,
    },
    Http2 {
        seen: Seen,
        side: StreamSide,
    },
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
    mut head: Box<Head>,
    body: Incoming,
    from: From,
) -> Response<ResponseBody> {
    let in_progress = clock.begin();
    let announces_close = (worker.is_draining() || clock.is_old()) && matches!(from, From::Http1 { .. });
    let raw = head.fields.raw();
    let version = head.version;
    let asked = match from {
        From::Http1 { seen, upgrade } => {
            let asked = decide(&worker, &client, &mut head, seen, Side::Http1(upgrade));
            headers::ask_of_server(&mut head, raw.as_deref().unwrap_or_default());
            asked
        }
        From::Http2 { seen, side } => decide_h2(&worker, &client, &clock, &mut head, seen, side),
    };
    let mut response = match asked {
        Ok(Asked::Query(plan)) => {
            let mut journey = Journey::new(plan, raw.map(|raw| (raw, version)), head, body);
            let response = journey.forward().await;
            journey.mirror();
            response
        }
        Ok(Asked::Events(door, from)) => Box::pin(door.answer(&head, body, from)).await,
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
    if announces_close {
        answer::say_close(&mut response);
    }
    in_progress.is_answered();
    response.body_mut().keeps(in_progress);
    response
}

/// Only HTTP/2 has streams that can be reset; then the same.
fn decide_h2(
    worker: &Worker,
    client: &Client,
    clock: &ConnectionClock,
    head: &mut Head,
    seen: Seen,
    side: StreamSide,
) -> Result<Asked, Refusal> {
    if clock.has_too_many_resets(&worker.routes().limits) {
        if clock.cut() {
            worker.refuse(Refusal::Resets);
        }
        return Err(Refusal::Resets);
    }
    decide(worker, client, head, seen, Side::Http2(side))
}

/// Where a tunnel would begin, and interim responses go.
enum Side {
    Http1(Option<oneshot::Receiver<Upgraded>>),
    Http2(StreamSide),
}

/// Makes `head`, in which was `seen`, what a backend shall have.
fn decide(worker: &Worker, client: &Client, head: &mut Head, seen: Seen, side: Side) -> Result<Asked, Refusal> {
    query::check(head, seen)?;
    let routes = worker.routes();
    if routes.events.is_for(head) {
        let from = client.fields.client(client.address, &head.fields, seen, &routes.trusted_proxies);
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
        let address = client.fields.client(client.address, &head.fields, seen, &routes.trusted_proxies);
        let unit = Unit::of(head, &route.config.unit, address);
        let mut split = route.split.borrow_mut();
        let chosen = split.decide(&unit, head, asked, route.counters());
        if split.lacks_instance() {
            route.needs_instance.notify_one();
        }
        let mirror = split.mirror(&unit, &chosen).map(|pool| Pair::new(&route, pool, split.mirrors_for()));
        (chosen, split.flags.live, mirror)
    };
    let hearer = if let Side::Http2(side) = &side { Some(Hearer::Stream(side.hints.clone())) } else { None };
    let tunnel = if seen.has_upgrade { tunnel(head, &route.config.upgrades, client, side)? } else { None };
    let hears_interim = head.version != Version::HTTP_10;
    headers::prepare_request(head, seen, &client.fields);
    let tunnel = tunnel.map(|mut tunnel| {
        tunnel.ask(head.fields.map());
        Box::new(tunnel)
    });
    let expose = if asked.is_some() { route.config.expose.and(Expose::POOL) } else { route.config.expose };
    Ok(Asked::Query(Plan { route, chosen, live, mirror, tunnel, client: client.fields.clone(), expose, hears_interim, hearer }))
}

/// The tunnel that a request asks for, if the route allows it. An upgrade of HTTP/1.1 that is not allowed passes as if it had not been asked
/// for; a CONNECT of HTTP/2 asks for nothing else.
#[cold]
fn tunnel(head: &mut Head, allowed: &[String], client: &Client, side: Side) -> Result<Option<Tunnel>, Refusal> {
    match side {
        Side::Http1(upgrade) => {
            let end = upgrade.map(|upgrade| ClientEnd::Connection { upgrade, place: client.place.clone() });
            Ok(Tunnel::wanted(head.fields.map(), allowed, || end))
        }
        Side::Http2(side) => {
            Tunnel::wanted(head.fields.map(), allowed, || side.tunnel.map(ClientEnd::Stream)).ok_or(Refusal::Method).map(Some)
        }
    }
}

/// The pool that a signed override asks for. One that is not good is ignored, and counted.
#[cold]
fn overridden(worker: &Worker, overrides: &Overrides, route: &RouteWorker, head: &mut Head) -> Option<PoolIndex> {
    let asked = overrides.look(head.fields.map(), &route.config, seconds_now())?;
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
