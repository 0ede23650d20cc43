//! A backend that costs as little as one can: one thread, one `read` and one `write` a request, and answers that are made beforehand.
//!
//! `/size/N` has N bytes, every other GET and POST 1 KB; any other method gets 204. Each answer says in `x-upstream` by which of its
//! names it was asked, which is how arms are counted.

use std::io::{Write, stdout};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;

use anyhow::{Context, Result, bail};

use crate::poll::{INPUT, Poll, is_not_ready};
use crate::wire::{Messages, Outbox, READ_BYTES, Taken, body_length, number, read_once};

/// What a GET for no size in particular gets.
const DEFAULT_BYTES: usize = 1024;
const MAX_BYTES: usize = 1 << 20;
/// Tokens of listeners begin here; those of connections follow them.
const FIRST: usize = INPUT + 1;

/// `NAME=ADDRESS`.
pub(crate) fn parse_arm(text: &str) -> Result<(String, SocketAddr)> {
    let Some((name, address)) = text.split_once('=') else { bail!("must be NAME=ADDRESS") };
    Ok((name.to_owned(), address.parse().with_context(|| format!("{address} is no address with a port"))?))
}

/// What a request asks for.
#[derive(Clone, Copy)]
enum Wanted {
    Bytes(usize),
    Nothing,
}

struct Connection {
    stream: TcpStream,
    arm: Rc<Arm>,
    messages: Messages<Wanted>,
    outbox: Outbox,
}

/// Serves until standard input ends.
pub(crate) fn run(arms: &[(String, SocketAddr)]) -> Result<()> {
    let poll = Poll::new()?;
    let mut listeners = Vec::new();
    for (name, address) in arms {
        let listener = poll.listen(*address, FIRST + listeners.len())?;
        writeln!(stdout(), "{name}={}", listener.local_addr()?)?;
        listeners.push((listener, Rc::new(Arm::new(name))));
    }
    stdout().flush()?;
    let first_connection = FIRST + listeners.len();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    poll.serve(|poll, token| {
        if let Some((listener, arm)) = listeners.get(token - FIRST) {
            return accept(listener, arm, poll, first_connection, &mut connections, &mut free);
        }
        let place = token - first_connection;
        let Some(slot) = connections.get_mut(place) else { return Ok(()) };
        if slot.as_mut().is_some_and(|connection| !connection.serve(&mut buffer)) {
            *slot = None;
            free.push(place);
        }
        Ok(())
    })
}

/// Takes the connections that wait.
fn accept(
    listener: &TcpListener,
    arm: &Rc<Arm>,
    poll: &Poll,
    first_token: usize,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if is_not_ready(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let place = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poll.watch_both(&stream, first_token + place)?;
        if let Some(slot) = connections.get_mut(place) {
            *slot = Some(Connection { stream, arm: Rc::clone(arm), messages: Messages::new(), outbox: Outbox::new() });
        }
    }
}

impl Connection {
    /// Answers what has come; `false` when the connection is over.
    fn serve(&mut self, buffer: &mut [u8]) -> bool {
        if !self.outbox.is_empty() && self.outbox.flush(&self.stream).is_err() {
            return false;
        }
        loop {
            let (read, is_last) = match read_once(&self.stream, buffer) {
                Ok(Taken::More(read)) => (read, false),
                Ok(Taken::Last(read)) => (read, true),
                Ok(Taken::Closed) | Err(_) => return false,
            };
            let Connection { stream, arm, messages, outbox } = self;
            let bytes = buffer.get(..read).unwrap_or_default();
            if messages.take(bytes, read_head, |wanted| Ok(arm.answer(wanted, outbox, stream)?)).is_err() {
                return false;
            }
            if is_last {
                return true;
            }
        }
    }
}

/// What a head asks for, and how long its body is.
fn read_head(head: &[u8]) -> Result<(Wanted, usize)> {
    let mut words = head.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let wanted = match method {
        b"GET" | b"POST" => Wanted::Bytes(size_of_target(target).unwrap_or(DEFAULT_BYTES).min(MAX_BYTES)),
        _ => Wanted::Nothing,
    };
    // No GET of this benchmark has a body; looking for its length would be half of what a request costs here.
    Ok((wanted, if method == b"GET" { 0 } else { body_length(head)? }))
}

/// N of `.../size/N`.
fn size_of_target(target: &[u8]) -> Option<usize> {
    if !target.starts_with(b"/size/") {
        return None;
    }
    let digits = target.get(6..)?.split(|&byte| byte == b'?').next()?;
    number(digits)
}

/// A name under which the upstream answers.
struct Arm {
    name: String,
    usual: Vec<u8>,
    nothing: Vec<u8>,
}

impl Arm {
    fn new(name: &str) -> Arm {
        let nothing = format!("HTTP/1.1 204 No Content\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-upstream: {name}\r\n\r\n").into_bytes();
        Arm { name: name.to_owned(), usual: answer(name, DEFAULT_BYTES), nothing }
    }

    fn answer(&self, wanted: Wanted, outbox: &mut Outbox, stream: &TcpStream) -> std::io::Result<()> {
        match wanted {
            Wanted::Nothing => outbox.send(stream, &self.nothing),
            Wanted::Bytes(DEFAULT_BYTES) => outbox.send(stream, &self.usual),
            Wanted::Bytes(bytes) => outbox.send(stream, &answer(&self.name, bytes)),
        }
    }
}

fn answer(name: &str, bytes: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-upstream: {name}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_target() {
        assert_eq!(size_of_target(b"/size/16384?q=a"), Some(16384));
        assert_eq!(size_of_target(b"/search?q=/size/3"), None);
    }

    #[test]
    fn arms_are_a_name_and_an_address() {
        assert_eq!(parse_arm("blue=127.0.0.1:80").unwrap().0, "blue");
        assert!(parse_arm("blue").is_err());
    }
}
