//! How a server is reached: user, password, TLS. Knows nothing of which server to reach.
//!
//! Files and variables are read for every connection, so that a new password or certificate needs no restart. They are small, and this
//! is not the data path.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates,
};

use crate::config::{Login, Node, Password, RedisState, RedisTls, Topology};
use crate::flags::FlagsError;

/// A connection, with its handshake, may take this long; then another attempt is made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(750);
/// An answer may take this long; then the server counts as gone. A paused server is found out this way.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer passwords are a wrong file.
const PASSWORD_BYTES: usize = 1024;

/// What `[state]` says of Redis.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) redis: RedisState,
    /// The store's name without credentials. Copies on disk carry it: epochs of different stores do not compare.
    pub(super) name: String,
}

impl Reach {
    pub(super) fn new(redis: &RedisState) -> Reach {
        if redis.tls.is_some() {
            // Fails when the process has one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Reach { name: name(redis), redis: redis.clone() }
    }

    /// The way to a server that holds flags, with RESP3: tracking announces on the same connection.
    pub(super) fn server(&self, node: &Node) -> RedisResult<Client> {
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(self.redis.database);
        self.client(node, with_login(settings, "state.", &self.redis.login)?)
    }

    /// A connection to a server that holds flags, to ask it something.
    pub(super) async fn ask_server(&self, node: &Node) -> RedisResult<MultiplexedConnection> {
        self.server(node)?.get_multiplexed_async_connection_with_config(&timeouts()).await
    }

    /// A connection to a sentinel. RESP2 and nothing but the question, so that the least of ACL users will do.
    pub(super) async fn ask_sentinel(&self, node: &Node) -> RedisResult<MultiplexedConnection> {
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let client = self.client(node, with_login(settings, "state.sentinel_", &self.redis.sentinel_login)?)?;
        client.get_multiplexed_async_connection_with_config(&timeouts()).await
    }

    fn client(&self, node: &Node, settings: RedisConnectionInfo) -> RedisResult<Client> {
        let address = ConnectionAddr::Tcp(node.host.clone(), node.port);
        let Some(tls) = &self.redis.tls else { return Client::open(address.into_connection_info()?.set_redis_settings(settings)) };
        let address = ConnectionAddr::TcpTls { host: node.host.clone(), port: node.port, insecure: false, tls_params: None };
        let info = address.into_connection_info()?.set_redis_settings(settings);
        match certificates(tls)? {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates),
        }
    }
}

pub(super) fn timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(ANSWER_TIMEOUT))
}

fn name(redis: &RedisState) -> String {
    let mut nodes: Vec<String> = redis.nodes.iter().map(ToString::to_string).collect();
    // In any order they are the same store.
    nodes.sort();
    let (nodes, database) = (nodes.join(","), redis.database);
    match &redis.topology {
        Topology::Single => format!("redis {nodes} database {database}"),
        Topology::Sentinel { primary } => format!("redis sentinel {primary} at {nodes} database {database}"),
        Topology::Cluster => format!("redis cluster {nodes}"),
    }
}

fn with_login(settings: RedisConnectionInfo, prefix: &str, login: &Login) -> RedisResult<RedisConnectionInfo> {
    let refused = |problem: FileProblem| RedisError::from((ErrorKind::InvalidClientConfig, "no password", problem.to_string()));
    let settings = match &login.username {
        Some(name) => settings.set_username(name),
        None => settings,
    };
    Ok(match password(prefix, &login.password).map_err(refused)? {
        Some(password) => settings.set_password(password),
        None => settings,
    })
}

/// A file or variable that `[state]` names and that is of no use.
#[derive(Debug)]
pub(super) struct FileProblem {
    key: String,
    what: String,
    why: String,
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {:?}: {}", self.key, self.what, self.why)
    }
}

