//! Several redis-servers as one store: a primary with its replica and three sentinels, and a cluster. All of them real.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::eventually;
use crate::redis::RedisServer;
use crate::tls::Issued;

/// Far longer than any of them takes.
const FORMS_WITHIN: Duration = Duration::from_secs(30);
/// The name that the sentinels watch.
pub const PRIMARY: &str = "mymaster";

/// Runs redis-cli against a port.
pub fn cli(port: u16, arguments: &[&str]) -> Result<String> {
    let output = Command::new("redis-cli").args(["-e", "-p", &port.to_string()]).args(arguments).output().context("redis-cli")?;
    ensure!(output.status.success(), "redis-cli -p {port} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// A person's `HSET KEY FIELD VALUE` on this port, over a connection that is there already; answers when it was sent. `is_asking`: as
/// `redis-cli -c` does when it is sent here by ASK.
pub async fn hset(port: u16, key: &str, (field, value): (&str, &str), is_asking: bool) -> Result<Instant> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut commands = redis::pipe();
    if is_asking {
        commands.cmd("ASKING").ignore();
    }
    commands.cmd("HSET").arg(key).arg(field).arg(value).ignore();
    let sent = Instant::now();
    commands.exec_async(&mut connection).await?;
    Ok(sent)
}

/// A runtime on a thread of its own, so that stores work on while a test waits.
pub struct Background {
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    /// Starts it.
    #[must_use]
    pub fn start() -> Background {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        Background { handle, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Runs what starts tasks of its own, which go on.
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        act()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A redis-server in sentinel mode.
struct Sentinel {
    child: Child,
    port: u16,
    /// Listened on where there are certificates.
    tls_port: u16,
    _folder: tempfile::TempDir,
}

/// Keys of a redis-server's config, with their values.
type Keys = Vec<(&'static str, String)>;

/// TLS for clients and among the servers; clients must show a certificate.
fn over_tls(folder: &Path, ca: &Path, issued: &Issued) -> Keys {
    let (cert, key) = issued.write(folder, "node");
    let path = |path: &Path| path.display().to_string();
    let yes = || "yes".to_owned();
    let files = [("tls-cert-file", path(&cert)), ("tls-key-file", path(&key)), ("tls-ca-cert-file", path(ca))];
    files.into_iter().chain([("tls-replication", yes()), ("tls-auth-clients", yes())]).collect()
}

fn as_arguments(keys: &Keys) -> Vec<String> {
    keys.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]).collect()
}

impl Sentinel {
    fn start(primary: u16, extra: &str, certificates: &Keys) -> Result<Sentinel> {
        let (folder, port, tls_port) = (tempfile::tempdir()?, free_port()?, free_port()?);
        let config = folder.path().join("sentinel.conf");
        let mut tls: String = certificates.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        if !tls.is_empty() {
            tls.push_str(&format!("tls-port {tls_port}\n"));
        }
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {PRIMARY} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {PRIMARY} 1000\nsentinel failover-timeout {PRIMARY} 5000\n{tls}{extra}\n",
            folder.path().display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("redis-server");
        command.arg(&config).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Sentinel { child: command.spawn().context("redis-server --sentinel")?, port, tls_port, _folder: folder })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two servers, of which the first begins as the primary, and three sentinels.
pub struct Watched {
    /// The servers.
    pub servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
    /// The servers' TLS ports, where there are certificates.
    tls_ports: Vec<u16>,
}

impl Watched {
    /// Starts them and waits until the sentinels know each other and the replica. `extra` goes into the sentinels' config.
    pub async fn start(extra: &str) -> Result<Watched> {
        Watched::start_with(extra, Vec::new()).await
    }

    /// The same over TLS, among all of them too; clients must show a certificate.
    pub async fn start_tls(folder: &Path, ca: &Path, issued: &Issued) -> Result<Watched> {
        Watched::start_with("", over_tls(folder, ca, issued)).await
    }

    async fn start_with(extra: &str, certificates: Keys) -> Result<Watched> {
        let tls_ports = if certificates.is_empty() { Vec::new() } else { vec![free_port()?, free_port()?] };
        let server = async |number: usize, further: &[&str]| {
            let mut options = as_arguments(&certificates);
            options.extend(["--repl-diskless-sync-delay", "0"].iter().chain(further).map(|option| (*option).to_owned()));
            if let Some(port) = tls_ports.get(number) {
                options.extend(["--tls-port".to_owned(), port.to_string()]);
            }
            RedisServer::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        let primary = server(0, &[]).await?;
        let port = tls_ports.first().copied().unwrap_or_else(|| primary.port());
        let replica = server(1, &["--replicaof", "127.0.0.1", &port.to_string()]).await?;
        let sentinels = (0..3).map(|_| Sentinel::start(port, extra, &certificates)).collect::<Result<Vec<_>>>()?;
        let group = Watched { servers: [primary, replica], sentinels, tls_ports };
        eventually("the sentinels know each other and the replica", FORMS_WITHIN, || {
            let knows = |sentinel: &Sentinel| {
                let told = cli(sentinel.port, &["SENTINEL", "MASTER", PRIMARY]).unwrap_or_default();
                let lines: Vec<&str> = told.lines().collect();
                let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
                is("num-slaves", "1") && is("num-other-sentinels", "2")
            };
            group.sentinels.iter().all(knows).then_some(())
        });
        eventually("the replica follows", FORMS_WITHIN, || {
            let told = group.servers[1].cli(&["INFO", "replication"]).ok()?;
            told.contains("master_link_status:up").then_some(())
        });
        Ok(group)
    }

    /// `redis+sentinel://...`, with one sentinel: the others are learnt.
    pub fn url(&self) -> String {
        match self.tls_ports.is_empty() {
            true => format!("redis+sentinel://127.0.0.1:{}/{PRIMARY}", self.sentinels[0].port),
            false => format!("rediss+sentinel://127.0.0.1:{}/{PRIMARY}", self.sentinels[0].tls_port),
        }
    }

    /// The port of the primary, as a sentinel says; the one without TLS.
    pub fn primary(&self) -> u16 {
        let told = cli(self.sentinels[1].port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY]).unwrap();
        let told = told.lines().nth(1).unwrap().parse().unwrap();
        self.tls_ports.iter().position(|port| *port == told).map_or(told, |number| self.servers[number].port())
    }

    /// `SENTINEL FAILOVER`: as for a planned one.
    pub fn failover(&self) {
        cli(self.sentinels[0].port, &["SENTINEL", "FAILOVER", PRIMARY]).unwrap();
    }

    /// Ends the sentinel that the URL names.
    pub fn end_first_sentinel(&mut self) {
        let _ = self.sentinels[0].child.kill();
        let _ = self.sentinels[0].child.wait();
    }

    /// Redis-cli against every sentinel.
    pub fn tell_sentinels(&self, arguments: &[&str]) {
        for sentinel in &self.sentinels {
            cli(sentinel.port, arguments).unwrap();
        }
    }
}

/// A cluster of three primaries, and nodes that join later.
pub struct Cluster {
    /// The first three have the slots at the start, a third each.
    pub nodes: Vec<RedisServer>,
    /// TLS ports, where there are certificates.
    tls_ports: Vec<u16>,
    certificates: Vec<String>,
}

const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl Cluster {
    /// Starts three nodes and joins them.
    pub async fn start() -> Result<Cluster> {
        Cluster::start_with(Vec::new()).await
    }

    /// The same over TLS, among the nodes too; clients must show a certificate.
    pub async fn start_tls(folder: &Path, ca: &Path, issued: &Issued) -> Result<Cluster> {
        let mut options = as_arguments(&over_tls(folder, ca, issued));
        options.extend(["--tls-cluster", "yes"].map(str::to_owned));
        Cluster::start_with(options).await
    }

    async fn start_with(certificates: Vec<String>) -> Result<Cluster> {
        let mut cluster = Cluster { nodes: Vec::new(), tls_ports: Vec::new(), certificates };
        for (first, last) in SLOTS {
            let number = cluster.add_node().await?;
            let node = &cluster.nodes[number];
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last])?;
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for number in 1..SLOTS.len() {
            cluster.meet(number)?;
        }
        cluster.wait(SLOTS.len());
        Ok(cluster)
    }

    async fn add_node(&mut self) -> Result<usize> {
        let bus = free_port()?.to_string();
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1500"];
        options.extend(["--cluster-port", &bus, "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]);
        options.extend(["--cluster-require-full-coverage", "no"]);
        let tls_port = free_port()?;
        let tls = tls_port.to_string();
        if !self.certificates.is_empty() {
            options.extend(["--tls-port", &tls]);
            options.extend(self.certificates.iter().map(String::as_str));
            self.tls_ports.push(tls_port);
        }
        self.nodes.push(RedisServer::start_with(&options).await?);
        Ok(self.nodes.len() - 1)
    }

    fn meet(&self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        let bus = node.cli(&["CONFIG", "GET", "cluster-port"])?;
        let bus = bus.lines().nth(1).context("cluster-port")?.to_owned();
        let port = self.tls_ports.get(number).copied().unwrap_or_else(|| node.port()).to_string();
        self.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        Ok(())
    }

    /// Waits until each of these nodes knows as many and finds the cluster well.
    fn wait(&self, count: usize) {
        eventually("the cluster forms", FORMS_WITHIN, || {
            let is_well = |node: &RedisServer| {
                let told = node.cli(&["CLUSTER", "INFO"]).unwrap_or_default();
                told.contains("cluster_state:ok") && told.contains(&format!("cluster_known_nodes:{count}\r"))
            };
            self.nodes[..count].iter().all(is_well).then_some(())
        });
    }

    /// A new node without slots joins; answers its number.
    pub async fn join(&mut self) -> Result<usize> {
        let number = self.add_node().await?;
        self.meet(number)?;
        self.wait(number + 1);
        Ok(number)
    }

    /// A new node becomes the replica of another; answers its number.
    pub async fn join_as_replica(&mut self, of: usize) -> Result<usize> {
        let number = self.join().await?;
        let id = self.id(of);
        eventually("the new node knows whom to follow", FORMS_WITHIN, || self.nodes[number].cli(&["CLUSTER", "REPLICATE", &id]).ok());
        eventually("the replica follows", FORMS_WITHIN, || {
            let told = self.nodes[number].cli(&["INFO", "replication"]).ok()?;
            told.contains("master_link_status:up").then_some(())
        });
        Ok(number)
    }

    /// `redis+cluster://...`, with one node: the others are learnt.
    pub fn url(&self) -> String {
        match self.tls_ports.first() {
            Some(port) => format!("rediss+cluster://127.0.0.1:{port}"),
            None => format!("redis+cluster://127.0.0.1:{}", self.nodes[0].port()),
        }
    }

    /// Which node has this key's slot, as the last node says.
    pub fn owner(&self, key: &str) -> usize {
        let slot: u16 = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).unwrap().parse().unwrap();
        let has = |node: &RedisServer| {
            let told = node.cli(&["CLUSTER", "NODES"]).unwrap_or_default();
            let myself = told.lines().find(|line| line.contains("myself")).unwrap_or_default().to_owned();
            let mut ranges = myself.split_whitespace().skip(8).filter(|range| !range.starts_with('[')).map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse::<u16>().unwrap()..=last.parse::<u16>().unwrap()
            });
            ranges.any(|range| range.contains(&slot))
        };
        self.nodes.iter().position(has).unwrap()
    }

    /// Moves the slot of a key from one node to another as `redis-cli --cluster reshard` does, key by key.
    pub fn move_slot(&self, key: &str, from: usize, to: usize) {
        let slot = self.begin_move(key, from, to);
        self.move_keys(&slot, from, to);
        self.end_move(&slot, to);
    }

    /// Both nodes know that the slot is on its way.
    pub fn begin_move(&self, key: &str, from: usize, to: usize) -> String {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).unwrap();
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]).unwrap();
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]).unwrap();
        slot
    }

    /// The keys are at the new node.
    pub fn move_keys(&self, slot: &str, from: usize, to: usize) {
        loop {
            let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", slot, "10"]).unwrap();
            if keys.is_empty() {
                return;
            }
            self.migrate(&keys.lines().collect::<Vec<_>>(), from, to);
        }
    }

    /// These keys are at the new node, and others of their slot may not be.
    pub fn migrate(&self, keys: &[&str], from: usize, to: usize) {
        let port = self.tls_ports.get(to).copied().unwrap_or_else(|| self.nodes[to].port()).to_string();
        let command = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        self.nodes[from].cli(&[&command[..], keys].concat()).unwrap();
    }

    /// Every node knows the new owner.
    pub fn end_move(&self, slot: &str, to: usize) {
        let id = self.id(to);
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id]).unwrap();
        for node in self.nodes.iter().filter(|node| node.port() != self.nodes[to].port()) {
            // A replica follows its primary by itself.
            let _ = node.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        }
    }

    fn id(&self, number: usize) -> String {
        self.nodes[number].cli(&["CLUSTER", "MYID"]).unwrap()
    }
}
