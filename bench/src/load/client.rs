//! One client's connection: in the clear or over TLS, one request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::tally::{Answer, arm};
use crate::wire::{Messages, Outbox, Taken, body_length, field, number, read_once};

/// For a connection and its handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// With whom TLS is spoken, and for which name.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Who asked.
    pub(crate) user: usize,
    /// Since when it counts: when it was sent, or was to be sent.
    pub(crate) since: Instant,
}

/// What became of a request.
pub(crate) enum Heard {
    /// Nothing yet.
    Nothing,
    /// It was answered.
    Answer(Asked, Answer),
    /// The connection is over; a request may have been lost with it.
    Over(Option<Asked>),
}

/// A connection.
pub(crate) struct Client {
    transport: Transport,
    messages: Messages<Answer>,
    outbox: Outbox,
    asked: Option<Asked>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    /// Connects and, over TLS, agrees.
    pub(crate) fn connect(target: &Target) -> Result<Client> {
        let stream =
            TcpStream::connect_timeout(&target.address, CONNECT_WITHIN).with_context(|| format!("connecting to {}", target.address))?;
        stream.set_nodelay(true)?;
        let transport = match &target.tls {
            None => Transport::Plain(stream),
            Some((config, name)) => {
                let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name.clone())?, stream);
                stream.sock.set_read_timeout(Some(CONNECT_WITHIN))?;
                stream.conn.complete_io(&mut stream.sock).context("TLS handshake")?;
                Transport::Tls(Box::new(stream))
            }
        };
        transport.stream().set_nonblocking(true)?;
        Ok(Client { transport, messages: Messages::new(), outbox: Outbox::new(), asked: None })
    }

    /// What to wait for.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.transport.stream()
    }

    /// The request that waits for its answer.
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.asked
    }

    /// Sends a request.
    pub(crate) fn ask(&mut self, request: &[u8], asked: Asked) -> io::Result<()> {
        self.asked = Some(asked);
        self.outbox.send(&mut self.transport, request)
    }

    /// Takes what has come.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> Heard {
        match self.take(buffer) {
            Ok(None) => Heard::Nothing,
            Ok(Some(answer)) => match self.asked.take() {
                Some(asked) => Heard::Answer(asked, answer),
                // An answer that nobody waits for.
                None => Heard::Over(None),
            },
            Err(_) => Heard::Over(self.asked.take()),
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<Option<Answer>> {
        if !self.outbox.is_empty() {
            self.outbox.flush(&mut self.transport)?;
        }
        let mut found = None;
        loop {
            let is_tls = matches!(self.transport, Transport::Tls(_));
            let (read, is_last) = match read_once(&mut self.transport, buffer)? {
                Taken::More(read) => (read, false),
                // A record that was short says nothing about the socket.
                Taken::Last(read) => (read, !is_tls || read == 0),
                Taken::Closed => bail!("closed"),
            };
            let keep = |answer| match found.replace(answer) {
                None => Ok(()),
                Some(_) => bail!("two answers to one request"),
            };
            self.messages.take(buffer.get(..read).unwrap_or_default(), read_head, keep)?;
            if is_last {
                return Ok(found);
            }
        }
    }
}

/// Status and upstream of an answer, and how long its body is.
fn read_head(head: &[u8]) -> Result<(Answer, usize)> {
    let Some(status) = head.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok()) else {
        bail!("no status: {}", String::from_utf8_lossy(head));
    };
    let arm = arm(field(head, b"x-upstream").unwrap_or_default());
    Ok((Answer { status, arm }, if matches!(status, 100..200 | 204 | 304) { 0 } else { body_length(head)? }))
}

impl Transport {
    fn stream(&self) -> &TcpStream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Transport {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.read(into),
            Transport::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}
