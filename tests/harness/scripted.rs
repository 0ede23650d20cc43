//! A backend that does to each connection what a test says, byte by byte, and keeps what it was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};

/// What becomes of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// 200.
    Answer,
    /// It is read to its end, and the connection closed.
    Close,
    /// It is read to its end, these bytes are sent, and the connection closed.
    Say(&'static str),
}

/// A running one. It answers health checks, and ends with the test's process.
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    streams: Arc<Mutex<Vec<Weak<TcpStream>>>>,
}

impl Scripted {
    /// Does with the query of this number, counted from 0, what `script` says.
    pub fn start(script: fn(usize) -> Act) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (kept, open) = (seen.clone(), streams.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = kept.clone();
                let stream = Arc::new(stream);
                open.lock().unwrap().push(Arc::downgrade(&stream));
                std::thread::spawn(move || serve(&stream, &seen, script));
            }
        });
        Scripted { address, seen, streams }
    }

    /// Closes every connection.
    pub fn hang_up(&self) {
        for stream in self.streams.lock().unwrap().drain(..).filter_map(|stream| stream.upgrade()) {
            // One that is closed already stays so.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// As an endpoint in a config.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The queries that it was sent, heads and bodies.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: &TcpStream, seen: &Mutex<Vec<String>>, script: fn(usize) -> Act) {
    let _ = stream.set_nodelay(true);
    while let Some(query) = read_query(&mut stream) {
        if query.starts_with("GET /v2/health/ready") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(query);
            seen.len() - 1
        };
        match script(number) {
            Act::Answer => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nscripted");
            }
            Act::Close => return,
            Act::Say(text) => {
                let _ = stream.write_all(text.as_bytes());
                return;
            }
        }
    }
}

/// Head and body, by its length or to the last chunk; `None` when the other side closes.
fn read_query(stream: &mut &TcpStream) -> Option<String> {
    let mut query = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        query.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&query);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let is_whole = match length {
            Some(length) => body.len() >= length,
            None => !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"),
        };
        if is_whole {
            return Some(text.into_owned());
        }
    }
}
