//! The rounds: every contender of a workload once, then once more in the opposite order, and so on (A B C, C B A). What is compared is what was
//! measured within the same minute.

mod admin;
mod cost;
mod h2load;
mod machine;
mod measure;
mod peer;
mod process;
mod workloads;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::load::{Identity, Pace};
use machine::{Machine, open_many_files, pin};
use measure::{Bench, Measured, start_upstreams};
use peer::Peer;
use workloads::{Contender, Placement, Workload};

/// A contender that failed so often in a workload is left out of its further rounds.
const MOST_FAILURES: usize = 3;

/// What `rounds` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The router's program.
    #[arg(long)]
    switchback: PathBuf,
    /// Where bench/install_peers.sh put what it installed.
    #[arg(long)]
    tools: PathBuf,
    /// Descriptions and configs of the peers.
    #[arg(long, default_value = "bench/peers")]
    peers: PathBuf,
    /// Where runs keep their files. It is made, and stays.
    #[arg(long)]
    work: PathBuf,
    /// Where what was measured is written.
    #[arg(long)]
    out: PathBuf,
    /// Rounds of each workload; 20 or more for a report that is kept.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How long each contender is measured in a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long it is asked before that.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// 3 rounds of 1 s: to see that all is well.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "warm_up"])]
    quick: bool,
    /// Connections of the closed and the open loop.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Connections of the workload `idle`.
    #[arg(long, default_value_t = 10_000)]
    idle_clients: usize,
    /// These workloads alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// These peers alone, by their folders, and `straight`.
    #[arg(long, value_delimiter = ',')]
    against: Vec<String>,
    /// The peer's processor.
    #[arg(long, default_value = "0")]
    peer_cpu: String,
    /// That of the load generator and the upstreams.
    #[arg(long, default_value = "1")]
    load_cpu: String,
}

impl Options {
    fn pace(&self) -> Result<Pace> {
        let (warm_up, measured) = if self.quick { (0.3, 1.0) } else { (self.warm_up, self.seconds) };
        Ok(Pace { warm_up: Duration::try_from_secs_f64(warm_up)?, measured: Duration::try_from_secs_f64(measured)? })
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { self.rounds }
    }

    fn is_wanted(&self, contender: &Contender) -> bool {
        let name = if contender.peer.is_empty() { "straight" } else { contender.peer };
        self.against.is_empty() || self.against.iter().any(|wanted| wanted == name)
    }
}

/// All that was measured, as it is written.
#[derive(Serialize)]
struct Record {
    machine: Machine,
    rounds: usize,
    seconds: f64,
    warm_up: f64,
    connections: usize,
    idle_clients: usize,
    /// By peer.
    versions: BTreeMap<String, String>,
    /// By peer: whether it counts what each arm got.
    arms: BTreeMap<String, String>,
    left_out: Vec<LeftOut>,
    workloads: Vec<Table>,
}

/// What could not be measured, and why.
#[derive(Debug, Clone, Serialize)]
struct LeftOut {
    workload: String,
    contender: String,
    why: String,
}

#[derive(Serialize)]
struct Table {
    name: &'static str,
    title: &'static str,
    is_realtime: bool,
    is_together: bool,
    contenders: Vec<&'static str>,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    round: usize,
    contender: &'static str,
    measured: Measured,
}

/// Measures, and writes what was measured after each workload.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted: Vec<Workload> = workloads::all()
        .into_iter()
        .filter(|workload| options.only.is_empty() || options.only.iter().any(|name| name == workload.name))
        .collect();
    if let Some(unknown) = options.only.iter().find(|name| !wanted.iter().any(|workload| workload.name == **name)) {
        let names: Vec<&str> = workloads::all().iter().map(|workload| workload.name).collect();
        bail!("no workload {unknown}; there are {}", names.join(", "));
    }
    fs::create_dir_all(&options.work).with_context(|| format!("making {}", options.work.display()))?;
    let options = &Options {
        work: options.work.canonicalize()?,
        switchback: absolute(&options.switchback)?,
        tools: absolute(&options.tools)?,
        ..options.clone()
    };
    open_many_files()?;
    let identity = Identity::make(&options.work)?;
    let upstreams = start_upstreams(&options.work, &options.load_cpu)?;
    let bench = Bench { options, upstreams, identity, work: options.work.clone() };
    let pace = options.pace()?;
    let mut record = Record {
        machine: Machine::look(),
        rounds: options.rounds(),
        seconds: pace.measured.as_secs_f64(),
        warm_up: pace.warm_up.as_secs_f64(),
        connections: options.connections,
        idle_clients: options.idle_clients,
        versions: BTreeMap::new(),
        arms: BTreeMap::new(),
        left_out: Vec::new(),
        workloads: Vec::new(),
    };
    for workload in &wanted {
        let table = measure_workload(&bench, workload, &mut record)?;
        record.workloads.push(table);
        fs::write(&options.out, serde_json::to_vec(&record)?).with_context(|| format!("writing {}", options.out.display()))?;
    }
    Ok(())
}

