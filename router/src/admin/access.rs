//! Who may ask what: bearer tokens with roles, compared in constant time; and whose webhooks are believed.
//!
//! Changing always needs an operator's token. Reading needs a token as soon as the config has one; without any, the listener is
//! on loopback (the config check sees to that) and reading is open to whoever is on this machine, but not to web pages in its
//! browser: the `Host` must then be an IP address or `localhost`, so that a rebound DNS name gets nothing.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Live;
use super::error::ApiError;
use crate::config::{Config, LOCAL_OPERATOR, Role};
use crate::mlflow::{Webhook, WebhookError};

/// The operator's token of this machine, in `state.data_dir`, readable by the router's user alone.
pub const TOKEN_FILE: &str = "admin.token";

/// A header line by which whoever may do more is answered as a viewer: what a viewer may not see is not to be taken elsewhere.
pub(crate) const AS_VIEWER: (&str, &str) = ("switchback-role", "viewer");

const TOKEN_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=1_024;

/// The tokens in force.
#[derive(Debug)]
pub struct Access {
    tokens: Vec<Token>,
    /// No token is configured: reading is open.
    is_reading_open: bool,
    /// MLflow's, where the config has one.
    mlflow: Option<Webhook>,
}

#[derive(Debug)]
struct Token {
    name: String,
    role: Role,
    sha256: [u8; 32],
}

/// A token that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file.
    #[error("{key} = {path:?}: cannot {what}")]
    File {
        /// The config key that names it.
        key: String,
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{key} = {path:?}: must hold a token of 16 to 1024 printable ASCII characters on one line")]
    Token {
        /// The config key that names the file.
        key: String,
        /// Which.
        path: PathBuf,
    },
    /// The same secret under two names: nobody could say who made a change.
    #[error("{key} = {path:?}: must hold another token than {other}: changes are recorded under the token's name")]
    Twice {
        /// The config key that names the file.
        key: String,
        /// Which.
        path: PathBuf,
        /// Who has it already.
        other: String,
    },
    /// The secret of a webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// No randomness.
    #[error("cannot make an admin token: {0}")]
    Random(getrandom::Error),
}

impl AccessError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            AccessError::File { key, .. } | AccessError::Token { key, .. } | AccessError::Twice { key, .. } => key,
            AccessError::Webhook(error) => error.key(),
            AccessError::Random(_) => "state.data_dir",
        }
    }
}

impl Access {
    /// Reads the tokens and secrets that the config names, and the token in the data folder, which is made when it is not there.
    ///
    /// # Errors
    /// [`AccessError`], naming the file.
    pub fn open(config: &Config) -> Result<Access, AccessError> {
        let mut access = Access::of_config(config)?;
        let local = local_token(&config.state.data_dir)?;
        if let Some(index) = access.tokens.iter().position(|token| token.sha256 == sha256(&local)) {
            let (key, path) = configured(config, index);
            return Err(AccessError::Twice { key, path, other: format!("that of {LOCAL_OPERATOR}, {TOKEN_FILE} in state.data_dir") });
        }
        access.add(LOCAL_OPERATOR, Role::Operator, &local);
        Ok(access)
    }

    /// Reads the tokens and secrets that the config names, and makes nothing: for `switchback config check`.
    ///
    /// # Errors
    /// [`AccessError`], naming the key and the file.
    pub fn of_config(config: &Config) -> Result<Access, AccessError> {
        let mlflow = config.mlflow.as_ref().map(Webhook::open).transpose()?;
        let mut access = Access { tokens: Vec::new(), is_reading_open: config.admin.tokens.is_empty(), mlflow };
        for (index, token) in config.admin.tokens.iter().enumerate() {
            let text = read_token(&format!("admin.token[{index}].file"), &token.file)?;
            if let Some(other) = access.tokens.iter().position(|other| other.sha256 == sha256(&text)) {
                let (key, path) = configured(config, index);
                let name = &access.tokens.get(other).map(|token| token.name.as_str()).unwrap_or_default();
                return Err(AccessError::Twice { key, path, other: format!("admin.token[{other}], {name:?}") });
            }
            access.add(&token.name, token.role, &text);
        }
        Ok(access)
    }

    /// Whose webhooks are believed; `None` where none are.
    pub(super) fn mlflow(&self) -> Option<&Webhook> {
        self.mlflow.as_ref()
    }

    fn add(&mut self, name: &str, role: Role, text: &str) {
        self.tokens.push(Token { name: name.to_owned(), role, sha256: sha256(text) });
    }

