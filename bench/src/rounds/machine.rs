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
    /// What TCP's congestion control is, which everybody pays for.
    pub(crate) congestion_control: String,
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
            congestion_control: std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
                .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned()),
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

/// Whether two sets of processors have one in common.
pub(crate) fn overlap(one: &str, other: &str) -> Result<bool> {
    let others = numbers(other)?;
    Ok(numbers(one)?.iter().any(|number| others.contains(number)))
}

/// Keeps this thread, and what it starts from now on, to these processors.
pub(crate) fn pin(processors: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for number in numbers(processors)? {
        if number >= CpuSet::MAX_CPU {
            bail!("{number}: no machine has so many processors");
        }
        set.set(number);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Refuses processors that are not there, or that this program may not use. It tries each: this thread stays on the last one.
pub(crate) fn check_processors(processors: &str) -> Result<()> {
    for number in numbers(processors)? {
        if pin(&number.to_string()).is_err() {
            bail!("there is no processor {number} that this program may use");
        }
    }
    Ok(())
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
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn processors_are_numbers() {
        assert_eq!(numbers("0,1").unwrap(), [0, 1]);
        assert!(numbers("first").is_err());
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        for processors in ["1000", "100000", "", "0,1000"] {
            assert!(check_processors(processors).is_err(), "{processors}");
        }
        let mine = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&number| mine.is_set(number)).unwrap();
        check_processors(&first.to_string()).unwrap();
    }
}
