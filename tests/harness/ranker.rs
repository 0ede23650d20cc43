//! `switchback ranker` as a real process, and a client for it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::binary;

/// A file under router/demo.
pub fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../router/demo").join(path)
}

/// router/demo/models/report.json
pub fn report() -> Value {
    serde_json::from_slice(&std::fs::read(demo("models/report.json")).unwrap()).unwrap()
}

/// The first test queries.
pub fn queries(count: usize) -> Vec<Value> {
    let packed = std::fs::File::open(demo("queries.jsonl.gz")).unwrap();
    let lines = BufReader::new(flate2::read::GzDecoder::new(packed)).lines().take(count);
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// A field of a protocol buffer at the start of these bytes: its number, the length of its head, and where it ends.
fn field(bytes: &[u8]) -> (u64, usize, usize) {
    let varint = |at: usize| {
        let length = bytes[at..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let value = bytes[at..at + length].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
        (value, at + length)
    };
    let (tag, after_tag) = varint(0);
    let (value, after) = varint(after_tag);
    match tag & 7 {
        0 => (tag >> 3, after_tag, after),
        2 => (tag >> 3, after, after + usize::try_from(value).unwrap()),
        kind => panic!("a field of the wire type {kind}"),
    }
}

/// A model with one more feature, that no tree asks for, and without names for them.
pub fn with_one_more_feature(model: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), model);
    while !rest.is_empty() {
        let (number, head, end) = field(rest);
        let mut bytes = rest[..end].to_vec();
        if number == 7 {
            let mut at = head;
            while at < bytes.len() {
                let (number, _, length) = field(&bytes[at..]);
                if number == 11 {
                    let dimension = bytes[at..at + length].windows(2).rposition(|pair| pair == [8, 40]).unwrap();
                    bytes[at + dimension + 1] = 41;
                }
                at += length;
            }
        }
        // Field 14 is the metadata.
        if number != 14 {
            out.extend(bytes);
        }
        rest = &rest[end..];
    }
    out
}

/// A running ranker; killed when dropped.
pub struct Ranker {
    child: Child,
    /// `host:port`
    pub address: String,
    /// The JSON line it printed when it began to listen.
    pub announced: Value,
}

impl Ranker {
    /// Starts it on a free port. Panics with what it said when it does not start: a missing ONNX Runtime is no reason to skip.
    pub fn start(arguments: &[&str]) -> Ranker {
        Ranker::start_as(Command::new(binary()), arguments)
    }

    /// As [`Ranker::start`], with an environment of the caller's.
    pub fn start_as(command: Command, arguments: &[&str]) -> Ranker {
        Ranker::start_at(command, "127.0.0.1:0", arguments)
    }

    /// Kills it, and starts it at the same address with other arguments.
    pub fn restart(&mut self, arguments: &[&str]) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        *self = Ranker::start_at(Command::new(binary()), &self.address, arguments);
    }

    fn start_at(mut command: Command, address: &str, arguments: &[&str]) -> Ranker {
        command.args(["ranker", "--listen", address, "--json"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the ranker did not start ({}): {said}", child.wait().unwrap());
        }
        let announced: Value = serde_json::from_str(&line).unwrap();
        Ranker { child, address: announced["listening"].as_str().unwrap().to_owned(), announced }
    }

    /// Runs it where it is expected to end by itself.
    pub fn fails(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(binary());
        command.args(["ranker", "--listen", "127.0.0.1:0"]).args(arguments).envs(environment.iter().copied());
        command.output().unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, as an init system does.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit status, once it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the ranker did not end");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it said on standard error; it has to have ended.
    pub fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        Client::connect(&self.address).await.unwrap().send("GET", path, Bytes::new()).await.unwrap()
    }

    /// POST of JSON text.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        Client::connect(&self.address).await.unwrap().send("POST", path, body.into()).await.unwrap()
    }
}

impl Drop for Ranker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Of the answer.
    pub status: StatusCode,
    /// `x-model-version`
    pub version: Option<String>,
    /// JSON, or a string with what came instead.
    pub body: Value,
}

impl Answer {
    /// The text of a refusal.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}

/// One kept-alive connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub async fn connect(address: &str) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender })
    }

    /// Sends, and reads the whole answer.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let request = Request::builder().method(method).uri(path).header("host", "ranker").body(Full::new(body))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let version = response.headers().get("x-model-version").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok(Answer { status, version, body })
    }
}
