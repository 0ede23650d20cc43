//! One client connection: HTTP/1.1, or HTTP/2 with prior knowledge, told apart by its first bytes.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer;
use super::body::ResponseBody;
use super::clock::{Ask, ConnectionClock};
use super::forward::{Journey, Plan};
use super::headers::{self, ClientFields};
use super::listener::{Arrival, Place};
use super::on_this_worker::OnThisWorker;
use super::open::Spoken;
use super::query::{self, Unit};
use super::scan::Head;
use super::seen::Seen;
use super::tunnel::Tunnel;
use super::watched::Watched;
use super::worker::Worker;
use crate::config::Limits;
use crate::quality::Refusal;

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
    // The text of an address is always a header value.
    let forwarded_for = HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
    let proto = HeaderValue::from_static(if tls.is_some() { "https" } else { "http" });
    let client = Rc::new(Client { address, fields: Rc::new(ClientFields { forwarded_for, proto }), place: Rc::new(place) });
    let (number, clock) = worker.clocks.start();
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

/// Polls a connection to its end, or ends it when the worker asks for that.
macro_rules! drive {
    ($clock:expr, $connection:expr) => {{
        let mut connection = std::pin::pin!($connection);
        let mut is_closing = false;
        let driven = std::future::poll_fn(|cx| {
            // Whatever went wrong on a client's connection is the client's to know; its queries were counted.
            while connection.as_mut().poll(cx).is_pending() {
                let Poll::Ready(ask) = $clock.poll_asked(cx) else { return Poll::Pending };
                if ask == Ask::End && (is_closing || !$clock.is_quiet()) {
                    break;
                }
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            Poll::Ready(())
        });
        driven.await
    }};
}

async fn serve_h1<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, clock: &Rc<ConnectionClock>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    client.place.becomes(Spoken::Http1);
    let builder = http1_builder(&worker.routes().limits);
    let service = service_fn(|request| answer(worker.clone(), client.clone(), clock.clone(), request));
    let io = TokioIo::new(Watched::http1(stream, clock.signals.clone()));
    drive!(clock, builder.serve_connection(io, service).with_upgrades());
}

async fn serve_h2<S>(worker: &Rc<Worker>, client: Rc<Client>, stream: S, clock: &Rc<ConnectionClock>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    client.place.becomes(Spoken::Http2);
    let builder = http2_builder(&worker.routes().limits);
    let service = service_fn(|request| answer(worker.clone(), client.clone(), clock.clone(), request));
    clock.is_h2();
    let io = TokioIo::new(Watched::http2(stream, clock.signals.clone()));
    drive!(clock, builder.serve_connection(io, service));
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.headers).max_header_size(limits.header_bytes).max_buf_size(limits.header_bytes.max(64 << 10));
    builder.header_read_timeout(None).writev(false);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<OnThisWorker> {
    let mut builder = http2::Builder::new(OnThisWorker);
    builder.max_concurrent_streams(limits.h2_streams).max_pending_accept_reset_streams(limits.h2_pending_resets);
    builder.max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX)).timer(TokioTimer::new());
    builder.keep_alive_interval(limits.keepalive_timeout);
    builder
}

/// A request's life: checked, matched to a route, its unit found, split, forwarded.
async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    clock: Rc<ConnectionClock>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let in_progress = clock.begin();
    let announces_close = (worker.is_draining() || clock.is_old()) && request.version() != Version::HTTP_2;
    let (mut head, body) = request.into_parts();
    let (plan, raw) = match clock.signals.take_head() {
        Some(Head::Ambiguous) => (Err(Refusal::Framing), None),
        Some(Head::Whole(raw)) => (decide(&worker, &client, &clock, &mut head), Some(raw)),
        None => (decide(&worker, &client, &clock, &mut head), None),
    };
    let mut response = match plan {
        Ok(plan) => Journey::new(plan, raw, head, body).forward().await,
        Err(refusal) => {
            worker.refuse(refusal);
            answer::refused(refusal)
        }
    };
    if announces_close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().keeps(in_progress);
    Ok(response)
}

/// Makes `head` what a backend shall have.
fn decide(worker: &Worker, client: &Client, clock: &ConnectionClock, head: &mut Parts) -> Result<Plan, Refusal> {
    let seen = Seen::of(&head.headers);
    query::check(head, seen)?;
    let routes = worker.routes();
    if routes.table.tells_paths_apart && query::has_dot_segment(head.uri.path()) {
        return Err(Refusal::Path);
    }
    let index = routes.table.find(head).ok_or(Refusal::NoRoute)?;
    let route = routes.all.get(index.get()).ok_or(Refusal::NoRoute)?.clone();
    let (chosen, live) = {
        let unit = Unit::of(head, &route.config.unit, client.address);
        let mut split = route.split.borrow_mut();
        let chosen = split.decide(&unit, head, route.counters());
        if split.lacks_instance() {
            route.needs_instance.notify_one();
        }
        (chosen, split.flags.live)
    };
    let tunnel = if seen.has_upgrade { Tunnel::wanted(head, &route.config.upgrades, &client.place, &clock.signals) } else { None };
    headers::prepare_request(head, seen, &client.fields);
    if let Some(tunnel) = &tunnel {
        tunnel.ask(&mut head.headers);
    }
    Ok(Plan { route, chosen, live, tunnel: tunnel.map(Box::new), client: client.fields.clone() })
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
