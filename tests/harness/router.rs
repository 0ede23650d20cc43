//! A real router process: the real binary, on free ports, with its own data folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Backend, eventually, http};

/// The binary under test: beside the test's own, or where `SWITCHBACK_BIN` says.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SWITCHBACK_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let path = folder.join("switchback");
    assert!(path.exists(), "{} is not there: run `cargo build --release` first", path.display());
    path
}

/// A Python with the libraries that models are made with, as `scripts/install_test_tools.sh models` installs them.
pub fn python() -> PathBuf {
    let target = binary().parent().and_then(Path::parent).unwrap().to_owned();
    let own = target.join("tools/models/bin/python");
    if own.exists() { own } else { PathBuf::from("python3") }
}

/// What a test's router is told: one route `search` with these pools, everything else as in the defaults.
#[derive(Default)]
pub struct Setup {
    /// Name, endpoints, further keys.
    pools: Vec<(String, Vec<String>, String)>,
    bare_pools: String,
    redis: Option<String>,
    data_dir: Option<PathBuf>,
    /// Lines for `[state]`, `[policies]`, ... and for the route, as TOML.
    top: String,
    listen: String,
    state: String,
    route: String,
    workers: usize,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    has_deaf_log: bool,
    hosts: Option<PathBuf>,
    is_of_a_fleet: bool,
}

impl Setup {
    /// A pool with these backends.
    pub fn pool(mut self, name: &str, backends: &[&Backend]) -> Setup {
        self.pools.push((name.to_owned(), backends.iter().map(|backend| backend.url()).collect(), String::new()));
        self
    }

    /// The same with these keys alone, without the quick health checks that the others have.
    pub fn bare_pool_at(mut self, name: &str, address: SocketAddr, toml: &str) -> Setup {
        self.bare_pools.push_str(&format!("[route.pools.{name}]\nendpoints = [\"http://{address}\"]\n{toml}\n"));
        self
    }

    /// More keys of the pool that was named last, as TOML.
    pub fn pool_keys(mut self, toml: &str) -> Setup {
        self.pools.last_mut().unwrap().2.push_str(toml);
        self
    }

    /// More keys of `[listen]`.
    pub fn listen(mut self, toml: &str) -> Setup {
        self.listen.push_str(toml);
        self.listen.push('\n');
        self
    }

    /// A pool with this one endpoint, for a test that plays the backend itself.
    pub fn pool_at(mut self, name: &str, address: SocketAddr) -> Setup {
        self.pools.push((name.to_owned(), vec![format!("http://{address}")], String::new()));
        self
    }

    /// A pool with these endpoints, as a config names them.
    pub fn pool_of(mut self, name: &str, endpoints: &[String]) -> Setup {
        self.pools.push((name.to_owned(), endpoints.to_vec(), String::new()));
        self
    }

