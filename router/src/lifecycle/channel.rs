//! The channel between a process and the one that it hands over to: a socket that is the new one's standard input.
//!
//! | who says | what | and then |
//! |---|---|---|
//! | old | the listening sockets (`SCM_RIGHTS`), with their names | the new one starts beside it |
//! | new | `prepared` | it would be ready; the old one makes no changes any more and lets go of the data folder |
//! | old | `yours` | the new one takes the folder, reads what was written last, and listens |
//! | new | `serving` | the old one drains |
//! | new | `failed WHY`, or nothing and is gone | the old one goes on |
//!
//! When the old one is gone before it said `yours`, the new one takes over all the same: the sockets are there, and queries wait.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::LifecycleError;
use super::sockets::{Inherited, NAMES};

/// Set for a process that is to take over; it says which form of the channel is spoken.
pub(super) const VARIABLE: &str = "SWITCHBACK_HANDOVER";
pub(super) const FORM: &str = "1";

/// For the sockets to arrive: the old process has sent them already.
const SOCKETS_WITHIN: Duration = Duration::from_secs(5);

pub(super) const PREPARED: &str = "prepared";
pub(super) const YOURS: &str = "yours";
pub(super) const SERVING: &str = "serving";
const FAILED: &str = "failed ";

/// A line that the other side said, or that it is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Line(String),
    Failed(String),
    Gone,
}

/// One end of the channel.
pub(super) struct Channel {
    stream: BufReader<UnixStream>,
}

impl Channel {
    /// On the current runtime.
    pub(super) fn new(stream: StdStream) -> std::io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel { stream: BufReader::new(UnixStream::from_std(stream)?) })
    }

    /// What the other side says next.
    pub(super) async fn hear(&mut self) -> Said {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(1..) if line.starts_with(FAILED) => Said::Failed(line.trim_start_matches(FAILED).trim_end().to_owned()),
            Ok(1..) => Said::Line(line.trim_end().to_owned()),
            _ => Said::Gone,
        }
    }

    /// Whoever is gone needs not be told.
    pub(super) async fn say(&mut self, what: &str) {
        let _ = self.stream.get_mut().write_all(format!("{what}\n").as_bytes()).await;
    }
}

/// Sends the listening sockets, as the first thing on the channel.
pub(super) fn send_sockets(stream: &StdStream, sockets: &[(&'static str, &TcpListener)]) -> std::io::Result<()> {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let text = format!("{}\n", names.join(","));
    let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(NAMES.len()))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(std::io::Error::other("there are more sockets than names for them"));
    }
    sendmsg(stream, &[IoSlice::new(text.as_bytes())], &mut message, SendFlags::empty())?;
    Ok(())
}

fn receive_sockets(stream: &StdStream) -> std::io::Result<Vec<(String, TcpListener)>> {
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(NAMES.len()))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let names = String::from_utf8_lossy(text.get(..received.bytes).unwrap_or_default()).into_owned();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            descriptors.extend(passed);
        }
    }
    let names = names.trim_end().split(',').map(str::to_owned);
    Ok(names.zip(descriptors.into_iter().map(TcpListener::from)).collect())
}

/// The process before this one, as long as it has not handed over.
pub(super) struct Predecessor {
    std: Option<StdStream>,
    channel: Option<Channel>,
}

impl Predecessor {
    /// The one that started this process to hand over to it, if one did.
    pub(super) fn find() -> Result<Option<Predecessor>, LifecycleError> {
        let Some(form) = std::env::var_os(VARIABLE) else { return Ok(None) };
        if form != FORM {
            let what =
                format!("{VARIABLE} = {}: this version speaks form {FORM} only; stop the old router and start this one", form.display());
            return Err(LifecycleError::HandOver { what });
        }
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        let stream = StdStream::from(input.map_err(|error| no_channel(&error))?);
        stream.peer_addr().map_err(|error| no_channel(&error))?;
        Ok(Some(Predecessor { std: Some(stream), channel: None }))
    }

    /// The listening sockets that it passes.
    pub(super) fn sockets(&mut self) -> Result<Inherited, LifecycleError> {
        let Some(stream) = &self.std else { return Ok(Inherited::default()) };
        let fails = |error: std::io::Error| LifecycleError::HandOver { what: format!("no listening sockets came: {error}") };
        stream.set_read_timeout(Some(SOCKETS_WITHIN)).map_err(fails)?;
        Ok(Inherited::from_predecessor(receive_sockets(stream).map_err(fails)?))
    }

    /// This process would be ready: waits until the other one lets go. On the current runtime.
    pub(super) async fn prepared(&mut self) -> Result<(), LifecycleError> {
        let Some(stream) = self.std.take() else { return Ok(()) };
        let channel = self.channel.insert(Channel::new(stream).map_err(|error| no_channel(&error))?);
        channel.say(PREPARED).await;
        match channel.hear().await {
            Said::Line(line) if line == YOURS => {}
            Said::Gone => tracing::warn!("the process that was to hand over is gone; this one takes over"),
            other => return Err(LifecycleError::HandOver { what: format!("the old process said {other:?} instead of {YOURS:?}") }),
        }
        Ok(())
    }

    /// This process listens.
    pub(super) async fn serving(mut self) {
        if let Some(channel) = &mut self.channel {
            channel.say(SERVING).await;
        }
    }

    /// This process does not start.
    pub(super) fn failed(self, why: &str) {
        use std::io::Write as _;
        let line = format!("{FAILED}{why}\n");
        let stream = self.std.or_else(|| self.channel?.stream.into_inner().into_std().ok());
        if let Some(mut stream) = stream {
            // A line fits into the socket's buffer.
            let _ = stream.write_all(line.as_bytes());
        }
    }
}

fn no_channel(error: &std::io::Error) -> LifecycleError {
    LifecycleError::HandOver { what: format!("{VARIABLE} is set, but standard input is no channel of a router: {error}") }
}
