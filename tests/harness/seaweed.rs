//! A real S3 server for one test: SeaweedFS, on its own ports and folder.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, http};

/// A server that does not answer within this is broken.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// Beside each port it has one for gRPC, so much above.
const GRPC: u16 = 10_000;

/// An S3 server with one bucket, `models`. Dropping it kills the server and removes its folder.
pub struct Seaweed {
    child: Option<Child>,
    ports: [u16; 4],
    folder: tempfile::TempDir,
}

impl Seaweed {
    /// Starts an empty server and waits until its bucket is there.
    pub fn start() -> Seaweed {
        let folder = tempfile::tempdir().unwrap();
        let identity = serde_json::json!({ "identities": [{
            "name": "tests", "credentials": [{ "accessKey": "tests", "secretKey": "secret-of-tests" }], "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }] });
        fs::write(folder.path().join("s3.json"), identity.to_string()).unwrap();
        let mut server = Seaweed { child: None, ports: [0; 4], folder };
        // Somebody else may take a port before it does.
        for _ in 0..5 {
            server.ports = ports();
            if server.spawn() {
                return server;
            }
        }
        let log = fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        panic!("SeaweedFS ends as soon as it is started: {log}");
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// What a program needs in its environment to get in.
    pub fn environment() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", "tests"), ("AWS_SECRET_ACCESS_KEY", "secret-of-tests")]
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP: connections stay open, and nothing answers.
    pub fn pause(&self) {
        let child = self.child.as_ref().unwrap();
        assert!(Command::new("kill").args(["-STOP", &child.id().to_string()]).status().unwrap().success());
    }

    /// Starts it, with what it has on disk.
    pub fn run(&mut self) {
        assert!(self.spawn(), "SeaweedFS ended");
    }

    /// Whether it stayed.
    fn spawn(&mut self) -> bool {
        let [s3, master, volume, filer] = self.ports;
        let data = self.folder.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let log = File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(weed());
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.volumeSizeLimitMB=256", "-volume.max=20"]);
        // What else it would listen for has one port for the whole machine; and tests report to nobody.
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]);
        let socket = |name: &str| format!("-{name}.localSocket={}/{name}.sock", self.folder.path().display());
        command.args([socket("filer"), socket("s3")]);
        command.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", self.folder.path().join("s3.json").display()));
        command.args([
            format!("-s3.port={s3}"),
            format!("-master.port={master}"),
            format!("-volume.port={volume}"),
            format!("-filer.port={filer}"),
        ]);
        command
            .current_dir(self.folder.path())
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().expect("weed: scripts/install_test_tools.sh seaweed target/tools/seaweed"));
        // The bucket is a folder of its filer.
        let filer = std::net::SocketAddr::from(([127, 0, 0, 1], filer));
        let s3 = std::net::SocketAddr::from(([127, 0, 0, 1], s3));
        eventually("SeaweedFS has its bucket, and speaks S3", STARTS_WITHIN, || {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return Some(false);
            }
            let (status, _, _) = http::send(filer, "POST", "/buckets/models/", &[], b"").ok()?;
            // 409: it is there already.
            ((status < 300 || status == 409) && http::get(s3, "/models").is_ok()).then_some(true)
        })
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Free ports, with those for gRPC above them, below what the system hands out by itself.
fn ports() -> [u16; 4] {
    let mut held = Vec::new();
    while held.len() < 8 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = 10_240 + port % 12_000;
        if let (Ok(own), Ok(grpc)) = (TcpListener::bind(("127.0.0.1", port)), TcpListener::bind(("127.0.0.1", port + GRPC))) {
            held.extend([own, grpc]);
        }
    }
    std::array::from_fn(|index| held[index * 2].local_addr().unwrap().port())
}

fn weed() -> PathBuf {
    let target = crate::binary().parent().and_then(Path::parent).unwrap().to_owned();
    let own = target.join("tools/seaweed/bin/weed");
    if own.exists() { own } else { PathBuf::from("weed") }
}
