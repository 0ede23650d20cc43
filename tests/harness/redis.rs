//! A real redis-server for one test: its own port and folder, and the ways in which a Redis goes away and comes back.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

/// A server that does not answer within this is broken.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A redis-server. Dropping it kills the server and removes its folder.
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl RedisServer {
    /// Starts an empty server on a free port and waits until it answers.
    pub async fn start() -> Result<RedisServer> {
        RedisServer::start_with(&[]).await
    }

    /// The same with further options, like `--requirepass secret`.
    pub async fn start_with(options: &[&str]) -> Result<RedisServer> {
        RedisServer::start_in(options, &[]).await
    }

    /// The same with variables in its environment.
    pub async fn start_in(options: &[&str], environment: &[(String, String)]) -> Result<RedisServer> {
        let folder = tempfile::tempdir()?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = RedisServer { child: None, port: 0, folder, options, environment: environment.to_vec() };
        // Another process may take a port between finding and using it.
        for _ in 0..5 {
            server.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            if server.run().await.is_ok() {
                return Ok(server);
            }
        }
        bail!("redis-server does not start: {}", server.log())
    }

    /// `redis://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs the real redis-cli and returns what it prints.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli").args(["-e", "-p", &self.port.to_string()]).args(arguments).output().context("redis-cli")?;
        ensure!(output.status.success(), "redis-cli {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A connection of the test's own, to write as a person would but without starting a process.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(STARTS_WITHIN));
        Ok(redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// `kill -9`. What was not saved is lost, and nothing is saved by itself.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts again with what it wrote down, where its options say so (`--appendonly yes`).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.run().await
    }

    /// Starts again with nothing in it.
    pub async fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        let dump = self.folder.path().join("dump.rdb");
        if dump.exists() {
            fs::remove_file(dump)?;
        }
        self.run().await
    }

    /// Saves what is in it now, for [`RedisServer::restart_with`].
    pub async fn dump(&self) -> Result<Dump> {
        redis::cmd("SAVE").exec_async(&mut self.connection().await?).await?;
        Ok(Dump { bytes: fs::read(self.folder.path().join("dump.rdb"))? })
    }

    /// Starts again with what was in it at an earlier time.
    pub async fn restart_with(&mut self, dump: &Dump) -> Result<()> {
        self.kill()?;
        fs::write(self.folder.path().join("dump.rdb"), &dump.bytes)?;
        self.run().await
    }

    /// SIGSTOP: connections stay open, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().context("redis-server is not running")?;
        let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        let log = fs::File::create(self.log_path())?;
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
        command.args(["--dbfilename", "dump.rdb"]).arg("--dir").arg(self.folder.path()).args(&self.options);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        self.child = Some(command.spawn().context("redis-server: is it installed? (apt-get install redis-server)")?);
        let deadline = Instant::now() + STARTS_WITHIN;
        while Instant::now() < deadline {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                bail!("redis-server ended with {status}");
            }
            if self.log().contains("Ready to accept connections") {
                return Ok(());
            }
            crate::look_again().await;
        }
        bail!("redis-server is not ready within {STARTS_WITHIN:?}")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What a server held at one time.
pub struct Dump {
    bytes: Vec<u8>,
}