    /// The router sees this file as its `/etc/hosts`, also what is written to it later: it runs in a mount namespace of its own.
    pub fn hosts(mut self, file: &Path) -> Setup {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Flags in this Redis instead of the embedded store.
    pub fn redis(mut self, url: &str) -> Setup {
        self.redis = Some(url.to_owned());
        self
    }

    /// A data folder that outlives the router.
    pub fn data_dir(mut self, path: &Path) -> Setup {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// Its operator's token is that of every router of this kind: one who may change this one may change them all.
    pub fn of_a_fleet(mut self) -> Setup {
        self.is_of_a_fleet = true;
        self
    }

    /// More sections, as TOML.
    pub fn top(mut self, toml: &str) -> Setup {
        self.top.push_str(toml);
        self.top.push('\n');
        self
    }

    /// More keys of `[state]`.
    pub fn state(mut self, toml: &str) -> Setup {
        self.state.push_str(toml);
        self.state.push('\n');
        self
    }

    /// More keys of the route.
    pub fn route(mut self, toml: &str) -> Setup {
        self.route.push_str(toml);
        self.route.push('\n');
        self
    }

    /// Worker threads; one unless said otherwise.
    pub fn workers(mut self, workers: usize) -> Setup {
        self.workers = workers;
        self
    }

    /// An environment variable of the router's process.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The program at this path instead of [`binary`].
    pub fn program(mut self, path: &Path) -> Setup {
        self.program = Some(path.to_owned());
        self
    }

    /// Its log goes into a pipe that nobody reads.
    pub fn deaf_log(mut self) -> Setup {
        self.has_deaf_log = true;
        self
    }

    pub(crate) fn toml(&self, data_dir: &Path) -> String {
        let redis = self.redis.as_ref().map_or_else(String::new, |url| format!("url = {url:?}\n"));
        let pools: String = self
            .pools
            .iter()
            .map(|(name, endpoints, keys)| {
                format!("[route.pools.{name}]\nendpoints = {endpoints:?}\nhealth = {{ interval = \"100ms\" }}\n{keys}\n")
            })
            .collect();
        format!(
            "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = {}\n{}[state]\n{redis}data_dir = {:?}\n{}\n{}\n\
             [[route]]\nname = \"search\"\nmatch = {{ path_prefix = \"/\" }}\nunit = [\"header:x-user-id\", \"cookie:sid\", \"client-address\"]\n{}{}\n{pools}{}",
            self.workers.max(1),
            self.listen,
            data_dir.display().to_string(),
            self.state,
            self.top,
            if self.route.contains("expose") { "" } else { "expose = [\"pool\"]\n" },
            self.route,
            self.bare_pools,
        )
    }

    /// Starts the router and waits until it is ready.
    pub fn start(self) -> Router {
        let router = self.start_unready();
        eventually("the router is ready", Duration::from_secs(20), || {
            let (status, _) = http::get(router.admin, "/readyz").ok()?;
            (status == 200).then_some(())
        });
        router
    }

    /// Starts a router that ends by itself; answers its exit code and what it said.
    pub fn fails(self) -> (i32, String) {
        let folder = tempfile::tempdir().unwrap();
        let output = self.command(&folder).0.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// `switchback serve` with the config in this folder, and the data folder that it names.
    fn command(&self, folder: &TempDir) -> (Command, PathBuf) {
        let data_dir = self.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        let config = folder.path().join("switchback.toml");
        std::fs::write(&config, self.toml(&data_dir)).unwrap();
        let program = self.program.clone().unwrap_or_else(binary);
        let mut command = self.hosts.as_deref().map_or_else(|| Command::new(&program), |hosts| with_hosts(hosts, &program));
        command.args(["serve", "--config"]).arg(&config).env("RUST_LOG", "info");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        (command, data_dir)
    }

    /// Starts the router and waits only until it listens.
    pub fn start_unready(self) -> Router {
        let folder = tempfile::tempdir().unwrap();
        let (mut command, data_dir) = self.command(&folder);
        if self.is_of_a_fleet {
            std::fs::create_dir_all(&data_dir).unwrap();
            std::fs::write(data_dir.join("admin.token"), "0123456789abcdef".repeat(4)).unwrap();
        }
        let log = match self.has_deaf_log {
            true => Stdio::piped(),
            false => std::fs::File::create(folder.path().join("router.log")).unwrap().into(),
        };
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut router = Router { traffic: nowhere, traffic_tls: None, admin: nowhere, data_dir, folder, child, successor: None };
        let address = |name: &str| {
            line.split_once(name).and_then(|(_, rest)| rest.trim_start().split([',', '\n']).next()?.parse::<SocketAddr>().ok())
        };
        router.traffic = address("traffic").unwrap_or_else(|| panic!("no traffic address in {line:?}; log:\n{}", router.log()));
        router.traffic_tls = address("tls");
        router.admin = address("admin").unwrap_or_else(|| panic!("no admin address in {line:?}; log:\n{}", router.log()));
        router
    }
}

/// The binary, with this file in the place of `/etc/hosts`. Each step becomes the next, so that the process stays the same.
fn with_hosts(file: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(file).arg(program);
    command
}

/// A running router; killed when dropped.
pub struct Router {
    /// Where search traffic goes.
    pub traffic: SocketAddr,
    /// The same over TLS, where the config has that.
    pub traffic_tls: Option<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Its data folder.
    pub data_dir: PathBuf,
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
    /// The process that took over from `child`.
    pub(crate) successor: Option<u32>,
}

impl Router {
    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("router.log")).unwrap_or_default()
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("switchback.toml")
    }

    /// The transitions of its rollouts, oldest first, as the ledger has them.
    pub fn transitions(&self) -> Vec<String> {
        let (status, body) = self.admin("GET", "/api/v1/routes/search/history?limit=100", b"");
        assert_eq!(status, 200, "{body}");
        let entries = body["entries"].as_array().unwrap().iter().rev();
        let changes = entries.flat_map(|entry| entry["what"].as_array().unwrap());
        changes.filter(|change| change["field"] == "rollout").map(|change| change["new"].as_str().unwrap().to_owned()).collect()
    }

    /// A file with a token that may do everything.
    pub fn token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    /// The watched folder for plugins.
    pub fn policies_dir(&self) -> PathBuf {
        self.data_dir.join("policies")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.id())
    }

    /// `GET /api/v1/routes/search`, parsed.
    pub fn route(&self) -> serde_json::Value {
        let (status, body) = http::get(self.admin, "/api/v1/routes/search").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// One metric's samples, summed over those whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, body) = http::get(self.admin, "/metrics").unwrap();
        let samples = body.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        samples
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Sets flags through the CLI, as an operator does.
    pub fn set_flags(&self, assignments: &[&str]) {
        let output = self.cli().args(["flag", "set", "search"]).args(assignments).output().unwrap();
        assert!(
            output.status.success(),
            "flag set {assignments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The `authorization` of this router's operator.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", std::fs::read_to_string(self.data_dir.join("admin.token")).unwrap().trim())
    }

    /// One request to the admin API as its operator: status and JSON.
    pub fn admin(&self, method: &str, path: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let bearer = self.bearer();
        let (status, body, _) = http::send(self.admin, method, path, &[("authorization", &bearer)], body).unwrap();
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body:?}")))
    }

    /// The CLI, pointed at this router.
    pub fn cli(&self) -> Command {
        let mut command = Command::new(binary());
        command.env("SWITCHBACK_ADMIN", format!("http://{}", self.admin)).env("SWITCHBACK_TOKEN_FILE", self.data_dir.join("admin.token"));
        command
    }

    /// Runs the CLI; answers its exit code, standard output and standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.cli().args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(pid) = self.successor.take() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to drain, and says how it ended and how long that took.
    pub fn terminate(&mut self) -> (std::process::ExitStatus, Duration) {
        let started = std::time::Instant::now();
        assert!(Command::new("kill").arg(self.pid().to_string()).status().unwrap().success());
        (self.child.wait().unwrap(), started.elapsed())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the router's last lines ---");
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
