//! Where a router's admin API is, who we are to it, and one request at a time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Failure, again};
use crate::admin::{AS_VIEWER, TOKEN_FILE};
use crate::config;

const DEFAULT_ADMIN: &str = "http://127.0.0.1:9090";
const DEFAULT_DATA_DIR: &str = "/var/lib/switchback";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// For an answer of many megabytes.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The most that is read of an answer: 10,000 routes are well under it.
const ANSWER_BYTES: usize = 256 << 20;

/// Which router, and with which token.
#[derive(Debug, Args, Default)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    at: AdminAt,
    /// The router's config: its admin address, and the token in its data folder, are used where no other option names them.
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
}

/// The same without `--config`, for commands that need it for more than this.
#[derive(Debug, Args, Default)]
pub(crate) struct AdminAt {
    /// The router's admin address [default: http://127.0.0.1:9090, or that of --config].
    #[arg(long, value_name = "URL", env = "SWITCHBACK_ADMIN")]
    admin: Option<String>,
    /// A file with the bearer token [default: admin.token in the data folder, where it can be read].
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The router's data folder: the token in it is used, and no address [default: that of --config, or /var/lib/switchback].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

/// A router's admin API.
#[derive(Debug)]
pub(crate) struct AdminClient {
    /// `host:port`.
    authority: String,
    /// Nobody named it.
    is_default: bool,
    token: Option<String>,
    /// Why there is no token, for when one turns out to be needed.
    no_token: String,
    /// Whatever the token allows, no more is wanted than a viewer may see.
    is_viewer: bool,
}

impl AdminArgs {
    /// The config that was named, else this one; and the same with it named.
    pub(crate) fn or_config(mut self, default: &str) -> (PathBuf, AdminArgs) {
        let file = self.config.get_or_insert_with(|| PathBuf::from(default)).clone();
        (file, self)
    }

    /// What was said, to be said again: ` --admin URL --config FILE`.
    pub(crate) fn again(&self) -> String {
        let config = again::option("config", self.config.as_deref().map(Path::as_os_str), Some("SWITCHBACK_CONFIG"));
        format!("{}{config}", self.at.again())
    }

    /// The config that was named, if it is good.
    pub(crate) fn good_config(&self) -> Option<config::Config> {
        self.config.as_deref().and_then(|file| config::load(file).ok())
    }

    /// Finds the router and the token.
    ///
    /// # Errors
    /// A URL, config or token file that makes no sense.
    pub(crate) fn client(&self) -> Result<AdminClient, Failure> {
        let config = self.config.as_deref().map(config::load).transpose().map_err(|error| {
            let hint = "a router that runs goes on, and is reached without this file too: --admin URL --data-dir FOLDER";
            Failure::config(&error.to_string()).with_hint(hint)
        })?;
        self.at.client(config.as_ref())
    }
}

impl AdminAt {
    /// What was said, to be said again.
    pub(crate) fn again(&self) -> String {
        let admin = again::option("admin", self.admin.as_deref().map(str::as_ref), Some("SWITCHBACK_ADMIN"));
        let token_file = again::option("token-file", self.token_file.as_deref().map(Path::as_os_str), Some("SWITCHBACK_TOKEN_FILE"));
        format!("{admin}{token_file}{}", again::option("data-dir", self.data_dir.as_deref().map(Path::as_os_str), None))
    }

