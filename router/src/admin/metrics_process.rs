//! The part of `/metrics` that is about this process and its config: reloads, and the workers' connections.

use super::AdminState;
use super::exposition::Exposition;
use crate::serve::Spoken;

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    let reloads = &state.process.reloads;
    page.family(
        "switchback_config_generation",
        "gauge",
        "Counts what this process has had in force, from 1: each reload, and each change of a pool's version by the flags.",
    );
    page.count(&[], state.generation);
    page.family("switchback_config_reloads_total", "counter", "Reloads of the config, by what became of them.");
    page.count(&[("result", "applied")], reloads.applied());
    page.count(&[("result", "refused")], reloads.refused());
    page.family(
        "switchback_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the config in force was loaded, in seconds since 1970.",
    );
    page.gauge(&[], reloads.last_success_unix_ms() as f64 / 1e3);
    page.family("switchback_config_keys_waiting_for_restart", "gauge", "Keys of the config file that only a restart brings about.");
    page.count(&[], state.waiting.len() as u64);
    page.family("switchback_log_lines_dropped_total", "counter", "Log lines that were dropped, since nobody read those before them.");
    page.count(&[], state.process.dropped_log_lines.dropped_lines() as u64);
    page.family("switchback_worker_connections", "gauge", "Open client connections of each worker, by what they speak.");
    for (worker, connections) in state.process.connections.iter().enumerate() {
        let worker = worker.to_string();
        for spoken in Spoken::ALL {
            page.count(&[("worker", &worker), ("protocol", spoken.label())], connections.count(spoken) as u64);
        }
    }
}
