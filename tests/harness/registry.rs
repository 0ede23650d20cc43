//! A registry for one test, in a folder or in a bucket, and the real program that uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::binary;
use crate::relay::Relay;
use crate::seaweed::Seaweed;

/// Where it is.
pub enum Place {
    /// A folder.
    Folder,
    /// A bucket of a real S3 server, reached over a relay.
    Bucket(Seaweed, Relay),
}

/// A registry, and a folder for files.
pub struct Registry {
    /// Where it is.
    pub place: Place,
    folder: tempfile::TempDir,
}

impl Registry {
    /// One of each.
    pub fn both() -> [Registry; 2] {
        [Registry::in_folder(), Registry::in_bucket()]
    }

    /// An empty one in a folder.
    pub fn in_folder() -> Registry {
        Registry::at(Place::Folder)
    }

    /// An empty one in a bucket.
    pub fn in_bucket() -> Registry {
        let server = Seaweed::start();
        let relay = Relay::to(server.port());
        Registry::at(Place::Bucket(server, relay))
    }

    fn at(place: Place) -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let registry = match &place {
            Place::Folder => format!("[registry]\nurl = \"file://{}/registry\"\n", folder.path().display()),
            Place::Bucket(_, relay) => {
                let endpoint = format!("http://{}", relay.address);
                format!(
                    "[registry]\nurl = \"s3://models/some/prefix\"\nretry_for = \"2s\"\n[registry.s3]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n"
                )
            }
        };
        let route = "[[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let listen = "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
        fs::write(folder.path().join("switchback.toml"), format!("{listen}{registry}{route}")).unwrap();
        Registry { place, folder }
    }

    /// The relay to the bucket.
    pub fn relay(&self) -> &Relay {
        let Place::Bucket(_, relay) = &self.place else { panic!("it is no bucket") };
        relay
    }

    /// A file of the test's.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Makes a pair of keys of Ed25519, `NAME.pem` and `NAME.pub`: the private and the public one.
    pub fn keys(&self, name: &str) -> (PathBuf, PathBuf) {
        let (private, public) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.pub")));
        let openssl = |command: &mut Command| assert!(command.output().unwrap().status.success(), "{command:?}");
        openssl(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private));
        openssl(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
        (private, public)
    }

    /// From now on the config names this public key.
    pub fn trust(&self, public: &Path) {
        let config = self.path("switchback.toml");
        let written = fs::read_to_string(&config).unwrap();
        fs::write(&config, written.replace("[registry]\n", &format!("[registry]\ntrusted_keys = [{public:?}]\n"))).unwrap();
    }

    /// Where a file of the test's is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `switchback ARGUMENTS`, with this registry.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("SWITCHBACK_CONFIG", self.path("switchback.toml")).env("XDG_STATE_HOME", self.path("state"));
        command.env("USER", "ann").envs(Seaweed::environment()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts `switchback model ARGUMENTS`.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(&[&["model"], arguments].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `switchback model ARGUMENTS`: exit code, and what it says on both outputs.
    pub fn model(&self, arguments: &[&str]) -> (i32, String, String) {
        said(&self.command(&[&["model"], arguments].concat()).output().unwrap())
    }

    /// The same, done, with its JSON.
    pub fn done(&self, arguments: &[&str]) -> Value {
        let (code, said, error) = self.model(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {said}{error}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }
}

/// Exit code, and what was said on both outputs.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