    /// Finds the router and the token; `config` is the router's, where one was named.
    ///
    /// # Errors
    /// A URL or token file that makes no sense.
    pub(crate) fn client(&self, config: Option<&config::Config>) -> Result<AdminClient, Failure> {
        let authority = match (&self.admin, config) {
            (Some(url), _) => authority_of(url)?,
            (None, Some(config)) if config.listen.admin.port() == 0 => {
                let why = "listen.admin takes a free port: name the one that the router says at its start with --admin";
                return Err(Failure::usage(why));
            }
            (None, Some(config)) => reachable(config.listen.admin).to_string(),
            (None, None) => authority_of(DEFAULT_ADMIN)?,
        };
        let is_default = self.admin.is_none() && config.is_none();
        if let Some(path) = &self.token_file {
            let token = read_token(path).map_err(|why| Failure::usage(format!("--token-file {why}")))?;
            return Ok(AdminClient { authority, is_default, token: Some(token), no_token: String::new(), is_viewer: false });
        }
        let configured = config.map(|config| config.state.data_dir.clone());
        let data_dir = self.data_dir.clone().or(configured).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let (token, no_token) = match read_token(&data_dir.join(TOKEN_FILE)) {
            Ok(token) => (Some(token), String::new()),
            Err(why) => (None, why),
        };
        Ok(AdminClient { authority, is_default, token, no_token, is_viewer: false })
    }
}

impl AdminClient {
    /// The same caller, to another router of the fleet: `host:port`, as its heartbeat gives it.
    pub(crate) fn to_peer(&self, authority: &str) -> AdminClient {
        let (token, no_token) = (self.token.clone(), self.no_token.clone());
        AdminClient { authority: authority.to_owned(), is_default: false, token, no_token, is_viewer: self.is_viewer }
    }

    /// The same caller, who is answered as a viewer: no salt comes back.
    pub(crate) fn seen_as_viewer(mut self) -> AdminClient {
        self.is_viewer = true;
        self
    }

    /// Where it is: `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether this text holds the token.
    pub(crate) fn is_told_by(&self, text: &[u8]) -> bool {
        let is_in = |token: &String| text.windows(token.len()).any(|part| part == token.as_bytes());
        self.token.as_ref().is_some_and(is_in)
    }

    /// GET; the answer's body whatever it is, of at most so many bytes.
    ///
    /// # Errors
    /// As [`AdminClient::get`]; also a longer body.
    pub(crate) async fn bytes(&self, path: &str, most: usize) -> Result<Bytes, Failure> {
        let response = self.send(self.request(Method::GET, path), Bytes::new()).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(self.refusal(status, &body_of(response).await?).await);
        }
        let body = tokio::time::timeout(LONG_ANSWER_TIMEOUT, Limited::new(response.into_body(), most).collect()).await;
        let body = body.map_err(|_| Failure::unreachable(format!("{path}: the router's answer did not end within 2 min")))?;
        Ok(body.map_err(|error| Failure::unreachable(format!("{path}: the router's answer broke off: {error}")))?.to_bytes())
    }