    /// Whose token this is. Looks at every token, so that the time says nothing.
    fn find(&self, text: &str) -> Option<Caller> {
        let sha256 = sha256(text);
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.sha256.ct_eq(&sha256)) {
                found = Some(Caller { name: token.name.clone(), role: token.role, has_token: true });
            }
        }
        found
    }

    /// Who asks, if they may read: as a viewer where they ask for no more.
    pub(super) fn caller(&self, parts: &Parts) -> Result<Caller, ApiError> {
        let caller = self.bearer(parts)?;
        let Some(asked) = parts.headers.get(AS_VIEWER.0) else { return Ok(caller) };
        if asked != AS_VIEWER.1 {
            return Err(ApiError::BadRequest(format!("{}: must be {}, or left out", AS_VIEWER.0, AS_VIEWER.1)));
        }
        Ok(Caller { role: Role::Viewer, ..caller })
    }

    fn bearer(&self, parts: &Parts) -> Result<Caller, ApiError> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            // Of two lines a proxy on the way may have looked at the other one.
            let token = only(parts, header::AUTHORIZATION).and_then(|value| value.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
            return token.and_then(|token| self.find(token)).ok_or(ApiError::WrongToken);
        }
        if !self.is_reading_open {
            return Err(ApiError::NoToken);
        }
        let host = only(parts, header::HOST).unwrap_or("");
        if !is_this_machine(host) {
            return Err(ApiError::ForeignHost(host.chars().take(128).collect()));
        }
        Ok(Caller { name: "anonymous".to_owned(), role: Role::Viewer, has_token: false })
    }

    /// Who asks, if they may change flags.
    pub(super) fn operator(&self, parts: &Parts) -> Result<Caller, ApiError> {
        let caller = self.caller(parts)?;
        caller.may_change().map(|()| caller)
    }
}

/// The text of a field that is there once.
fn only(parts: &Parts, name: header::HeaderName) -> Option<&str> {
    let mut lines = parts.headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() { None } else { line.to_str().ok() }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// For the ledger.
    pub(super) name: String,
    pub(super) role: Role,
    has_token: bool,
}

impl Caller {
    /// That they may change flags.
    pub(super) fn may_change(&self) -> Result<(), ApiError> {
        match self.role {
            Role::Operator => Ok(()),
            // Reading is open here, changing is not.
            Role::Viewer if !self.has_token => Err(ApiError::NoToken),
            Role::Viewer => Err(ApiError::NotOperator(self.name.clone())),
        }
    }
}

/// Anybody who may read.
pub(super) struct Viewer(pub(super) Caller);

/// Somebody who may change flags.
pub(super) struct Operator(pub(super) Caller);

impl FromRequestParts<Live> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<Viewer, ApiError> {
        live.states.borrow().access.caller(parts).map(Viewer)
    }
}

impl FromRequestParts<Live> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<Operator, ApiError> {
        live.states.borrow().access.operator(parts).map(Operator)
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The key and the file of a configured token.
fn configured(config: &Config, index: usize) -> (String, PathBuf) {
    let path = config.admin.tokens.get(index).map(|token| token.file.clone()).unwrap_or_default();
    (format!("admin.token[{index}].file"), path)
}

/// An IP address or `localhost`, with or without a port.
fn is_this_machine(host: &str) -> bool {
    if host.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost"),
    }
}

fn read_token(key: &str, path: &Path) -> Result<String, AccessError> {
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::File {
        key: key.to_owned(),
        path: path.to_owned(),
        what: "be read",
        source,
    })?;
    let token = text.trim();
    let is_good = TOKEN_CHARACTERS.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(token.to_owned()) } else { Err(AccessError::Token { key: key.to_owned(), path: path.to_owned() }) }
}

/// The token in the data folder. It is written beside its place and linked there, so that two processes that start at once
/// agree on one, and nobody reads half of one.
fn local_token(folder: &Path) -> Result<String, AccessError> {
    let key = "state.data_dir";
    let fail = |what: &'static str| {
        let path = folder.to_owned();
        move |source: std::io::Error| AccessError::File { key: key.to_owned(), path, what, source }
    };
    let path = folder.join(TOKEN_FILE);
    if !path.exists() {
        std::fs::create_dir_all(folder).map_err(fail("make the folder (must be one, or a path where one can be made)"))?;
        let mut file = tempfile::Builder::new().prefix(".admin.token.").tempfile_in(folder).map_err(fail("make a file in it"))?;
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(AccessError::Random)?;
        writeln!(file, "{}", hex::encode(bytes)).map_err(fail("write a file in it"))?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail("put admin.token in place")(error.error)),
        }
    }
    keep_to_owner(&path).map_err(fail("keep admin.token to its owner (mode 0600)"))?;
    read_token(key, &path)
}

