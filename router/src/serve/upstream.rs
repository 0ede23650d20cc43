//! A connection to an endpoint, over TCP or TLS, in HTTP/1.1 or HTTP/2, and what can go wrong on it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::head::Outgoing;
use super::http1::{Stream, Unanswered, Wire, number};
use super::http2::{self, SendError};
use super::incoming::Incoming;
use super::interim::{Ear, Gate, Heard, Hearer};
use super::pool::{Place, SharedEndpoint, no_tls, unreadable};
use super::replay::RequestBody;
use super::seen::Seen;
use super::timer::ReusedTimer;
use crate::config::Protocol;
use crate::quality::Broken;

/// A connection that can carry one query at a time, or a share in one that carries many.
pub(crate) struct Connection {
    sender: Sender,
    /// Of a connection that carries one query at a time.
    timer: Option<ReusedTimer>,
    is_reused: bool,
    /// Of an endpoint that is given by name.
    place: Option<Arc<Place>>,
}

enum Sender {
    Http1(Wire),
    /// hyper's, whose connection can become another protocol's.
    Upgrade {
        sender: http1::SendRequest<RequestBody>,
        ear: Arc<Ear>,
    },
    Http2(http2::Sender),
}

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Queries, one after the other or beside each other.
    Queries,
    /// A request that asks for another protocol.
    Upgrade,
}

/// Why an attempt got no response. It answers the two questions that the data path has: who is to blame, and may it be
/// tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    #[error("cannot connect to {endpoint}: {cause}")]
    Connect {
        /// Host and port.
        endpoint: String,
        /// What the system said.
        cause: String,
    },
    /// The connection was closed before a response.
    #[error("the backend closed the connection without a response")]
    Closed {
        /// It had carried a query before, so that this may be the race of a keep-alive connection.
        was_reused: bool,
    },
    /// The backend says that it had not begun with the query.
    #[error("the backend refused to begin")]
    Refused,
    /// What came back is not HTTP, breaks a limit, or could be read in two ways.
    #[error("the backend's response cannot be read: {}", unreadable(*.0))]
    Broken(Broken),
    /// No response in time.
    #[error("no response in time")]
    Timeout,
    /// The pool has as many queries in flight as it may.
    #[error("the pool has no room for another query")]
    Full,
    /// Health checks say that no endpoint of the pool can answer.
    #[error("no endpoint of the pool is healthy")]
    Unhealthy,
    /// The client did not send its whole body.
    #[error("the client did not send its whole request")]
    Client,
    /// The client's body did not come in time.
    #[error("the request's body did not come in time")]
    Late,
    /// The client's body makes no sense.
    #[error("the request's body cannot be read: it is not chunked as it should be")]
    Malformed,
    /// The client's body is larger than the route allows.
    #[error("the request's body is larger than this route allows")]
    TooLarge,
}

/// Why there was no response, and the request where nothing of it was sent.
pub(crate) type Unsent = (Failure, Option<Box<Outgoing>>);

/// Who hears of interim responses.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hearers<'a> {
    /// The client, where it can have any.
    pub(crate) client: Option<&'a Hearer>,
    /// What holds the request's body back until the backend says 100 Continue.
    pub(crate) gate: Option<&'a Arc<Gate>>,
}

impl Hearers<'_> {
    /// Nobody.
    pub(crate) const NONE: Hearers<'static> = Hearers { client: None, gate: None };

    /// Tells whom it concerns.
    pub(crate) fn hear(&self, status: StatusCode, headers: HeaderMap) {
        if status == StatusCode::CONTINUE {
            if let Some(gate) = self.gate {
                gate.open();
            }
        } else if let Some(client) = self.client {
            client.hear(status, status.canonical_reason().unwrap_or_default(), headers);
        }
    }
}

impl Failure {
    /// The client is to blame, and no backend.
    pub(crate) fn is_clients(&self) -> bool {
        matches!(self, Failure::Client | Failure::Late | Failure::Malformed | Failure::TooLarge)
    }

    /// Nothing was received, so a second attempt on a fresh connection may work out.
    pub(crate) fn may_retry(&self) -> bool {
        matches!(self, Failure::Connect { .. } | Failure::Closed { .. } | Failure::Refused)
    }

