//! Where the figures of a report come from.

use std::process::Command;

/// The day, the commit and the machine of this run, for the head of a report that is kept.
pub fn provenance() -> String {
    let date = said_by("date", &["-u", "+%Y-%m-%d"]);
    let commit = said_by("git", &["rev-parse", "--short", "HEAD"]);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().unwrap();
    format!("{date}, commit {commit}, {cores} x {model}, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
