//! A small HTTP/1.1 server: it answers, hangs up, is slow, or never answers, as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request.
pub(crate) struct Request {
    /// `POST /v2/repository/index`.
    pub(crate) line: String,
    pub(crate) body: String,
}

/// What is done about it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status(u16, String),
    /// Bytes as they are.
    Raw(Vec<u8>),
    HangUp,
    Never,
    Late(Duration, Box<Reply>),
}

pub(crate) fn ok(body: impl ToString) -> Reply {
    Reply::Status(200, body.to_string())
}

/// An error of the protocol.
pub(crate) fn no(status: u16, error: &str) -> Reply {
    Reply::Status(status, serde_json::json!({ "error": error }).to_string())
}

/// What a server does by itself.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Reply;
}

/// One thing that goes wrong: requests whose line contains `line`, but not the first `after`, and only so many.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) line: &'static str,
    pub(crate) after: usize,
    pub(crate) times: usize,
    pub(crate) reply: Reply,
}

/// Every request that there is from now on.
pub(crate) fn always(line: &'static str, reply: Reply) -> Wrong {
    Wrong { line, after: 0, times: usize::MAX, reply }
}

/// A running one.
pub(crate) struct Running<T> {
    pub(crate) url: String,
    pub(crate) fake: Arc<T>,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    wrong: Mutex<Vec<Wrong>>,
    lines: Mutex<Vec<String>>,
    seen: watch::Sender<usize>,
}

impl<T: Answers> Running<T> {
    pub(crate) async fn start(fake: T) -> Running<T> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (fake, inner) =
            (Arc::new(fake), Arc::new(Inner { wrong: Mutex::default(), lines: Mutex::default(), seen: watch::Sender::new(0) }));
        let (answers, shared) = (Arc::clone(&fake), Arc::clone(&inner));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&answers), Arc::clone(&shared)));
            }
        });
        Running { url, fake, inner, task }
    }

    pub(crate) fn goes_wrong(&self, wrong: Wrong) {
        self.inner.wrong.lock().unwrap().push(wrong);
    }

    pub(crate) fn is_well(&self) {
        self.inner.wrong.lock().unwrap().clear();
    }

    /// The lines of all requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.inner.lines.lock().unwrap().clone()
    }

    /// Until so many requests were answered in all.
    pub(crate) async fn saw(&self, count: usize) {
        self.inner.seen.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk<T: Answers>(mut stream: TcpStream, fake: Arc<T>, inner: Arc<Inner>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        inner.lines.lock().unwrap().push(request.line.clone());
        let mut reply = inner.wrong(&request.line).unwrap_or_else(|| fake.answer(&request));
        while let Reply::Late(by, then) = reply {
            tokio::time::sleep(by).await;
            reply = *then;
        }
        inner.seen.send_modify(|seen| *seen += 1);
        let bytes = match reply {
            Reply::Status(status, body) => {
                format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    .into_bytes()
            }
            Reply::Raw(bytes) => bytes,
            Reply::Never => std::future::pending().await,
            Reply::HangUp | Reply::Late(..) => return,
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

impl Inner {
    fn wrong(&self, line: &str) -> Option<Reply> {
        for wrong in self.wrong.lock().unwrap().iter_mut().filter(|wrong| line.contains(wrong.line)) {
            if wrong.after > 0 {
                wrong.after -= 1;
            } else if wrong.times > 0 {
                wrong.times -= 1;
                return Some(wrong.reply.clone());
            }
        }
        None
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|rest| rest.trim().parse().unwrap()));
            let whole = end + 4 + length.unwrap_or(0_usize);
            if buffer.len() >= whole {
                let body = String::from_utf8(buffer[end + 4..whole].to_vec()).unwrap();
                buffer.drain(..whole);
                let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
                return Some(Request { line, body });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
