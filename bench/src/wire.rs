//! HTTP/1.1 as far as a benchmark needs it: where a message ends, and one field of its head. What has no `Content-Length` has no body.
//!
//! It reads what well-behaved programs on this machine send, and trusts them.

use std::io::{self, Read, Write};

use anyhow::{Result, bail};

use crate::poll::is_not_ready;

/// A head is no longer than this.
const HEAD_BYTES: usize = 64 * 1024;
/// What is read at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// One direction of a connection, cut into messages. `T` is what its user wants to know of a message, from its head.
pub(crate) struct Messages<T> {
    /// A head whose end has not come.
    partial: Vec<u8>,
    /// The message whose body is coming, and how many bytes of it are still to come.
    open: Option<(T, usize)>,
}

impl<T> Messages<T> {
    pub(crate) fn new() -> Messages<T> {
        Messages { partial: Vec::new(), open: None }
    }

    /// Takes what came. `read_head` says what a head means and how long its body is; `done` gets each message that is whole.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        read_head: impl Fn(&[u8]) -> Result<(T, usize)>,
        mut done: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        loop {
            if let Some((message, left)) = self.open.take() {
                let Some((_, rest)) = bytes.split_at_checked(left) else {
                    self.open = Some((message, left - bytes.len()));
                    return Ok(());
                };
                bytes = rest;
                done(message)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            match self.head(bytes, &read_head)? {
                Some(rest) => bytes = rest,
                None => return Ok(()),
            }
        }
    }

    /// Opens the next message; what follows its head, or `None` while the head is not whole.
    fn head<'a>(&mut self, bytes: &'a [u8], read_head: impl Fn(&[u8]) -> Result<(T, usize)>) -> Result<Option<&'a [u8]>> {
        if self.partial.is_empty()
            && let Some((head, rest)) = split_head(bytes)
        {
            self.open = Some(read_head(head)?);
            return Ok(Some(rest));
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let Some((head, _)) = split_head(&self.partial) else {
            if self.partial.len() > HEAD_BYTES {
                bail!("a head of more than {HEAD_BYTES} bytes");
            }
            return Ok(None);
        };
        let of_these = head.len() - before;
        self.open = Some(read_head(head)?);
        self.partial.clear();
        Ok(bytes.get(of_these..))
    }
}

/// A head with its empty line, and what follows.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 3;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|&byte| byte == b'\n')?;
        let (head, rest) = bytes.split_at_checked(at + 1)?;
        if head.ends_with(b"\r\n\r\n") {
            return Some((head, rest));
        }
        from = at + 1;
    }
}

/// The value of the first field of this name, which is given in lower case.
pub(crate) fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    for line in head.split(|&byte| byte == b'\n') {
        if let Some((found, value)) = line.split_at_checked(name.len())
            && let Some(value) = value.strip_prefix(b":")
            && found.eq_ignore_ascii_case(name)
        {
            return Some(value.trim_ascii());
        }
    }
    None
}

/// How long a body is.
pub(crate) fn body_length(head: &[u8]) -> Result<usize> {
    if field(head, b"transfer-encoding").is_some() {
        bail!("a body in chunks, where a Content-Length was sent");
    }
    let Some(value) = field(head, b"content-length") else { return Ok(0) };
    match number(value) {
        Some(length) => Ok(length),
        None => bail!("Content-Length: {}", String::from_utf8_lossy(value)),
    }
}

/// A number in decimal digits.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Bytes that the other side has not taken yet.
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox { bytes: Vec::new(), sent: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends, after whatever waits already. What does not go now goes with [`Outbox::flush`].
    pub(crate) fn send(&mut self, mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            return self.flush(to);
        }
        let sent = match to.write(bytes) {
            Ok(sent) => sent,
            Err(error) if is_not_ready(&error) => 0,
            Err(error) => return Err(error),
        };
        self.bytes.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        self.sent = 0;
        if self.bytes.is_empty() { Ok(()) } else { self.flush(to) }
    }

    /// Sends what waits, as far as it goes.
    pub(crate) fn flush(&mut self, mut to: impl Write) -> io::Result<()> {
        while let Some(left) = self.bytes.get(self.sent..).filter(|left| !left.is_empty()) {
            match to.write(left) {
                Ok(sent) => self.sent += sent,
                Err(error) if is_not_ready(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// What a look at a connection found.
pub(crate) enum Taken {
    /// So many bytes, and perhaps more.
    More(usize),
    /// So many bytes, and no more at present.
    Last(usize),
    /// The other side has closed.
    Closed,
}

/// Reads once.
pub(crate) fn read_once(mut from: impl Read, into: &mut [u8]) -> io::Result<Taken> {
    match from.read(into) {
        Ok(0) => Ok(Taken::Closed),
        // A stream that gave less than it was asked for is empty.
        Ok(read) if read < into.len() => Ok(Taken::Last(read)),
        Ok(read) => Ok(Taken::More(read)),
        Err(error) if is_not_ready(&error) => Ok(Taken::Last(0)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(pieces: &[&[u8]]) -> Vec<usize> {
        let mut messages = Messages::new();
        let mut found = Vec::new();
        for piece in pieces {
            let head = |head: &[u8]| body_length(head).map(|length| (length, length));
            let keep = |length| {
                found.push(length);
                Ok(())
            };
            messages.take(piece, head, keep).unwrap();
        }
        found
    }

    const TWO: &[u8] = b"POST / HTTP/1.1\r\nContent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[test]
    fn messages_are_found_in_pieces_of_any_size() {
        assert_eq!(lengths(&[TWO]), [3, 0]);
        for cut in 1..TWO.len() {
            let (first, second) = TWO.split_at(cut);
            assert_eq!(lengths(&[first, second]), [3, 0], "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = TWO.chunks(1).collect();
        assert_eq!(lengths(&bytes), [3, 0]);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name_in_any_case() {
        let head = b"HTTP/1.1 200 OK\r\nX-Upstream-Other: a\r\nX-Upstream:  blue \r\n\r\n";
        assert_eq!(field(head, b"x-upstream"), Some(&b"blue"[..]));
        assert_eq!(field(head, b"x-up"), None);
    }

    #[test]
    fn chunks_are_refused() {
        assert!(body_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn what_does_not_go_at_once_goes_later_and_in_order() {
        struct Narrow(Vec<u8>, usize);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let taken = bytes.len().min(self.1);
                self.1 -= taken;
                self.0.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut to = Narrow(Vec::new(), 3);
        let mut outbox = Outbox::new();
        outbox.send(&mut to, b"abcdef").unwrap();
        outbox.send(&mut to, b"gh").unwrap();
        assert!(!outbox.is_empty());
        to.1 = 100;
        outbox.flush(&mut to).unwrap();
        assert_eq!(to.0, b"abcdefgh");
        assert!(outbox.is_empty());
    }
}
