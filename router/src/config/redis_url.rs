//! `state.url` and the keys beside it: one Redis, one that sentinels look after, or a cluster; and how to get in.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::check::Checker;
use super::checked::{CertificateFiles, StateUrl};
use super::{check_tls, written};

const URL_RULE: &str = "must be a URL like \"redis://127.0.0.1:6379\", \"rediss://host:6380/0\" (TLS), \
                        \"redis+sentinel://host:26379,host2:26379/mymaster\" or \"redis+cluster://host:6379,host2:6379\"; \
                        leave it out for the embedded store";
const PRIMARY_RULE: &str = "must end with the name of the primary that the sentinels watch, like \"/mymaster\", and then, if it is not 0, \
                            with the database, like \"/mymaster/2\"";
const CLUSTER_RULE: &str = "must name nodes only: a cluster has database 0 alone";
const FILE_RULE: &str = "must be the path of a file that holds the password on one line";
const ENV_RULE: &str = "must be the name of an environment variable that holds the password: A-Z, a-z, 0-9 and _";
const CA_RULE: &str = "is for TLS: state.url must begin with rediss://, rediss+sentinel:// or rediss+cluster://";
/// More addresses than this in one URL are a mistake: sentinels and nodes are learnt from the first that answers.
const MOST_NODES: usize = 64;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is, and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisState {
    /// What stands at `nodes`.
    pub topology: Topology,
    /// The server, the sentinels, or nodes of the cluster: at least one.
    pub nodes: Vec<Node>,
    /// The database; 0 in a cluster.
    pub database: i64,
    /// Who the router is to the servers that hold the flags.
    pub login: Login,
    /// Who the router is to the sentinels.
    pub sentinel_login: Login,
    /// TLS, to all of them; `None` without.
    pub tls: Option<RedisTls>,
    /// The URL without what it says of user and password.
    pub shown: String,
}

/// What stands behind the addresses of `state.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels, who know where the primary of this name is.
    Sentinel {
        /// The name, as in `sentinel monitor NAME`.
        primary: String,
    },
    /// Some nodes of a cluster, who know the others.
    Cluster,
}

impl Topology {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Topology::Single => "single",
            Topology::Sentinel { .. } => "sentinel",
            Topology::Cluster => "cluster",
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Node {
    /// Reads `host:port`, `host`, `[v6]:port` or `v6:port`, as URLs and Redis itself write it.
    #[must_use]
    pub fn read(text: &str, default_port: Option<u16>) -> Option<Node> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(default_port, |port| port.parse().ok())?;
        let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%'));
        (is_host && port != 0).then(|| Node { host: host.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The ACL user; `None` for the default one.
    pub username: Option<String>,
    /// Where the password is.
    pub password: Password,
}

/// Where a password is. A file and a variable are read at every connection.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Password {
    /// There is none.
    #[default]
    None,
    /// In the config itself.
    Written(String),
    /// In a file, on one line.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::None => f.write_str("None"),
            Password::Written(_) => f.write_str("Written(***)"),
            Password::File(path) => write!(f, "File({path:?})"),
            Password::Variable(name) => write!(f, "Variable({name:?})"),
        }
    }
}

/// TLS towards Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// What the router shows.
    pub certificate: Option<CertificateFiles>,
}

/// The store that `[state]` names.
pub(super) fn check_url(checker: &mut Checker, written: &written::State) -> StateUrl {
    let Some(url) = &written.url else {
        let beside = [
            ("username", &written.username),
            ("password_file", &written.password_file),
            ("password_env", &written.password_env),
            ("sentinel_username", &written.sentinel_username),
            ("sentinel_password_file", &written.sentinel_password_file),
            ("sentinel_password_env", &written.sentinel_password_env),
            ("ca", &written.ca),
            ("cert", &written.cert),
            ("key", &written.key),
        ];
        for (name, value) in beside.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
            checker.refuse(&format!("state.{name}"), value, "is for Redis, and there is no state.url");
        }
        return StateUrl::Embedded;
    };
    match read_url(url) {
        Ok(mut redis) => {
            check_beside(checker, written, &mut redis);
            StateUrl::Redis(Box::new(redis))
        }
        Err(why) => {
            let (rule, because) = match why {
                Refused::Rule(rule) => (rule, String::new()),
                Refused::Because(why) => (URL_RULE, format!(" ({why})")),
            };
            checker.refuse("state.url", without_password(url), format!("{rule}{because}"));
            StateUrl::Embedded
        }
    }
}

