//! This machine: ports, open files, processors, ONNX Runtime, systemd.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpSocket;

use super::Shared;
use super::admin::Running;
use super::finding::Finding;
use super::run::Check;
use crate::config::Config;
use crate::onnx;

const PART: &str = "system";
/// Files beside connections: logs, plugins, the store, the admin listener.
const OTHER_FILES: u64 = 1_024;
/// With fewer it hardly starts.
const LEAST_FILES: u64 = 256;
/// Where a unit of the router is looked for.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) fn checks(config: &Shared, running: &Running) -> Vec<Check> {
    let listen = &config.listen;
    let addresses =
        [("listen.traffic", Some(listen.traffic)), ("listen.traffic_tls", listen.traffic_tls), ("listen.admin", Some(listen.admin))];
    let mut checks = Vec::new();
    for (key, address) in addresses.into_iter().filter_map(|(key, address)| Some((key, address?))) {
        let pid = running.pid();
        checks.push(Check::new(PART, key, async move { vec![port(key, address, pid)] }));
    }
    let (of_files, pid) = (config.clone(), running.pid());
    checks.push(Check::blocking(PART, "open files", move || vec![open_files(&of_files, pid)]));
    let workers = listen.workers;
    checks.push(Check::blocking(PART, "processors", move || vec![processors(workers)]));
    if config.routes.iter().any(|route| route.validation.judged.is_some()) {
        checks.push(Check::blocking(PART, "ONNX Runtime", || vec![onnx_runtime()]));
    }
    checks.push(Check::blocking(PART, "systemd", || systemd(&UNITS.map(Path::new))));
    checks
}

/// Whether a router could listen there. The address is bound and never listened on, so that nobody's connection is taken.
fn port(key: &str, address: SocketAddr, running: Option<u64>) -> Finding {
    if address.port() == 0 {
        return Finding::ok(PART, key, format!("{address}: a free port is taken"));
    }
    let Err(error) = bind(address) else { return Finding::ok(PART, key, format!("{address}: free")) };
    match (error.kind(), running) {
        (std::io::ErrorKind::AddrInUse, Some(pid)) => Finding::ok(PART, key, format!("{address}: held, and a router runs (pid {pid})")),
        (std::io::ErrorKind::AddrInUse, None) => {
            let to_do = format!("`ss -ltnp 'sport = :{}'` says whose it is: stop that, or name another port", address.port());
            Finding::failed(PART, key, format!("{address}: held, and no router of this config answers at its admin address"), to_do)
        }
        (std::io::ErrorKind::PermissionDenied, _) => {
            let to_do = "let systemd own the socket (docs/OPERATIONS.md), or grant CAP_NET_BIND_SERVICE";
            Finding::failed(PART, key, format!("{address}: a port below 1024 needs rights: {error}"), to_do)
        }
        _ => Finding::failed(PART, key, format!("{address}: {error}"), "name an address that this machine has"),
    }
}

/// As the router does it, but for listening.
fn bind(address: SocketAddr) -> std::io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Of the router that runs, where one does; else of whoever asks.
fn open_files(config: &Config, running: Option<u64>) -> Finding {
    let of_router = running.and_then(|pid| limit_of(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?));
    let (limit, whose) = match of_router {
        Some(limit) => (limit, "the router's"),
        None => (getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), "this shell's"),
    };
    files_for(limit, whose, config.limits.connections as u64)
}

/// The soft limit in what `/proc/PID/limits` says.
fn limit_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// A connection of a client, and one to a backend for it.
fn files_for(limit: u64, whose: &str, connections: u64) -> Finding {
    let needed = connections.saturating_mul(2).saturating_add(OTHER_FILES);
    let shown = if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
    let found = format!("{whose} limit is {shown}, and limits.connections = {connections} may take {needed}");
    let to_do = format!("LimitNOFILE={needed} in the unit, or `ulimit -n {needed}`; or lower limits.connections");
    match limit {
        limit if limit >= needed => Finding::ok(PART, "open files", found),
        // It works until so many come at once, and refuses the rest then.
        limit if limit >= LEAST_FILES => Finding::warning(PART, "open files", found, to_do),
        _ => Finding::failed(PART, "open files", found, to_do),
    }
}

fn processors(workers: usize) -> Finding {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{there} for listen.workers = {workers}");
    if workers > there {
        return Finding::warning(PART, "processors", found, format!("listen.workers = {there}: more take turns, and gain nothing"));
    }
    Finding::ok(PART, "processors", found)
}

fn onnx_runtime() -> Finding {
    match onnx::look() {
        Ok(path) => Finding::ok(PART, "ONNX Runtime", path),
        Err(why) => Finding::failed(PART, "ONNX Runtime", why, "`scripts/fetch_onnxruntime.sh FOLDER`, and ORT_DYLIB_PATH=FOLDER"),
    }
}

/// Nothing where there is no unit: a router needs none.
fn systemd(folders: &[&Path]) -> Vec<Finding> {
    let unit = folders.iter().map(|folder| folder.join("switchback.service")).find(|unit| unit.is_file());
    let Some((unit, text)) = unit.and_then(|unit| Some((unit.clone(), std::fs::read_to_string(unit).ok()?))) else { return Vec::new() };
    let (name, shown) = ("systemd", unit.display());
    let is_there = |word: &str| text.lines().any(|line| line.trim_start().starts_with(word));
    let lacking: Vec<&str> = ["Type=notify", "LimitNOFILE="].into_iter().filter(|word| !is_there(word)).collect();
    if lacking.is_empty() {
        return vec![Finding::ok(PART, name, format!("{shown}: Type=notify, LimitNOFILE is set"))];
    }
    let found = format!("{shown} has no {}", lacking.join(", no "));
    vec![Finding::warning(PART, name, found, "docs/OPERATIONS.md has a unit: without notify systemd does not know when it is up")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn a_port_is_free_or_held_by_the_router_or_by_somebody_else() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let _inside = runtime.enter();
        assert_eq!(port("listen.traffic", address, Some(7)).status, Status::Ok);
        let found = port("listen.traffic", address, None);
        assert!(found.status == Status::Failed && found.to_do.contains("ss -ltnp"), "{found:?}");
        drop(held);
        assert_eq!(port("listen.traffic", address, None).status, Status::Ok);
        assert_eq!(port("listen.traffic", "203.0.113.1:9000".parse().unwrap(), None).status, Status::Failed);
    }

    #[test]
    fn files_are_enough_for_connections_or_not() {
        let status = |limit: u64| files_for(limit, "the router's", 10_000).status;
        assert_eq!(
            [status(u64::MAX), status(21_024), status(11_000), status(1_024), status(128)],
            [Status::Ok, Status::Ok, Status::Warning, Status::Warning, Status::Failed]
        );
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!((limit_of(limits), limit_of("")), (Some(1_024), None));
    }

    #[test]
    fn a_unit_without_notify_is_a_warning_and_no_unit_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(systemd(&[folder.path()]), []);
        let unit = folder.path().join("switchback.service");
        std::fs::write(&unit, "[Service]\nType=simple\nLimitNOFILE=9\n").unwrap();
        assert!(systemd(&[folder.path()])[0].found.ends_with("has no Type=notify"));
        std::fs::write(&unit, "[Service]\nType=notify\nLimitNOFILE=9\n").unwrap();
        assert_eq!(systemd(&[folder.path()])[0].status, Status::Ok);
    }
}