    /// No backend had work with it.
    pub(crate) fn cost_nothing(&self) -> bool {
        matches!(self, Failure::Connect { .. } | Failure::Refused)
    }
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// [`Failure::Connect`], also when `timeout` passes before a TLS handshake is through.
    pub(crate) async fn open(endpoint: &SharedEndpoint, purpose: Purpose, timeout: Duration) -> Result<Connection, Failure> {
        let refused = |cause: String| Failure::Connect { endpoint: endpoint.authority.to_string(), cause };
        match tokio::time::timeout(timeout, dial(endpoint, purpose, timeout)).await {
            Ok(Ok((sender, place))) => {
                let timer = (!matches!(sender, Sender::Http2(_))).then(|| ReusedTimer::new(Instant::now() + timeout));
                Ok(Connection { sender, timer, is_reused: false, place })
            }
            Ok(Err(cause)) => Err(refused(cause)),
            Err(_) => {
                endpoint.connecting_took_too_long();
                Err(refused(format!("no answer within {timeout:?}")))
            }
        }
    }

    /// Can take a query now.
    pub(crate) fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(wire) => wire.is_usable(),
            Sender::Upgrade { sender, .. } => sender.is_ready(),
            Sender::Http2(sender) => sender.is_usable(),
        }
    }

    /// Whether a backend may refuse a query after it was sent, and say so.
    pub(crate) fn may_be_refused(&self) -> bool {
        matches!(&self.sender, Sender::Http2(_))
    }

    /// It carries nothing more, as far as is known without a look at its bytes.
    pub(crate) fn is_over(&self) -> bool {
        match &self.sender {
            Sender::Http1(wire) => wire.is_over(),
            _ => self.is_closed(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(wire) => !wire.is_usable(),
            Sender::Upgrade { sender, .. } => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// The name that it was opened for stands for other addresses now.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.is_gone())
    }

    /// A share for one more query, where the connection carries many at a time.
    pub(crate) fn share(&self) -> Option<Connection> {
        let Sender::Http2(sender) = &self.sender else { return None };
        let sender = Sender::Http2(sender.clone());
        Some(Connection { sender, timer: None, is_reused: true, place: self.place.clone() })
    }

    /// Sends a query and waits for the response's head.
    ///
    /// # Errors
    /// [`Failure::Closed`], [`Failure::Broken`], or [`Failure::Timeout`].
    pub(crate) async fn send(
        &mut self,
        request: Outgoing,
        hearers: Hearers<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Seen), Failure> {
        self.send_once(request, hearers, deadline).await.map_err(|(failure, _)| failure)
    }

    /// As [`Connection::send`], for what must not be sent twice: gives the request back if nothing of it was sent.
    ///
    /// # Errors
    /// The same, and the request.
    pub(crate) async fn send_once(
        &mut self,
        request: Outgoing,
        hearers: Hearers<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Seen), Unsent> {
        let Sender::Http1(wire) = &self.sender else {
            return Box::pin(self.send_otherwise(request, hearers, deadline)).await;
        };
        let was_reused = std::mem::replace(&mut self.is_reused, true);
        match in_time(std::pin::pin!(wire.send(request, hearers)), &mut self.timer, deadline).await {
            Some(Ok((response, seen))) => Ok((response.map(Incoming::Backend), seen)),
            Some(Err(Unanswered::Broken(broken))) => Err((Failure::Broken(broken), None)),
            Some(Err(Unanswered::Unsent(request))) => Err((Failure::Closed { was_reused }, Some(request))),
            Some(Err(Unanswered::Closed)) => Err((Failure::Closed { was_reused }, None)),
            None => Err((Failure::Timeout, None)),
        }
    }

    async fn send_otherwise(
        &mut self,
        request: Outgoing,
        hearers: Hearers<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Seen), Unsent> {
        if matches!(self.sender, Sender::Http2(_)) {
            return self.send_over_h2(request, hearers, deadline).await;
        }
        let response = Box::pin(self.ask_to_upgrade(request, hearers, deadline)).await?;
        let seen = Seen::of(response.headers());
        match wrong_length(&response, seen) {
            Some(broken) => Err((Failure::Broken(broken), None)),
            None => Ok((response, seen)),
        }
    }

    async fn ask_to_upgrade(&mut self, request: Outgoing, hearers: Hearers<'_>, deadline: Instant) -> Result<Response<Incoming>, Unsent> {
        let was_reused = std::mem::replace(&mut self.is_reused, true);
        let Sender::Upgrade { sender, ear } = &mut self.sender else {
            return Err((Failure::Closed { was_reused }, Some(Box::new(request))));
        };
        let _listening = ear.listen(hearers.client, hearers.gate.cloned());
        match in_time(std::pin::pin!(sender.try_send_request(request.into())), &mut self.timer, deadline).await {
            _ if ear.is_odd() => Err((Failure::Broken(Broken::Framing), None)),
            Some(Ok(response)) => Ok(response.map(Incoming::Http1)),
            Some(Err(mut error)) => {
                let unsent = error.take_message().map(|request| Box::new(request.into()));
                Err((failure_of(&error.into_error(), was_reused), unsent))
            }
            None => Err((Failure::Timeout, None)),
        }
    }

    async fn send_over_h2(
        &mut self,
        request: Outgoing,
        hearers: Hearers<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Seen), Unsent> {
        let was_reused = std::mem::replace(&mut self.is_reused, true);
        let Sender::Http2(sender) = &self.sender else { return Err((Failure::Closed { was_reused }, Some(Box::new(request)))) };
        let mut timer = Some(sender.timer(deadline));
        let answer = in_time(std::pin::pin!(sender.send(request, hearers)), &mut timer, deadline).await;
        sender.give_back(timer);
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(SendError::Unsent(request))) => Err((Failure::Closed { was_reused }, Some(request))),
            Some(Err(SendError::Refused)) => Err((Failure::Refused, None)),
            Some(Err(SendError::Closed)) => Err((Failure::Closed { was_reused }, None)),
            Some(Err(SendError::Broken(broken))) => Err((Failure::Broken(broken), None)),
            None => {
                sender.is_late();
                Err((Failure::Timeout, None))
            }
        }
    }
}