    /// GET; the answer's JSON.
    ///
    /// # Errors
    /// Unreachable, or refused with the router's words.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(Method::GET, path), Bytes::new()).await
    }

    /// PATCH with a JSON body, on condition of an epoch where one is given.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn patch(&self, path: &str, body: &Value, epoch: Option<u64>) -> Result<Value, Failure> {
        let mut request = self.request(Method::PATCH, path).header(header::CONTENT_TYPE, "application/json");
        if let Some(epoch) = epoch {
            request = request.header(header::IF_MATCH, format!("\"{epoch}\""));
        }
        self.json(request, Bytes::from(body.to_string())).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.json(request, Bytes::from(body.to_string())).await
    }

    /// PUT with a component as its body.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn put(&self, path: &str, component: Bytes) -> Result<Value, Failure> {
        self.json(self.request(Method::PUT, path).header(header::CONTENT_TYPE, "application/wasm"), component).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(Method::DELETE, path), Bytes::new()).await
    }

    /// POST without a body.
    ///
    /// # Errors
    /// As [`AdminClient::get`]; what the router refuses as unprocessable is its `problems`, a line each.
    pub(crate) async fn post_nothing(&self, path: &str) -> Result<Value, Failure> {
        let response = self.send(self.request(Method::POST, path), Bytes::new()).await?;
        let status = response.status();
        let body = body_of(response).await?;
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let json: Value = serde_json::from_slice(&body).unwrap_or_default();
            let problems = json.get("problems").and_then(Value::as_array).cloned().unwrap_or_default();
            let lines: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
            return Err(Failure::config(&lines.join("\n")));
        }
        if !status.is_success() {
            return Err(self.refusal(status, &body).await);
        }
        serde_json::from_slice(&body).map_err(|_| self.no_router("it answers no JSON"))
    }

    /// GET; the answer's body as it comes, for a stream of events.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, Failure> {
        let response = self.send(self.request(Method::GET, path), Bytes::new()).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        Err(self.refusal(response.status(), &body_of(response).await?).await)
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if self.is_viewer {
            request = request.header(AS_VIEWER.0, AS_VIEWER.1);
        }
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn json(&self, request: hyper::http::request::Builder, body: Bytes) -> Result<Value, Failure> {
        let response = self.send(request, body).await?;
        let status = response.status();
        let body = body_of(response).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body).await);
        }
        serde_json::from_slice(&body).map_err(|_| self.no_router("it answers no JSON"))
    }

    /// Somebody else has this address: a model server, a traffic listener, any other program.
    fn no_router(&self, why: &str) -> Failure {
        let to_do = "name a router's listen.admin with --admin, or its --config";
        Failure::usage(format!("this is no Switchback admin listener: http://{}: {why}; {to_do}", self.authority))
    }

    /// Whether a router answers there: `/readyz` needs no token, and has words of its own. One that does not answer at all may be one.
    async fn is_router(&self) -> bool {
        let Ok(response) = self.send(self.request(Method::GET, "/readyz"), Bytes::new()).await else { return true };
        let Ok(body) = body_of(response).await else { return true };
        serde_json::from_slice::<Value>(&body).is_ok_and(|json| json.get("draining").is_some())
    }

    async fn send(&self, request: hyper::http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let hint = if self.is_default { "; name another with --admin, or its --config" } else { "" };
        let unreachable =
            |why: String| Failure::unreachable(format!("the router at http://{} cannot be reached: {why}{hint}", self.authority));
        let request = request.body(Full::new(body)).map_err(|error| Failure::usage(format!("not a request: {error}")))?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await;
        let stream = connected.map_err(|_| unreachable("no connection within 5 s".to_owned()))?.map_err(|e| unreachable(e.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
        tokio::spawn(connection);
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        answered.map_err(|_| unreachable("no answer within 35 s".to_owned()))?.map_err(|error| unreachable(error.to_string()))
    }

    /// Why no token is sent, and what names one; `None` where one is.
    pub(crate) fn no_token(&self) -> Option<String> {
        self.token.is_none().then(|| format!("{}; name one with --token-file, or the router's --config or --data-dir", self.no_token))
    }

    /// What the router's refusal means for the exit code.
    async fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_strange = json.get("error").is_none() || matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
        // A server error may be that of a proxy whose router restarts.
        if is_strange && !status.is_server_error() && !self.is_router().await {
            return self.no_router(&format!("it answers {status}"));
        }
        let why = json.get("error").and_then(Value::as_str).map_or_else(|| format!("it answered {status}"), str::to_owned);
        let failure = match status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => Failure::refused(format!(
                "{why} (no token was sent: {}); name one with --token-file, or the router's --config or --data-dir",
                self.no_token
            )),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Failure::usage(why),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Failure::unreachable(why),
            _ => Failure::refused(why),
        };
        failure.with_details(json)
    }
}

async fn body_of(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(response.into_body(), ANSWER_BYTES).collect()).await;
    let body = body.map_err(|_| Failure::unreachable("the router's answer did not end within 35 s"))?;
    Ok(body.map_err(|error| Failure::unreachable(format!("the router's answer broke off: {error}")))?.to_bytes())
}

fn authority_of(url: &str) -> Result<String, Failure> {
    let wrong = || Failure::usage(format!("--admin {url}: must be like {DEFAULT_ADMIN}: http, host, port"));
    let uri: hyper::Uri = url.parse().map_err(|_| wrong())?;
    let is_plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|_| is_plain).ok_or_else(wrong)?;
    Ok(if authority.port().is_some() { authority.to_string() } else { format!("{authority}:80") })
}

/// A router that listens on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
}

fn read_token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let token = text.trim();
    let is_good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(token.to_owned()) } else { Err(format!("{}: holds no token", path.display())) }
}
