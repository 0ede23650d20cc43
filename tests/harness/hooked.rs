//! A model server of somebody's own, as hooks ask it: it keeps what it loaded, and answers with one of its versions.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// With which of its versions it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// With its newest one.
    Newest,
    /// With the one that it was last told to load.
    LastLoaded,
}

/// A running one; it has version 1, and ends with the test's process.
pub struct Hooked {
    /// Where it listens.
    pub address: SocketAddr,
    held: Arc<Mutex<Held>>,
}

struct Held {
    serves: Serves,
    versions: BTreeSet<u64>,
    last: u64,
    asked: Vec<String>,
}

impl Hooked {
    /// Starts one on a free port: `POST /load/N`, `GET /ready/N`, `POST /unload/N`. Whatever else is asked is answered with the version's number.
    pub fn start(serves: Serves) -> Hooked {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(Mutex::new(Held { serves, versions: BTreeSet::from([1]), last: 1, asked: Vec::new() }));
        let shared = Arc::clone(&held);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let held = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &held));
            }
        });
        Hooked { address, held }
    }

    /// As an endpoint in a config.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was told, like `load/2`, in order.
    pub fn told(&self) -> Vec<String> {
        self.held.lock().unwrap().asked.clone()
    }
}

impl Held {
    /// Status and body.
    fn answer(&mut self, method: &str, path: &str) -> (&'static str, String) {
        let (what, number) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let number: u64 = number.parse().unwrap_or(0);
        match (method, what) {
            ("POST", "load") => {
                self.versions.insert(number);
                self.last = number;
                self.asked.push(format!("load/{number}"));
                ("200 OK", String::new())
            }
            ("POST", "unload") => {
                self.versions.remove(&number);
                self.asked.push(format!("unload/{number}"));
                ("200 OK", String::new())
            }
            ("GET", "ready") if !self.versions.contains(&number) => ("404 Not Found", String::new()),
            ("GET", "ready" | "v2") => ("200 OK", String::new()),
            _ => match self.serves {
                Serves::Newest => ("200 OK", self.versions.last().map_or_else(|| "none".to_owned(), u64::to_string)),
                Serves::LastLoaded => ("200 OK", self.last.to_string()),
            },
        }
    }
}

/// One request after the other, each with a body of the length that it says.
fn serve(mut stream: TcpStream, held: &Mutex<Held>) {
    let _ = stream.set_nodelay(true);
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if stream.read_exact(&mut vec![0; length.unwrap_or(0)]).is_err() {
            return;
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_ascii_uppercase(), words.next().unwrap_or_default());
        let (status, body) = held.lock().unwrap().answer(&method, path);
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