#[cfg(unix)]
fn keep_to_owner(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode.trailing_zeros() < 6 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others could read the admin token; now only its owner");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_to_owner(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Ann's, who is an operator, and Bob's, who is a viewer.
    pub(in crate::admin) const TOKENS: [&str; 2] = ["operator-token-of-ann", "viewer-token-of-bob"];

    pub(in crate::admin) fn access(is_reading_open: bool) -> Access {
        let mut access = Access { tokens: Vec::new(), is_reading_open, mlflow: None };
        access.add("ann", Role::Operator, TOKENS[0]);
        access.add("bob", Role::Viewer, TOKENS[1]);
        access
    }

    fn parts(host: &str, authorization: Option<&str>) -> Parts {
        let mut request = axum::http::Request::builder().uri("/").header("host", host);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(()).map(|request| request.into_parts().0).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_token_says_who_asks() {
        let caller = access(false).caller(&parts("a.example", Some("Bearer operator-token-of-ann")));
        assert_eq!(caller.ok(), Some(Caller { name: "ann".to_owned(), role: Role::Operator, has_token: true }));
        let caller = access(false).caller(&parts("a.example", Some("bearer viewer-token-of-bob")));
        assert_eq!(caller.ok().map(|caller| caller.role), Some(Role::Viewer));
    }

    #[test]
    fn a_wrong_token_is_refused_even_where_reading_is_open() {
        for wrong in ["Bearer viewer-token-of-bo", "Basic viewer-token-of-bob", "viewer-token-of-bob", "Bearer ", ""] {
            assert!(matches!(access(true).caller(&parts("127.0.0.1", Some(wrong))), Err(ApiError::WrongToken)), "{wrong}");
        }
    }

    #[test]
    fn an_operator_may_ask_as_a_viewer_and_nobody_as_more() {
        let mut asked = parts("a.example", Some("Bearer operator-token-of-ann"));
        asked.headers.append(AS_VIEWER.0, axum::http::HeaderValue::from_static("viewer"));
        assert_eq!(access(false).caller(&asked).ok(), Some(Caller { name: "ann".to_owned(), role: Role::Viewer, has_token: true }));
        assert!(matches!(access(false).operator(&asked), Err(ApiError::NotOperator(_))));
        let mut more = parts("a.example", Some("Bearer viewer-token-of-bob"));
        more.headers.append(AS_VIEWER.0, axum::http::HeaderValue::from_static("operator"));
        assert!(matches!(access(false).caller(&more), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn of_two_lines_none_is_believed() {
        let mut two = parts("127.0.0.1", Some("Bearer operator-token-of-ann"));
        two.headers.append("authorization", axum::http::HeaderValue::from_static("Bearer operator-token-of-ann"));
        assert!(matches!(access(true).caller(&two), Err(ApiError::WrongToken)));
        let mut two = parts("127.0.0.1", None);
        two.headers.append("host", axum::http::HeaderValue::from_static("evil.example"));
        assert!(matches!(access(true).caller(&two), Err(ApiError::ForeignHost(_))));
    }

    #[test]
    fn without_a_token_only_this_machine_reads_and_only_where_that_is_open() {
        for host in ["127.0.0.1:9090", "[::1]:9090", "localhost", "LOCALHOST:1", "::1"] {
            assert!(access(true).caller(&parts(host, None)).is_ok(), "{host}");
            assert!(matches!(access(false).caller(&parts(host, None)), Err(ApiError::NoToken)), "{host}");
        }
        for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example", "[7.0.0.1", "[localhost]", ""]
        {
            assert!(matches!(access(true).caller(&parts(host, None)), Err(ApiError::ForeignHost(_))), "{host}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_local_token_is_made_once_and_kept_to_its_owner() -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let data_dir = folder.path().join("new");
        let path = data_dir.join(TOKEN_FILE);
        let token = local_token(&data_dir)?;
        assert_eq!(token.len(), 64);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
        assert_eq!(local_token(&data_dir)?, token);
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(data_dir)?.count(), 1, "nothing is left beside it");
        Ok(())
    }
}
