//! A backend that speaks HTTP/1.1, reads what it is sent as strictly as can be, and remembers it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What belongs into a head, and would mean something to whoever took trailers for a part of it.
const NOT_IN_TRAILERS: [&str; 5] = ["content-length", "transfer-encoding", "host", "connection", "te"];

/// What a backend was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A whole request: `METHOD HOST TARGET BODY`.
    Request(String),
    /// Anything that another reader could have read differently.
    Nonsense(String),
}

/// Requests in the order in which they were read.
pub type Recorded = Arc<Mutex<Vec<Seen>>>;

/// A backend that records what it is sent, and answers `ok`. Health checks are not recorded.
pub fn recording() -> (SocketAddr, Recorded) {
    let seen = Recorded::default();
    let recorded = seen.clone();
    let address = listen(move |stream| {
        let mut reader = Reader { stream };
        while let Some(request) = reader.request() {
            if !matches!(&request, Seen::Request(line) if line.contains("/v2/health/ready")) {
                recorded.lock().unwrap().push(request);
            }
            let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    (address, seen)
}

/// Serves each connection on a thread of its own.
pub fn listen(handle: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream.unwrap()));
        }
    });
    address
}

/// Reads requests off one connection, byte by byte.
struct Reader {
    stream: TcpStream,
}

/// A head that is worth reading on after.
#[derive(Default)]
struct Head {
    hosts: Vec<String>,
    lengths: Vec<String>,
    codings: Vec<String>,
}

impl Reader {
    fn line(&mut self) -> Option<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            if self.stream.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    fn bytes(&mut self, count: usize) -> Option<String> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `None` when the connection ends before a request does.
    fn request(&mut self) -> Option<Seen> {
        let first = self.line()?;
        let mut head = Head::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = field(&line) else { return Some(Seen::Nonsense(line)) };
            match name.as_str() {
                "host" => head.hosts.push(value),
                "content-length" => head.lengths.push(value),
                "transfer-encoding" => head.codings.push(value),
                _ => {}
            }
        }
        let body = match (head.lengths.as_slice(), head.codings.as_slice()) {
            ([], []) => Ok(String::new()),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => Ok(self.bytes(length.parse().unwrap())?),
            ([], [coding]) if coding == "chunked" => self.chunks()?,
            (lengths, codings) => Err(format!("{lengths:?} beside {codings:?}")),
        };
        let words: Vec<&str> = first.split(' ').collect();
        Some(match (words.as_slice(), head.hosts.as_slice(), body) {
            ([method, target, "HTTP/1.1"], [host], Ok(body)) => {
                Seen::Request(format!("{method} {host} {target} {body}").trim_end_matches(' ').to_owned())
            }
            (_, _, Err(why)) => Seen::Nonsense(why),
            (_, hosts, _) => Seen::Nonsense(format!("{first:?} to {hosts:?}")),
        })
    }

    /// `None` when the connection ends before, `Err` for what is no chunk.
    fn chunks(&mut self) -> Option<Result<String, String>> {
        let mut body = String::new();
        loop {
            let line = self.line()?;
            let Ok(size) = usize::from_str_radix(line.split(';').next().unwrap(), 16) else {
                return Some(Err(format!("a chunk of {line:?}")));
            };
            if size == 0 {
                return self.trailers().map(|trailers| trailers.map(|()| body));
            }
            body.push_str(&self.bytes(size)?);
            let end = self.line()?;
            if !end.is_empty() {
                return Some(Err(format!("{end:?} after a chunk")));
            }
        }
    }

    fn trailers(&mut self) -> Option<Result<(), String>> {
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(Ok(()));
            }
            if field(&line).is_none_or(|(name, _)| NOT_IN_TRAILERS.contains(&name.as_str())) {
                return Some(Err(format!("the trailer {line:?}")));
            }
        }
    }
}

/// Name, in small letters, and value of a line that nobody can read differently.
fn field(line: &str) -> Option<(String, String)> {
    let is_clean = !line.starts_with([' ', '\t']) && !line.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    let (name, value) = line.split_once(':').filter(|(name, _)| is_clean && !name.is_empty() && !name.contains([' ', '\t']))?;
    Some((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}
