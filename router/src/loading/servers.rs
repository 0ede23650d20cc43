//! Where the servers of a pool are, and how they are spoken to.

use std::sync::OnceLock;
use std::time::Duration;

use model_servers::Filling;

use super::{Load, Trouble};
use crate::config::Pool;
use crate::tls::ClientTls;

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// `http://host:port` of every server: a name in the clear stands for all its addresses, as it does for queries. One with a certificate keeps its
/// name, which the certificate is for. Where an endpoint is no model server, `server_url` says where its server is.
pub(super) async fn of(load: &Load) -> Result<Vec<String>, Trouble> {
    of_pool(load, &load.pool).await
}

/// The same of another pool of the route.
pub(super) async fn of_pool(load: &Load, pool: &Pool) -> Result<Vec<String>, Trouble> {
    let mut servers = Vec::new();
    for endpoint in &pool.endpoints {
        let authority = &endpoint.authority;
        if endpoint.is_tls {
            servers.push(format!("https://{authority}"));
            continue;
        }
        let found = tokio::net::lookup_host(authority.as_str()).await;
        let found = found.map_err(|error| Trouble::Away(format!("{authority}: the name does not resolve: {error}")))?;
        servers.extend(found.map(|address| format!("http://{address}")));
    }
    if let Some(url) = &load.loading.server_url {
        let of = |endpoint: &String| {
            let (model, version, pool, route) = (&load.loading.server_model, load.number, &pool.name, &load.route);
            url.fill(&Filling { endpoint, model, version, pool, route })
        };
        servers = servers.iter().map(of).collect();
    }
    servers.sort_unstable();
    servers.dedup();
    Ok(servers)
}

/// Those that the load is for.
pub(super) async fn asked(load: &Load) -> Result<Vec<String>, Trouble> {
    match &load.only {
        Some(only) => Ok(only.clone()),
        None => of(load).await,
    }
}

/// With the pool's own authorities and certificate. Redirects are not followed.
pub(super) fn client(load: &Load) -> Result<reqwest::Client, Trouble> {
    // Made once for all pools in the clear: it reads the system's certificates, which takes as long as many queries, and servers are asked again and again.
    static PLAIN: OnceLock<reqwest::Client> = OnceLock::new();
    // A client without TLS asks for the provider, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        // A server may be another process each time.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("switchback/", env!("CARGO_PKG_VERSION")));
    let tls = ClientTls::load(&load.route, &load.pool).map_err(|error| Trouble::Away(error.to_string()))?;
    let is_plain = tls.is_none();
    let builder = match tls {
        Some(tls) => {
            let mut config = rustls::ClientConfig::clone(&tls.current());
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            builder.tls_backend_preconfigured(config)
        }
        None if let Some(plain) = PLAIN.get() => return Ok(plain.clone()),
        None => builder,
    };
    let client = builder.build().map_err(|error| Trouble::Away(format!("no client: {error}")))?;
    Ok(if is_plain { PLAIN.get_or_init(|| client).clone() } else { client })
}