/// A path that holds in another folder too; one that is not there stays as it is.
fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

fn measure_workload(bench: &Bench, workload: &Workload, record: &mut Record) -> Result<Table> {
    let contenders = who_can(bench, workload, record);
    let labels = contenders.iter().map(|contender| contender.label).collect();
    let mut failures: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut runs = Vec::new();
    match workload.placement {
        Placement::Apart => pin(&bench.options.load_cpu)?,
        Placement::Together => pin(&format!("{},{}", bench.options.peer_cpu, bench.options.load_cpu))?,
    }
    for round in 0..bench.options.rounds() {
        let mut order = contenders.clone();
        if !round.is_multiple_of(2) {
            order.reverse();
        }
        for contender in order {
            let failed = failures.entry(contender.label).or_default();
            if failed.len() >= MOST_FAILURES {
                continue;
            }
            let began = Instant::now();
            match bench.measure(workload, &contender) {
                Ok(measured) => {
                    say(&line(workload, round, &contender, &measured, began.elapsed()));
                    runs.push(Run { round, contender: contender.label, measured });
                }
                Err(error) => {
                    say(&format!("{} round {}: {} failed: {error:#}", workload.name, round + 1, contender.label));
                    failed.push(format!("{error:#}"));
                }
            }
        }
    }
    for (contender, reasons) in failures {
        if let Some(why) = reasons.last() {
            let why = format!("failed in {} of {} rounds: {why}", reasons.len(), bench.options.rounds());
            record.left_out.push(LeftOut { workload: workload.name.to_owned(), contender: contender.to_owned(), why });
        }
    }
    let is_together = workload.placement == Placement::Together;
    Ok(Table { name: workload.name, title: workload.title, is_realtime: workload.is_realtime, is_together, contenders: labels, runs })
}

/// The contenders that can be measured here; the others are noted, with the reason.
fn who_can(bench: &Bench, workload: &Workload, record: &mut Record) -> Vec<Contender> {
    let mut able = Vec::new();
    for contender in workload.contenders.iter().filter(|contender| bench.options.is_wanted(contender)) {
        match bench.look_at(contender) {
            Ok(version) => {
                if let Ok(peer) = Peer::read(&bench.options.peers.join(contender.peer)) {
                    record.versions.insert(contender.peer.to_owned(), version);
                    record.arms.insert(contender.peer.to_owned(), peer.arms);
                }
                able.push(contender.clone());
            }
            Err(error) => {
                let why = format!("{error:#}");
                say(&format!("{}: LEFT OUT: {}: {why}", workload.name, contender.label));
                record.left_out.push(LeftOut { workload: workload.name.to_owned(), contender: contender.label.to_owned(), why });
            }
        }
    }
    able
}

fn line(workload: &Workload, round: usize, contender: &Contender, measured: &Measured, took: Duration) -> String {
    let cost = measured.cpu_us.map(|cost| format!("{cost:.1} us, ")).unwrap_or_default();
    let latency = measured.load.latency.as_ref().map(|latency| format!(", p50 {:.0} us, p99 {:.0} us", latency.p50_us, latency.p99_us));
    let memory = measured.memory.map(|memory| format!(", {} MiB", memory.pss_kib / 1024)).unwrap_or_default();
    let failures = measured.load.failures() + measured.load.unsent;
    let failures = if failures > 0 { format!(", {failures} FAILED OR UNSENT") } else { String::new() };
    format!(
        "{} round {}: {}: {cost}{:.0} a second{}{memory}{failures} ({:.1} s)",
        workload.name,
        round + 1,
        contender.label,
        measured.per_second,
        latency.unwrap_or_default(),
        took.as_secs_f64()
    )
}

fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
