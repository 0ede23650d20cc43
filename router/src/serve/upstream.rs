//! One HTTP/1.1 connection to an endpoint, and what can go wrong on it.

use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::pool::SharedEndpoint;
use super::replay::RequestBody;
use super::timer::ReusedTimer;

/// A connection that can carry one query at a time.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    timer: ReusedTimer,
    is_reused: bool,
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
    /// What came back is not HTTP, or breaks a limit.
    #[error("the backend's response cannot be read: {0}")]
    Broken(String),
    /// No response in time.
    #[error("no response in time")]
    Timeout,
    /// The pool has as many queries in flight as it may.
    #[error("the pool has no room for another query")]
    Full,
    /// The client did not send its whole body.
    #[error("the client did not send its whole request")]
    Client,
}

impl Failure {
    /// Nothing was received, so a second attempt on a fresh connection may work out.
    pub(crate) fn may_retry(&self) -> bool {
        matches!(self, Failure::Connect { .. } | Failure::Closed { .. })
    }
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// [`Failure::Connect`], also when `timeout` passes.
    pub(crate) async fn open(endpoint: &SharedEndpoint, timeout: Duration) -> Result<Connection, Failure> {
        let refused = |cause: String| Failure::Connect { endpoint: endpoint.authority.to_string(), cause };
        let stream = match tokio::time::timeout(timeout, TcpStream::connect(endpoint.authority.as_str())).await {
            Ok(connected) => connected.map_err(|error| refused(error.to_string()))?,
            Err(_) => return Err(refused(format!("no answer within {timeout:?}"))),
        };
        // Latency over packets: a query's head must not wait for an acknowledgement.
        stream.set_nodelay(true).map_err(|error| refused(error.to_string()))?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| refused(error.to_string()))?;
        tokio::task::spawn_local(async move {
            // What went wrong is told to whoever waits for the response.
            let _ = connection.await;
        });
        Ok(Connection { sender, timer: ReusedTimer::new(Instant::now() + timeout), is_reused: false })
    }

    /// Can take a query now.
    pub(crate) fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a query and waits for the response's head.
    ///
    /// # Errors
    /// [`Failure::Closed`], [`Failure::Broken`], or [`Failure::Timeout`].
    pub(crate) async fn send(&mut self, request: Request<RequestBody>, deadline: Instant) -> Result<Response<Incoming>, Failure> {
        let was_reused = std::mem::replace(&mut self.is_reused, true);
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        let timer = &mut self.timer;
        let in_time = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Pending => timer.poll_passed(deadline, cx).map(|()| None),
            Poll::Ready(result) => Poll::Ready(Some(result)),
        });
        match in_time.await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) if error.is_parse() => Err(Failure::Broken(error.to_string())),
            Some(Err(_)) => Err(Failure::Closed { was_reused }),
            None => Err(Failure::Timeout),
        }
    }
}
