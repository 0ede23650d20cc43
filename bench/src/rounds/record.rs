//! What was measured, as it is written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::machine::Machine;
use super::measure::Measured;
use super::program::Program;
use super::workloads::{Contender, Placement, Workload};

/// All that was measured.
#[derive(Serialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) program: Program,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) connections: usize,
    pub(crate) idle_clients: usize,
    /// By peer.
    pub(crate) versions: BTreeMap<String, String>,
    /// By peer: whether it counts what each arm got.
    pub(crate) arms: BTreeMap<String, String>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) workloads: Vec<Table>,
}

/// What could not be measured, and why.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) workload: String,
    pub(crate) contender: String,
    pub(crate) why: String,
}

/// A workload.
#[derive(Serialize)]
pub(crate) struct Table {
    name: &'static str,
    title: &'static str,
    is_realtime: bool,
    is_together: bool,
    /// Rounds for each time that a contender is started.
    turns: u32,
    contenders: Vec<&'static str>,
    pub(crate) runs: Vec<Run>,
}

/// A contender in a round.
#[derive(Serialize)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) contender: &'static str,
    pub(crate) measured: Measured,
}

impl Record {
    /// Nothing yet.
    pub(crate) fn new(options: &Options, program: Program) -> Record {
        let pace = options.pace();
        Record {
            machine: Machine::look(),
            program,
            rounds: options.rounds(),
            seconds: pace.measured.as_secs_f64(),
            warm_up: pace.warm_up.as_secs_f64(),
            connections: options.connections.get(),
            idle_clients: options.idle_clients.get(),
            versions: BTreeMap::new(),
            arms: BTreeMap::new(),
            left_out: Vec::new(),
            workloads: Vec::new(),
        }
    }

    pub(crate) fn leave_out(&mut self, workload: &Workload, contender: &str, why: String) {
        self.left_out.push(LeftOut { workload: workload.name.to_owned(), contender: contender.to_owned(), why });
    }

    /// Writes all of it.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        replace(out, &serde_json::to_vec(self)?).with_context(|| format!("writing {}", out.display()))
    }
}

impl Table {
    /// Without a run.
    pub(crate) fn new(workload: &Workload, contenders: &[Contender]) -> Table {
        Table {
            name: workload.name,
            title: workload.title,
            is_realtime: workload.is_realtime,
            is_together: workload.placement == Placement::Together,
            turns: workload.turns(),
            contenders: contenders.iter().map(|contender| contender.label).collect(),
            runs: Vec::new(),
        }
    }
}

/// Writes a file beside the old one, and then puts it in its place: half a file replaces nothing.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut new = File::create(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("switchback-bench-record-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("bench.json");
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        // The new file cannot be written.
        fs::create_dir(folder.join("bench.json.new")).unwrap();
        assert!(replace(&file, b"three").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