/// What is wrong with the length that it says: it is no number, or there is no body that it could be of (RFC 9110, 8.6).
#[cold]
fn wrong_length(response: &Response<Incoming>, seen: Seen) -> Option<Broken> {
    let length = response.headers().get(CONTENT_LENGTH).map_or(Some(0), |said| number(said.as_bytes()));
    match (response.status(), length) {
        (_, None) => Some(Broken::Parse),
        (StatusCode::NO_CONTENT, Some(length)) if length > 0 || seen.has_transfer_encoding => Some(Broken::Framing),
        _ => None,
    }
}

fn failure_of(error: &hyper::Error, was_reused: bool) -> Failure {
    match error {
        error if error.is_parse_too_large() => Failure::Broken(Broken::HeadSize),
        error if error.is_parse() => Failure::Broken(Broken::Parse),
        _ => Failure::Closed { was_reused },
    }
}

/// The answer, or `None` when the deadline passes first.
async fn in_time<F: Future>(mut answer: Pin<&mut F>, timer: &mut Option<ReusedTimer>, deadline: Instant) -> Option<F::Output> {
    std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Pending => match timer {
            Some(timer) => timer.poll_passed(deadline, cx).map(|()| None),
            None => Poll::Pending,
        },
        Poll::Ready(result) => Poll::Ready(Some(result)),
    })
    .await
}

async fn dial(endpoint: &SharedEndpoint, purpose: Purpose, timeout: Duration) -> Result<(Sender, Option<Arc<Place>>), String> {
    let (stream, place) = endpoint.connect(timeout).await?;
    // Latency over packets: a query's head must not wait for an acknowledgement.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = &endpoint.tls else {
        return Ok((speak(Stream::Plain(stream), endpoint, purpose, false).await?, place));
    };
    let name = tls.server_name(endpoint.authority.host()).ok_or("its host is no name that a certificate can be for")?;
    let stream = TlsConnector::from(tls.current()).connect(name, stream).await.map_err(|error| no_tls(&error))?;
    if endpoint.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("TLS: it did not agree to speak h2 (ALPN)".to_owned());
    }
    Ok((speak(Stream::Tls(Box::new(stream.into())), endpoint, purpose, true).await?, place))
}

/// What goes wrong on the connection later is told to whoever waits for a response.
async fn speak(stream: Stream, endpoint: &SharedEndpoint, purpose: Purpose, is_https: bool) -> Result<Sender, String> {
    match (endpoint.protocol, purpose) {
        (Protocol::Http1, Purpose::Queries) => Ok(Sender::Http1(Wire::new(stream))),
        (Protocol::Http1, Purpose::Upgrade) => {
            let ear = Arc::<Ear>::default();
            let io = TokioIo::new(Heard::new(stream, ear.clone()));
            let (sender, connection) = http1::Builder::new().writev(false).handshake(io).await.map_err(|error| error.to_string())?;
            tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
            Ok(Sender::Upgrade { sender, ear })
        }
        (Protocol::Http2, _) => Ok(Sender::Http2(http2::Sender::begin(stream, is_https, endpoint.authority.clone()))),
    }
}
