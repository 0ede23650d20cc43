//! Where and when it was measured, for the report, and real-time priority.

use std::path::Path;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::process::said_by;

/// Real-time priority of everybody in a latency workload. The lowest but one: the kernel's own threads stay above.
const PRIORITY: &str = "10";

/// The machine and the moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) commit: String,
    pub(crate) load_average: String,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let said = |program: &str, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
            said_by(Path::new(program), &arguments).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            date: said("date", &["-u", "+%Y-%m-%d"]),
            kernel: said("uname", &["-sr"]),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            // Not those that this thread may use.
            cores: processors.lines().filter(|line| line.starts_with("processor")).count(),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            load_average: load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// Numbers of processors as taskset has them: `0`, or `0,1`.
fn numbers(processors: &str) -> Result<Vec<usize>> {
    match processors.split(',').map(str::parse).collect() {
        Ok(numbers) => Ok(numbers),
        Err(_) => bail!("{processors}: must be numbers of processors, like 0 or 0,1"),
    }
}

/// Keeps this thread, and what it starts from now on, to these processors.
pub(crate) fn pin(processors: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for number in numbers(processors)? {
        set.set(number);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets this program, and what it starts, have as many files open as it may.
pub(crate) fn open_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Gives every thread of these processes real-time priority, or takes it back.
pub(crate) fn realtime(processes: &[u32], is_on: bool) -> Result<()> {
    let (class, priority) = if is_on { ("-r", PRIORITY) } else { ("-o", "0") };
    for process in processes {
        let arguments = ["-a", class, "-p", priority, &process.to_string()].map(str::to_owned);
        said_by(Path::new("chrt"), &arguments)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers() {
        assert_eq!(numbers("0,1").unwrap(), [0, 1]);
        assert!(numbers("first").is_err());
    }
}