fn password(prefix: &str, password: &Password) -> Result<Option<String>, FileProblem> {
    let problem = |key: &str, what: &str, why: String| FileProblem { key: format!("{prefix}{key}"), what: what.to_owned(), why };
    let (key, what, text) = match password {
        Password::None => return Ok(None),
        Password::Written(password) => return Ok(Some(password.clone())),
        Password::File(path) => {
            let what = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| problem("password_file", &what, format!("cannot be read: {error}")))?;
            ("password_file", what, text)
        }
        Password::Variable(name) => {
            let text = std::env::var(name).map_err(|_| problem("password_env", name, "is not set, or is no text".to_owned()))?;
            ("password_env", name.clone(), text)
        }
    };
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() || text.len() > PASSWORD_BYTES || text.contains(['\n', '\0']) {
        return Err(problem(key, &what, format!("must hold a password on one line, of 1 to {PASSWORD_BYTES} bytes")));
    }
    Ok(Some(text.to_owned()))
}

fn certificates(tls: &RedisTls) -> RedisResult<Option<TlsCertificates>> {
    if tls.ca.is_none() && tls.certificate.is_none() {
        return Ok(None);
    }
    let read = |key: &str, path: &Path| {
        fs::read(path).map_err(|error| {
            let why = format!("state.{key} = {path:?}: cannot be read: {error}");
            RedisError::from((ErrorKind::InvalidClientConfig, "no certificate", why))
        })
    };
    let root_cert = tls.ca.as_deref().map(|path| read("ca", path)).transpose()?;
    let client_tls = match &tls.certificate {
        Some(files) => Some(ClientTlsConfig { client_cert: read("cert", &files.cert)?, client_key: read("key", &files.key)? }),
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}

/// Reads what the config names, so that a mistake is told before anything starts.
pub(super) fn check(redis: &RedisState) -> Result<(), FlagsError> {
    let refused = |problem: FileProblem| FlagsError::Named { key: problem.key, what: problem.what, why: problem.why };
    password("state.", &redis.login.password).map_err(refused)?;
    password("state.sentinel_", &redis.sentinel_login.password).map_err(refused)?;
    let Some(tls) = &redis.tls else { return Ok(()) };
    let files = [
        ("state.ca", tls.ca.as_ref()),
        ("state.cert", tls.certificate.as_ref().map(|files| &files.cert)),
        ("state.key", tls.certificate.as_ref().map(|files| &files.key)),
    ];
    for (key, path) in files.into_iter().filter_map(|(key, path)| Some((key, path?))) {
        let refuse = |why: String| FlagsError::Named { key: key.to_owned(), what: path.display().to_string(), why };
        let text = fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let marker = if key == "state.key" { "PRIVATE KEY-----" } else { "-----BEGIN CERTIFICATE-----" };
        if !text.contains(marker) {
            return Err(refuse(format!("holds no PEM with {:?}", marker.trim_matches('-'))));
        }
    }
    // The library says whether they can be used: authorities that parse, a key that is one.
    let node = redis.nodes.first().ok_or_else(|| FlagsError::Named {
        key: "state.url".to_owned(),
        what: redis.shown.clone(),
        why: "names no server".to_owned(),
    })?;
    let made = Reach::new(redis).server(node);
    made.map(drop).map_err(|error| FlagsError::Named { key: "state.url".to_owned(), what: redis.shown.clone(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            password("state.", &Password::File(path.clone()))
        };
        assert_eq!(read("s3cret\n").unwrap().as_deref(), Some("s3cret"));
        assert_eq!(read(" s3 cret \r\n").unwrap().as_deref(), Some(" s3 cret "));
        for bad in ["", "\n", "a\nb\n", &"x".repeat(2_000)] {
            let problem = read(bad).unwrap_err().to_string();
            assert!(problem.starts_with("state.password_file = ") && problem.contains("on one line"), "{problem}");
        }
        let problem = password("state.sentinel_", &Password::Variable("NO_SUCH_VARIABLE".to_owned())).unwrap_err().to_string();
        assert_eq!(problem, "state.sentinel_password_env = \"NO_SUCH_VARIABLE\": is not set, or is no text");
    }
}
