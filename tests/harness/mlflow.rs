//! A real MLflow server for one test; and one that only speaks its API, and says what a test wants.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{eventually, http};

/// It makes its database first, and on a busy machine that takes a while.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A server with an empty registry, which serves its artifacts. Dropping it ends it and removes its folder.
pub struct Mlflow {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Mlflow {
    /// Starts one.
    pub fn start() -> Mlflow {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(tool("mlflow"));
        command.args(["server", "--host", "127.0.0.1", "--workers", "1", "--port", &port.to_string()]);
        command.arg("--backend-store-uri").arg(format!("sqlite:///{}/db.sqlite", folder.path().display()));
        command.arg("--artifacts-destination").arg(folder.path().join("artifacts"));
        // What it keeps secrets with; and tests report to nobody, and are on no public address.
        command.env("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", BASE64.encode([7_u8; 32]).replace('+', "-").replace('/', "_"));
        command.envs([("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true"), ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")]);
        command.envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true"), ("MLFLOW_WEBHOOK_CACHE_TTL", "1")]);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // A group of its own: it starts workers.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().expect("mlflow: scripts/install_test_tools.sh mlflow target/tools/mlflow");
        let mut server = Mlflow { child, port, folder };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("MLflow answers", STARTS_WITHIN, || {
            assert!(server.child.try_wait().unwrap().is_none(), "MLflow ended: {}", server.log());
            http::get(address, "/health").is_ok_and(|(status, _)| status == 200).then_some(())
        });
        server
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs `tests/mlflow/make.py` against it.
    pub fn make(&self, arguments: &[&str]) -> Value {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mlflow/make.py");
        let mut command = Command::new(tool("python"));
        command.arg(script).args(arguments).env("MLFLOW_TRACKING_URI", self.url()).env("MLFLOW_DISABLE_TELEMETRY", "true");
        let output = command.current_dir(self.folder.path()).output().unwrap();
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{said}{error}\n{}", self.log()));
        serde_json::from_str(line).unwrap()
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        // Its workers, too.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

fn tool(name: &str) -> PathBuf {
    let target = crate::binary().parent().and_then(std::path::Path::parent).unwrap().to_owned();
    let own = target.join("tools/mlflow/bin").join(name);
    if own.exists() { own } else { PathBuf::from(if name == "python" { "python3" } else { name }) }
}

/// What [`Pretender`] answers to a path.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status line, without HTTP's version.
    pub status: String,
    /// Further lines of its head.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
    /// As much of it as is sent; then nothing more is, until whoever asked hangs up.
    pub stalls_after: Option<usize>,
}

impl Answer {
    /// 200 with a body.
    pub fn of(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: "200 OK".to_owned(), head: String::new(), body: body.into(), stalls_after: None }
    }

    /// As MLflow says that it does not do something.
    pub fn error(status: &str, message: &str) -> Answer {
        Answer { status: status.to_owned(), ..Answer::of(json!({ "error_code": "X", "message": message }).to_string()) }
    }
}

/// A server that speaks MLflow's API. It ends with the test's process.
pub struct Pretender {
    /// Where it listens.
    pub address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pretender {
    /// One version of the model `search`, with the alias `champion`, and this for its ONNX model.
    pub fn start(model: &[u8]) -> Pretender {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pretender = Pretender { address, answers: Arc::default(), asked: Arc::default() };
        let version = json!({ "model_version": { "name": "search", "version": "3", "status": "READY", "run_id": "r1" } });
        let run = json!({ "run": { "info": {}, "data": { "metrics": [{ "key": "mrr", "value": 0.9 }] } } });
        let place = json!({ "artifact_uri": "mlflow-artifacts:/0/r1/artifacts/model" });
        for (path, body) in [
            ("/api/2.0/mlflow/registered-models/alias", version.to_string()),
            ("/api/2.0/mlflow/model-versions/get", version.to_string()),
            ("/api/2.0/mlflow/model-versions/get-download-uri", place.to_string()),
            ("/api/2.0/mlflow/runs/get", run.to_string()),
            ("MLmodel", "flavors:\n  onnx:\n    data: model.onnx\n".to_owned()),
        ] {
            pretender.answers(path, Answer::of(body));
        }
        pretender.answers("model.onnx", Answer::of(model));
        let (answers, asked) = (pretender.answers.clone(), pretender.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, asked) = (answers.clone(), asked.clone());
                std::thread::spawn(move || serve(stream, &answers, &asked));
            }
        });
        pretender
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers this, to an API's path or for a file of the model.
    pub fn answers(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// The heads of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answers: &Mutex<BTreeMap<String, Answer>>, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    asked.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    // A file is asked for by its path in the query.
    let key = match target.split_once("path=") {
        Some((_, file)) => file.rsplit("%2F").next().unwrap_or_default(),
        None => path,
    };
    let answer = answers.lock().unwrap().get(key).cloned();
    let answer = answer.unwrap_or_else(|| Answer::error("404 NOT FOUND", "there is no such thing"));
    let lines = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n{}\r\n", answer.status, answer.body.len(), answer.head);
    let now = answer.stalls_after.unwrap_or(answer.body.len());
    if stream.write_all(lines.as_bytes()).is_err() || stream.write_all(&answer.body[..now]).is_err() || now == answer.body.len() {
        return;
    }
    // Until whoever asked hangs up.
    let _ = stream.read(&mut byte);
}

/// The headers of a delivery, as MLflow signs it.
pub fn signed(secret: &str, id: &str, unix_seconds: u64, body: &str) -> [(String, String); 3] {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(format!("{id}.{unix_seconds}.{body}"));
    [
        ("x-mlflow-delivery-id".to_owned(), id.to_owned()),
        ("x-mlflow-timestamp".to_owned(), unix_seconds.to_string()),
        ("x-mlflow-signature".to_owned(), format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))),
    ]
}
