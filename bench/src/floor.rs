//! The floor: what forwarding costs when nothing else is done. One thread on epoll, one upstream connection for each client's; where a message ends is
//! looked for in both directions, and each piece is sent on as it came. No routing, no headers, no limits, no counters.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;

use crate::poll::{INPUT, Poll, is_not_ready};
use crate::wire::{Messages, Outbox, READ_BYTES, Taken, body_length, read_once};

const LISTENER: usize = INPUT + 1;
/// Even tokens from here on are clients', the odd ones after them their upstreams'.
const FIRST: usize = LISTENER + 1;

/// One way: what was read from one side and goes to the other.
struct Way {
    messages: Messages<()>,
    outbox: Outbox,
}

struct Pair {
    client: TcpStream,
    upstream: TcpStream,
    there: Way,
    back: Way,
}

/// Forwards until standard input ends.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let poll = Poll::new()?;
    let listener = poll.listen(listen, LISTENER)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    poll.serve(|poll, token| {
        if token == LISTENER {
            return Ok(accept(&listener, upstream, poll, &mut pairs, &mut free)?);
        }
        let place = (token - FIRST) / 2;
        let Some(slot) = pairs.get_mut(place) else { return Ok(()) };
        let is_client = (token - FIRST).is_multiple_of(2);
        if slot.as_mut().is_some_and(|pair| pair.forward(is_client, &mut buffer).is_err()) {
            *slot = None;
            free.push(place);
        }
        Ok(())
    })
}

fn accept(
    listener: &TcpListener,
    upstream: SocketAddr,
    poll: &Poll,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if is_not_ready(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Ok(upstream) = TcpStream::connect(upstream) else { continue };
        let place = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        for (stream, token) in [(&client, FIRST + 2 * place), (&upstream, FIRST + 2 * place + 1)] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            poll.watch_both(stream, token)?;
        }
        let way = || Way { messages: Messages::new(), outbox: Outbox::new() };
        if let Some(slot) = pairs.get_mut(place) {
            *slot = Some(Pair { client, upstream, there: way(), back: way() });
        }
    }
}

impl Pair {
    /// One side is ready: what waits for it is sent, and what it has is forwarded. An error ends both.
    fn forward(&mut self, is_client: bool, buffer: &mut [u8]) -> Result<()> {
        let Pair { client, upstream, there, back } = self;
        let (from, to, way, reverse) = if is_client { (client, upstream, there, back) } else { (upstream, client, back, there) };
        if !reverse.outbox.is_empty() {
            reverse.outbox.flush(&*from)?;
        }
        loop {
            let (read, is_last) = match read_once(&*from, buffer)? {
                Taken::More(read) => (read, false),
                Taken::Last(read) => (read, true),
                Taken::Closed => anyhow::bail!("closed"),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            way.messages.take(bytes, |head| Ok(((), body_length(head)?)), |()| Ok(()))?;
            if read > 0 {
                way.outbox.send(&*to, bytes)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
