//! The workloads: what is asked, and of whom. The report's order is this one.

use crate::load::Shape;

const TURNS: u32 = 4;

/// How a workload is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// As many requests as the peer takes, on the usual number of connections.
    Closed(Shape),
    /// The same over TLS.
    Tls(Shape),
    /// The same over HTTP/2, by h2load.
    Http2,
    /// One connection, one request after the other.
    One,
    /// So many requests a second, due at even times.
    Open(u32),
    /// Connections that asked once and then stay.
    Idle,
}

/// Which processors are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The peer has one for itself, the load generator and the upstreams have another one.
    Apart,
    /// Everybody may use both.
    Together,
}

/// A peer in a workload.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// What the report calls it; once in a workload.
    pub(crate) label: &'static str,
    /// The folder below `bench/peers`; empty for none at all: the upstream is asked.
    pub(crate) peer: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) workers: u8,
    /// How it is asked, where that is not the workload's way.
    pub(crate) load: Option<Load>,
    /// Flags are flipped and plugins swapped meanwhile.
    pub(crate) is_operated: bool,
}

/// One table of the report.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) placement: Placement,
    /// Everybody runs under real-time priority, so that nothing else of the machine is in the latencies.
    pub(crate) is_realtime: bool,
}

impl Workload {
    /// How a contender is asked.
    pub(crate) fn load_of<'w>(&'w self, contender: &'w Contender) -> &'w Load {
        contender.load.as_ref().unwrap_or(&self.load)
    }

    /// Into how many parts the time of a contender in a round is cut, with those of the others between them. A machine's speed changes within
    /// seconds, so that what is compared has to be measured within less than one. Tails need their time in one piece.
    pub(crate) fn turns(&self) -> u32 {
        // Some are at work while nobody asks them: an operator's, and health checks of 1,000 routes.
        let is_busy = self.contenders.iter().any(|contender| contender.is_operated || contender.variant == "routes");
        let is_cut = matches!(self.load, Load::Closed(_) | Load::Tls(_) | Load::One) && !is_busy;
        if is_cut { TURNS } else { 1 }
    }
}

/// A peer under its own name.
fn peer(name: &'static str, variant: &'static str) -> Contender {
    labelled(name, name, variant)
}

fn labelled(label: &'static str, peer: &'static str, variant: &'static str) -> Contender {
    Contender { label, peer, variant, workers: 1, load: None, is_operated: false }
}

/// The one against itself: what differs between the two is noise.
fn ours(variant: &'static str) -> [Contender; 2] {
    [peer("switchback", variant), labelled("switchback again", "switchback", variant)]
}

/// The router as it is built without knowing the load, beside the one that is shipped.
fn unprofiled(variant: &'static str) -> Contender {
    labelled("switchback without profile", "switchback", variant)
}

fn others(variant: &'static str) -> [Contender; 5] {
    ["nginx", "haproxy", "envoy", "caddy", "pingora"].map(|name| peer(name, variant))
}

fn everybody(variant: &'static str) -> Vec<Contender> {
    [peer("floor", "plain")].into_iter().chain(ours(variant)).chain(others(variant)).collect()
}

/// Everybody, and nobody: what is added is what comes above asking the upstream itself.
fn with_straight(variant: &'static str) -> Vec<Contender> {
    [labelled("straight", "", "")].into_iter().chain(everybody(variant)).collect()
}

fn without_floor(variant: &'static str) -> Vec<Contender> {
    ours(variant).into_iter().chain(others(variant)).collect()
}

fn apart(name: &'static str, title: &'static str, load: Load, contenders: Vec<Contender>) -> Workload {
    Workload { name, title, load, contenders, placement: Placement::Apart, is_realtime: false }
}

/// The split that every proxy has of its own, and the same with a header looked at by a program.
fn policies() -> Vec<Contender> {
    let mut contenders = vec![peer("floor", "plain")];
    contenders.extend(ours("rules"));
    contenders.extend([
        labelled("switchback native", "switchback", "native"),
        labelled("switchback split-weighted", "switchback", "split"),
        labelled("nginx split_clients", "nginx", "split"),
        labelled("nginx Lua", "nginx", "lua"),
        labelled("nginx njs", "nginx", "njs"),
        labelled("haproxy ACL", "haproxy", "split"),
        labelled("haproxy Lua", "haproxy", "lua"),
        labelled("envoy weighted_clusters", "envoy", "split"),
        labelled("envoy Lua", "envoy", "lua"),
        labelled("envoy proxy-wasm", "envoy", "wasm"),
    ]);
    contenders
}

