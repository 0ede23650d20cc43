//! What processes cost: time on a processor and memory, read from /proc for a process and all that came of it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

/// What a tree of processes holds, in KiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident, what they share counted once for each.
    pub(crate) rss_kib: u64,
    /// Resident, what they share counted once in all.
    pub(crate) pss_kib: u64,
    /// Of that, what no file holds: heap, stacks, what was written.
    pub(crate) anonymous_kib: u64,
}

/// A process, its children, their children.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (process, parent) in processes() {
        children.entry(parent).or_default().push(process);
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let more = children.remove(process).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found
}

/// Every process with its parent.
fn processes() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|process: u32| Some((process, parent_of(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?))).collect()
}

/// The fourth field of `stat`; the second one, in brackets, may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Time on a processor of every thread of these processes since it began. Threads that have ended are not in it.
pub(crate) fn processor_time(processes: &[u32]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for process in processes {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            nanoseconds += text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0_u64);
        }
    }
    if nanoseconds == 0 {
        bail!("no time in schedstat: the processes are gone, or the kernel keeps none");
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The same of everybody else on the machine, the kernel's own threads among them. Of a loop that is due at even times the kernel's ticks (`/proc/stat`) hit
/// always the same moment: they are no measure of it.
pub(crate) fn time_of_others(these: &[u32]) -> Duration {
    let others: Vec<u32> = processes().into_iter().map(|(process, _)| process).filter(|process| !these.contains(process)).collect();
    processor_time(&others).unwrap_or_default()
}

/// Memory of these processes. Nothing where that of one of them cannot be read: what is left is not what they hold.
pub(crate) fn memory(processes: &[u32]) -> Option<Memory> {
    let mut memory = Memory::default();
    for process in processes {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        memory.rss_kib += kib(&rollup, "Rss:")?;
        memory.pss_kib += kib(&rollup, "Pss:")?;
        memory.anonymous_kib += kib(&rollup, "Pss_Anon:")?;
    }
    Some(memory)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_of("12 (a ) b) S 7 12 12 0"), Some(7));
    }

    #[test]
    fn others_are_all_but_these() {
        let (mine, all) = (processor_time(&[std::process::id()]).unwrap(), time_of_others(&[]));
        assert!(all >= mine, "{all:?} {mine:?}");
        let everybody: Vec<u32> = processes().into_iter().map(|(process, _)| process).collect();
        assert!(time_of_others(&everybody) < all);
    }

    #[test]
    fn this_process_costs_something() {
        let tree = tree(std::process::id());
        assert!(tree.contains(&std::process::id()));
        assert!(processor_time(&tree).unwrap() > Duration::ZERO);
    }

    #[test]
    fn memory_that_cannot_be_read_is_unknown() {
        let this = std::process::id();
        let mine = memory(&[this]).unwrap();
        assert!(mine.pss_kib > mine.anonymous_kib && mine.anonymous_kib > 0, "{mine:?}");
        assert!(memory(&[this, u32::MAX]).is_none());
        assert_eq!(kib("Rss:    12 kB\n", "Rss:"), Some(12));
        assert_eq!(kib("Rss:    12 kB\n", "Pss:"), None);
    }
}