enum Refused {
    Rule(&'static str),
    Because(String),
}

fn read_url(url: &str) -> Result<RedisState, Refused> {
    let (scheme, rest) = url.split_once("://").ok_or(Refused::Rule(URL_RULE))?;
    let is_tls = scheme.starts_with("rediss");
    let mut redis = match scheme {
        "redis" | "rediss" => read_single(url)?,
        "redis+sentinel" | "rediss+sentinel" => read_list(rest, SENTINEL_PORT, |path| {
            let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
            let is_name = !primary.is_empty() && primary.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            let database = database.parse().ok().filter(|database| *database >= 0);
            let database = database.filter(|_| is_name).ok_or(Refused::Rule(PRIMARY_RULE))?;
            Ok((Topology::Sentinel { primary: primary.to_owned() }, database))
        })?,
        "redis+cluster" | "rediss+cluster" => read_list(rest, REDIS_PORT, |path| match path {
            "" | "0" => Ok((Topology::Cluster, 0)),
            _ => Err(Refused::Rule(CLUSTER_RULE)),
        })?,
        _ => return Err(Refused::Rule(URL_RULE)),
    };
    redis.tls = is_tls.then(RedisTls::default);
    redis.shown = without_password(url);
    Ok(redis)
}

fn read_single(url: &str) -> Result<RedisState, Refused> {
    if url.contains('?') {
        return Err(Refused::Because("it takes no parameters: TLS is rediss://, and a database a path like /2".to_owned()));
    }
    let info = url.into_connection_info().map_err(|error| Refused::Because(without_detail(&error)))?;
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, insecure: false, .. } => (host.clone(), *port),
        ConnectionAddr::TcpTls { .. } => return Err(Refused::Because("certificates are always checked: no #insecure".to_owned())),
        _ => return Err(Refused::Rule(URL_RULE)),
    };
    let node = Node { host, port };
    if Node::read(&node.to_string(), None).as_ref() != Some(&node) {
        return Err(Refused::Rule(URL_RULE));
    }
    let settings = info.redis_settings();
    if settings.db() < 0 {
        return Err(Refused::Because("a database is a number from 0".to_owned()));
    }
    Ok(RedisState {
        topology: Topology::Single,
        nodes: vec![node],
        database: settings.db(),
        login: login(settings),
        sentinel_login: Login::default(),
        tls: None,
        shown: String::new(),
    })
}

/// Its detail is a part of the URL, which may have the password.
fn without_detail(error: &redis::RedisError) -> String {
    let said = error.to_string();
    let detail = error.detail().unwrap_or_default();
    said.strip_suffix(detail).unwrap_or(&said).trim_end_matches(": ").to_owned()
}

fn login(settings: &redis::RedisConnectionInfo) -> Login {
    let password = settings.password().map_or(Password::None, |password| Password::Written(password.to_owned()));
    Login { username: settings.username().map(str::to_owned), password }
}

