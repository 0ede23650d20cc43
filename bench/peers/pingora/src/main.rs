//! A peer of the benchmark: pingora, as a proxy that sends users to one backend or, sticky by their id, a tenth of them to another one.
//!
//! Usage: `bench-pingora PORT TLS_PORT CERT KEY WORKERS BACKEND [CANARY]`. Plain HTTP/2 is taken on PORT too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, ProxyServiceBuilder, Session};

/// As the router has it, and whoever runs pingora at work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Users in a hundred who get the canary.
const CANARY_PERCENT: u32 = 10;

/// Where users go, and how many requests each way got.
struct Split {
    live: SocketAddr,
    canary: Option<SocketAddr>,
    requests: [AtomicU64; 2],
}

impl Split {
    /// The user's backend: by a hash (FNV-1a) of the id.
    fn backend(&self, user: &[u8]) -> SocketAddr {
        let hash = user.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        let (backend, count) = match self.canary {
            Some(canary) if hash % 100 < CANARY_PERCENT => (canary, &self.requests[1]),
            _ => (self.live, &self.requests[0]),
        };
        count.fetch_add(1, Ordering::Relaxed);
        backend
    }
}

#[async_trait]
impl ProxyHttp for Split {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let user = session.req_header().headers.get("x-user-id").map_or(&[][..], |value| value.as_bytes());
        let mut peer = HttpPeer::new(self.backend(user), false, String::new());
        peer.options.connection_timeout = Some(Duration::from_millis(250));
        peer.options.read_timeout = Some(Duration::from_secs(2));
        peer.options.write_timeout = Some(Duration::from_secs(2));
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(&self, session: &mut Session, request: &mut RequestHeader, _ctx: &mut ()) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header(
            "X-Forwarded-Proto",
            if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) { "https" } else { "http" },
        )
    }
}

/// As `Cargo.toml` pins it.
const VERSION: &str = "pingora 0.9.1";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--version"] {
        println!("{VERSION}");
        return Ok(());
    }
    let [port, tls_port, cert, key, workers, live, canary @ ..] = arguments.as_slice() else {
        return Error::e_explain(ErrorType::InternalError, "PORT TLS_PORT CERT KEY WORKERS BACKEND [CANARY]");
    };
    let address = |port: &String| port.parse().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    let address = |port| address(port).map_err(|_| Error::explain(ErrorType::InternalError, "a port is a number"));
    let split = Split { live: address(live)?, canary: canary.first().map(address).transpose()?, requests: Default::default() };
    let threads = workers.parse().unwrap_or(1);
    let conf = ServerConf {
        threads,
        // One thread has nobody to take work from.
        work_stealing: threads > 1,
        upstream_keepalive_pool_size: 256,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let mut proxy = ProxyServiceBuilder::new(&server.configuration, split).server_options(options).build();
    proxy.add_tcp(&format!("127.0.0.1:{port}"));
    let mut tls = TlsSettings::intermediate(cert, key)?;
    tls.enable_h2();
    proxy.add_tls_with_settings(&format!("127.0.0.1:{tls_port}"), None, tls);
    server.add_service(proxy);
    server.run_forever()
}