/// The path of a request to route 1,000, and to each in turns.
fn routes() -> Vec<Contender> {
    let hot = Load::Closed(Shape { path: "/r1000/search?q=hello".to_owned(), ..Shape::get() });
    let spread = Load::Closed(Shape { path: "/r{n}/search?q=hello".to_owned(), paths: 1_000, ..Shape::get() });
    let one = |label, peer| Contender { load: Some(hot.clone()), ..labelled(label, peer, "plain") };
    let many = |label, peer| Contender { load: Some(hot.clone()), ..labelled(label, peer, "routes") };
    let in_turns = |label, peer| Contender { load: Some(spread.clone()), ..labelled(label, peer, "routes") };
    vec![
        peer("floor", "plain"),
        one("switchback, 1 route", "switchback"),
        one("switchback again, 1 route", "switchback"),
        many("switchback, 1,000 routes", "switchback"),
        in_turns("switchback, 1,000 routes in turns", "switchback"),
        one("nginx, 1 location", "nginx"),
        many("nginx, 1,000 locations", "nginx"),
        in_turns("nginx, 1,000 locations in turns", "nginx"),
        one("haproxy, 1 backend", "haproxy"),
        many("haproxy, 1,000 backends", "haproxy"),
        in_turns("haproxy, 1,000 backends in turns", "haproxy"),
    ]
}

/// HTTP/2 to the backends, where many requests share a write, beside HTTP/1.1; and from the clients too.
fn upstream_http2() -> Vec<Contender> {
    let mut contenders = vec![labelled("floor, HTTP/1.1", "floor", "plain")];
    contenders.extend(ours("h2-upstream"));
    let both = |label, peer| Contender { load: Some(Load::Http2), ..labelled(label, peer, "h2-upstream") };
    contenders.extend([
        both("switchback, HTTP/2 on both sides", "switchback"),
        labelled("switchback, HTTP/1.1", "switchback", "split"),
        peer("haproxy", "h2-upstream"),
        both("haproxy, HTTP/2 on both sides", "haproxy"),
        labelled("haproxy, HTTP/1.1", "haproxy", "split"),
        peer("envoy", "h2-upstream"),
        labelled("envoy, HTTP/1.1", "envoy", "split"),
    ]);
    contenders
}

fn workers() -> Vec<Contender> {
    let one = labelled("switchback, 1 worker", "switchback", "split");
    let again = labelled("switchback again, 1 worker", "switchback", "split");
    let two = Contender { workers: 2, ..labelled("switchback, 2 workers", "switchback", "split") };
    let nginx = labelled("nginx, 1 worker", "nginx", "split");
    let nginx_two = Contender { workers: 2, ..labelled("nginx, 2 workers", "nginx", "split") };
    vec![peer("floor", "plain"), one, again, two, nginx, nginx_two]
}

fn operations() -> Vec<Contender> {
    let operated = Contender { is_operated: true, ..labelled("switchback, flipped and swapped", "switchback", "split") };
    vec![
        peer("floor", "plain"),
        operated,
        labelled("switchback, left alone", "switchback", "split"),
        labelled("switchback again, left alone", "switchback", "split"),
    ]
}

/// Every workload.
pub(crate) fn all() -> Vec<Workload> {
    let get = Load::Closed(Shape::get());
    let beta = Load::Closed(Shape { beta_every: 20, ..Shape::get() });
    let mut all = vec![
        apart("get", "GET, 1 KB", get.clone(), everybody("plain")),
        apart("split", "Sticky 90/10 split by user", get.clone(), everybody("split")),
        apart("policy", "A programmable policy on headers, beside the split alone", beta, policies()),
        apart("post4", "POST, 4 KB both ways", Load::Closed(Shape::post(4)), everybody("plain")),
        apart("post16", "POST, 16 KB both ways", Load::Closed(Shape::post(16)), everybody("plain")),
        apart("http2", "HTTP/2 in, HTTP/1.1 out, GET 1 KB", Load::Http2, without_floor("plain")),
        apart("h2-upstream", "HTTP/2 to the backends, sticky 90/10 split", get.clone(), upstream_http2()),
        apart("tls", "TLS 1.3 in, GET 1 KB", Load::Tls(Shape::get()), without_floor("plain")),
        apart("one", "One connection, one request after the other", Load::One, with_straight("split")),
        apart("open5", "Open loop, 5,000 requests a second", Load::Open(5_000), with_straight("split")),
        apart("open20", "Open loop, 20,000 requests a second", Load::Open(20_000), with_straight("split")),
        apart("idle", "Idle keep-alive connections", Load::Idle, without_floor("plain")),
        apart("routes", "1,000 routes against 1", get.clone(), routes()),
        apart("workers", "Two workers against one", get.clone(), workers()),
        apart("operations", "Flags flipped and plugins swapped under saturation", get, operations()),
    ];
    let mut realtime =
        apart("open5-rt", "Open loop, 5,000 requests a second, real-time priority", Load::Open(5_000), with_straight("split"));
    realtime.is_realtime = true;
    if let Some(place) = all.iter().position(|workload| workload.name == "open20") {
        all.insert(place, realtime);
    }
    for workload in &mut all {
        let variant = match workload.name {
            "get" | "post4" | "post16" | "http2" | "tls" => "plain-unprofiled",
            "split" => "split-unprofiled",
            _ => continue,
        };
        workload.contenders.push(unprofiled(variant));
    }
    for workload in &mut all {
        if ["workers", "operations"].contains(&workload.name) {
            workload.placement = Placement::Together;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_there_once_and_every_workload_has_its_noise() {
        for workload in all() {
            let mut labels: Vec<&str> = workload.contenders.iter().map(|contender| contender.label).collect();
            assert!(labels.iter().any(|label| label.starts_with("switchback again")), "{}", workload.name);
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), workload.contenders.len(), "{}", workload.name);
        }
    }
}
