//! What a router calls itself, and random names.

use crate::config::Config;

/// The configured id, else host name and traffic port; with a port that the system picks, the process and a random part instead.
pub(crate) fn router_id(config: &Config) -> String {
    if let Some(id) = &config.state.router_id {
        return id.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    let host = host.map_or_else(|_| "router".to_owned(), |host| host.trim().to_owned());
    match config.listen.traffic.port() {
        0 => format!("{host}:{}-{}", std::process::id(), random_hex(3)),
        port => format!("{host}:{port}"),
    }
}

/// So many random bytes as hex, from a generator fit for secrets.
pub(crate) fn random_hex(bytes: usize) -> String {
    let random: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    hex::encode(random)
}

/// What tells this process from every other: 64 random bits.
pub(crate) fn random_id() -> String {
    random_hex(8)
}
