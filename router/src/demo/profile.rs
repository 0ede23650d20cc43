//! The router's config: as an operator would write it, but for steps that take seconds.

use std::net::SocketAddr;
use std::path::Path;

use super::record::POOLS;

/// A rollout of seconds, in two steps: gates that are wide enough to be passed after some hundred queries. All processes share this machine's cores, and wait
/// for each other: differences of latency below a second are the machine's, and not a model's. For the same reason a validation takes no model for slow that
/// scores 100 documents in 1.5 ms.
const PROFILE: &str = r#"rollout = { steps = ["10", "50"], holdback_percent = "10", bake = "3s" }
rollback_config = { min_samples = 100, min_dwell_seconds = 2, errors = { margin = 0.05, last_margin = 0.05 }, latency = { ignore_below_ms = 1000, margin = 0.2, last_margin = 0.2 }, metrics = { clicks = { relative_margin = 0.2, last_relative_margin = 0.2 } } }
validation = { latency_floor = "1500us" }
loading = { model = "search", poll_every = "50ms" }
"#;

/// Where a registry is: a folder below the demo's.
pub(super) fn registry_url(folder: &Path) -> String {
    format!("file://{}", folder.join("registry").display())
}

/// Ports that are given out by the system, quick health checks, and clicks that are mature after 3 s: the demo's users do not hesitate.
pub(super) fn router_config(folder: &Path, rankers: &[SocketAddr; 3], receiver: SocketAddr) -> String {
    let (data, registry) = (folder.join("data").display().to_string(), registry_url(folder));
    let mut text = format!(
        "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\n[state]\ndata_dir = {data:?}\n\n[registry]\nurl = {registry:?}\n\n\
         [evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"3s\"\n\n\
         [[notify]]\nname = \"demo\"\nurl = \"http://{receiver}/\"\n\n\
         [[route]]\nname = \"search\"\nmatch = {{ path_prefix = \"/\" }}\nunit = [\"header:x-user-id\", \"client-address\"]\n\
         expose = [\"pool\"]\nsplit_policy = \"split-weighted\"\n{PROFILE}"
    );
    for (pool, address) in POOLS.iter().zip(rankers) {
        let pool = format!(
            "\n[route.pools.{pool}]\nendpoints = [\"http://{address}\"]\nversion = \"search:1\"\nhealth = {{ interval = \"250ms\" }}\n"
        );
        text.push_str(&pool);
    }
    text
}
