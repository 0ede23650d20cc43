//! Who is told of rollouts, and who is asked: whether they can be reached. Nothing is sent.

use std::time::Duration;

use tokio::net::TcpStream;

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::config::NotifyUrl;

const PART: &str = "notify";
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn checks(config: &Shared) -> Vec<Check> {
    let targets = config.notify.iter().map(|target| (format!("notify.{}", target.name), target.url.clone()));
    let gates = config.routes.iter().flat_map(|route| {
        route.rollout.gates.iter().map(move |gate| (format!("route.{}.rollout.gate.{}", route.name, gate.name), gate.url.clone()))
    });
    let one = |(name, url): (String, NotifyUrl)| Check::new(PART, name.clone(), async move { vec![reach(&name, &url).await] });
    targets.chain(gates).map(one).collect()
}

async fn reach(name: &str, url: &NotifyUrl) -> Finding {
    let host = url.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.uri().port_u16().unwrap_or(if url.is_tls() { 443 } else { 80 });
    let to_do = "see that it runs and a firewall lets this machine through; notices wait, and are tried again";
    let addresses: Vec<_> = match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return Finding::failed(PART, name, format!("{url}: its name does not resolve: {error}"), "mend its url, or the resolver");
        }
    };
    match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_)) => Finding::ok(PART, name, format!("{url}: connects")),
        Ok(Err(error)) => Finding::failed(PART, name, format!("{url}: {error}"), to_do),
        Err(_) => Finding::failed(PART, name, format!("{url}: no connection within 5 s"), to_do),
    }
}
