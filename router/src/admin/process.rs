//! What this process takes, under the names that Prometheus' client libraries agreed on. Linux only; elsewhere nothing is said.

use super::exposition::Exposition;

/// Memory in bytes and open file descriptors of this process.
pub(super) fn write(page: &mut Exposition) {
    if let Some(bytes) = resident_bytes() {
        page.family("process_resident_memory_bytes", "gauge", "Memory of this process that is in RAM.");
        page.gauge(&[], bytes);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        page.family("process_open_fds", "gauge", "Open file descriptors.");
        // One of them is the folder that is being read.
        page.count(&[], (entries.count() as u64).saturating_sub(1));
    }
    if let Some(threads) = status_value("Threads:") {
        page.family("process_threads", "gauge", "Threads of this process.");
        page.gauge(&[], threads);
    }
}

fn resident_bytes() -> Option<f64> {
    status_value("VmRSS:").map(|kib| kib * 1024.0)
}

/// A number of `/proc/self/status`, in that file's unit.
fn status_value(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