/// `[user:password@]host[:port][,host[:port]...][/path]`. The user is the one of the servers that hold the flags.
fn read_list(rest: &str, port: u16, path: impl Fn(&str) -> Result<(Topology, i64), Refused>) -> Result<RedisState, Refused> {
    let (before, hosts) = rest.rsplit_once('@').map_or((None, rest), |(before, hosts)| (Some(before), hosts));
    let (hosts, tail) = hosts.split_once('/').unwrap_or((hosts, ""));
    let bad = |host: &str| Refused::Because(format!("{host:?} is no host and port"));
    let nodes: Vec<Node> = hosts.split(',').map(|host| Node::read(host, Some(port)).ok_or_else(|| bad(host))).collect::<Result<_, _>>()?;
    if nodes.len() > MOST_NODES {
        return Err(Refused::Because(format!("at most {MOST_NODES} addresses")));
    }
    let (topology, database) = path(tail)?;
    let login = match before {
        None => Login::default(),
        Some(before) => {
            let info = format!("redis://{before}@host").into_connection_info();
            login(info.map_err(|_| Refused::Because("user and password make no sense".to_owned()))?.redis_settings())
        }
    };
    let sentinel_login = Login::default();
    Ok(RedisState { topology, nodes, database, login, sentinel_login, tls: None, shown: String::new() })
}

fn check_beside(checker: &mut Checker, written: &written::State, redis: &mut RedisState) {
    let in_url = redis.login != Login::default();
    let beside = [&written.username, &written.password_file, &written.password_env];
    if in_url && beside.iter().any(|value| value.is_some()) {
        let allowed = "must not name a user or password when state.username, state.password_file or state.password_env does";
        checker.refuse("state.url", &redis.shown, allowed);
    } else if !in_url {
        redis.login = check_login(checker, "", (&written.username, &written.password_file, &written.password_env));
    }
    let sentinel = (&written.sentinel_username, &written.sentinel_password_file, &written.sentinel_password_env);
    redis.sentinel_login = check_login(checker, "sentinel_", sentinel);
    if redis.sentinel_login != Login::default() && !matches!(redis.topology, Topology::Sentinel { .. }) {
        checker.refuse("state.url", &redis.shown, "has no sentinels: leave out the keys that begin with state.sentinel_");
    }
    let certificate = check_tls::check_pair(checker, "state", written.cert.clone(), written.key.clone());
    match &mut redis.tls {
        Some(tls) => *tls = RedisTls { ca: written.ca.as_ref().map(PathBuf::from), certificate },
        None => {
            for (name, value) in [("ca", &written.ca), ("cert", &written.cert), ("key", &written.key)] {
                if let Some(value) = value {
                    checker.refuse(&format!("state.{name}"), value, CA_RULE);
                }
            }
        }
    }
}

type LoginKeys<'a> = (&'a Option<String>, &'a Option<String>, &'a Option<String>);

fn check_login(checker: &mut Checker, prefix: &str, (username, file, variable): LoginKeys<'_>) -> Login {
    let key = |name: &str| format!("state.{prefix}{name}");
    let password = match (file, variable) {
        (Some(file), Some(_)) => {
            checker.refuse(&key("password_file"), file, format!("must not stand beside {}: one password", key("password_env")));
            Password::None
        }
        (Some(file), None) => {
            if file.is_empty() {
                checker.refuse(&key("password_file"), file, FILE_RULE);
            }
            Password::File(PathBuf::from(file))
        }
        (None, Some(name)) => {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                checker.refuse(&key("password_env"), name, ENV_RULE);
            }
            Password::Variable(name.clone())
        }
        (None, None) => Password::None,
    };
    if let (Some(name), Password::None) = (username, &password)
        && file.is_none()
    {
        checker.refuse(&key("username"), name, format!("needs a password: {} or {}", key("password_file"), key("password_env")));
    }
    Login { username: username.clone(), password }
}

/// An error message ends up in logs: what stands before the last `@` does not, but for the scheme.
fn without_password(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = before.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.filter(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'+'));
    scheme.map_or_else(|| format!("***@{host}"), |scheme| format!("{scheme}://***@{host}"))
}

#[cfg(test)]
#[path = "redis_url_tests.rs"]
pub(super) mod tests;
