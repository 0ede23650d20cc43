//! The rounds: every contender of a workload once, then once more in the opposite order, and so on (A B C, C B A). What is compared is what was
//! measured within the same seconds.

mod admin;
mod cost;
mod h2load;
mod machine;
mod measure;
mod peer;
mod process;
mod program;
mod record;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Write, stderr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::failure::{nothing, usage};
use crate::load::{Identity, Pace};
use machine::{check_processors, open_many_files, overlap, pin};
use measure::{Bench, Measured, Running, start_upstreams};
use peer::Peer;
use program::Program;
use record::{Record, Run, Table};
use workloads::{Contender, Load, Placement, Workload};

/// A contender that failed so often in a workload is left out of its further rounds.
const MOST_FAILURES: usize = 3;
/// No run takes longer than a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Why contenders failed, by label.
type Failures = BTreeMap<&'static str, Vec<String>>;

/// What `rounds` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The router's program.
    #[arg(long)]
    switchback: PathBuf,
    /// The router's program as it is built without a profile of the load and without fat LTO (target/release/switchback), to be measured beside it.
    #[arg(long)]
    unprofiled: Option<PathBuf>,
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
    /// How often each contender of a workload is started and measured: 20, or 3 with --quick. 20 or more for a report that is kept.
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// How many seconds each contender is measured each time: 2, or 1 with --quick. Closed loops cut them in four, with those of the others between.
    #[arg(long, value_parser = some_seconds)]
    seconds: Option<Duration>,
    /// How many seconds it is asked before that: 0.5, or 0.3 with --quick.
    #[arg(long, value_parser = seconds)]
    warm_up: Option<Duration>,
    /// Fewer and shorter rounds where nothing else is said, to see that all is well.
    #[arg(long)]
    quick: bool,
    /// Connections of the closed and the open loop.
    #[arg(long, default_value = "64")]
    connections: NonZeroUsize,
    /// Connections of the workload `idle`.
    #[arg(long, default_value = "10000")]
    idle_clients: NonZeroUsize,
    /// Looks at the options, and measures nothing.
    #[arg(long)]
    check: bool,
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
    fn pace(&self) -> Pace {
        let (warm_up, measured) = if self.quick { (300, 1_000) } else { (500, 2_000) };
        Pace {
            warm_up: self.warm_up.unwrap_or(Duration::from_millis(warm_up)),
            measured: self.seconds.unwrap_or(Duration::from_millis(measured)),
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 3 } else { 20 }, NonZeroUsize::get)
    }

    fn is_wanted(&self, contender: &Contender) -> bool {
        self.against.is_empty() || self.against.iter().any(|wanted| wanted == folder(contender))
    }
}

/// Measures, and writes what was measured after each round. An error where a workload says nothing, after all of them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = asked_for(options)?;
    for (option, processors) in [("--peer-cpu", &options.peer_cpu), ("--load-cpu", &options.load_cpu)] {
        check_processors(processors).map_err(|error| usage(format!("{option} {processors}: {error:#}")))?;
    }
    if overlap(&options.peer_cpu, &options.load_cpu)? {
        return Err(usage(format!(
            "--peer-cpu {} and --load-cpu {}: the peer has to have its processor for itself",
            options.peer_cpu, options.load_cpu
        )));
    }
    if !options.peers.is_dir() {
        return Err(usage(format!("--peers {}: there is no such folder", options.peers.display())));
    }
    if options.check {
        return Ok(());
    }
    let program = Program::look(&options.switchback)?;
    if let Some(unprofiled) = &options.unprofiled {
        Program::look(unprofiled)?;
    }
    say(&program.line());
    fs::create_dir_all(&options.work).with_context(|| format!("making {}", options.work.display()))?;
    let options = &Options {
        work: options.work.canonicalize()?,
        switchback: absolute(&options.switchback)?,
        tools: absolute(&options.tools)?,
        unprofiled: options.unprofiled.as_deref().map(absolute).transpose()?,
        ..options.clone()
    };
    open_many_files()?;
    let identity = Identity::make(&options.work)?;
    let upstreams = start_upstreams(&options.work, &options.load_cpu)?;
    let bench = Bench { options, upstreams, identity, work: options.work.clone() };
    let mut record = Record::new(options, program);
    // Where it cannot be written, that is known before anything is measured.
    record.write(&options.out)?;
    let mut empty = Vec::new();
    for workload in &wanted {
        let why = measure_workload(&bench, workload, &mut record)?;
        empty.extend(why.map(|why| format!("{}: {why}", workload.name)));
    }
    if empty.is_empty() {
        return Ok(());
    }
    Err(nothing(format!("{}. What was measured is in {}", empty.join("; "), options.out.display())))
}

/// The workloads that are asked for, with the contenders that are.
fn asked_for(options: &Options) -> Result<Vec<Workload>> {
    let mut wanted = workloads::all();
    known("--only", &options.only, wanted.iter().map(|workload| workload.name))?;
    known("--against", &options.against, wanted.iter().flat_map(|workload| &workload.contenders).map(folder))?;
    wanted.retain(|workload| options.only.is_empty() || options.only.iter().any(|name| name == workload.name));
    for workload in &mut wanted {
        workload.contenders.retain(|contender| options.is_wanted(contender));
    }
    wanted.retain(|workload| {
        if workload.contenders.is_empty() {
            say(&format!("{}: nobody of --against is in it", workload.name));
        }
        !workload.contenders.is_empty()
    });
    if wanted.is_empty() {
        return Err(usage("nobody of --against is in a workload of --only".to_owned()));
    }
    Ok(wanted)
}

/// Refuses a name that is not among those that there are.
fn known(option: &str, asked: &[String], names: impl Iterator<Item = &'static str>) -> Result<()> {
    let names: BTreeSet<&str> = names.collect();
    match asked.iter().find(|name| !names.contains(name.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<&str> = names.into_iter().collect();
            Err(usage(format!("{option}: there is no {unknown:?}, there are {}", names.join(", "))))
        }
    }
}

/// What a contender is called in `--against`.
fn folder(contender: &Contender) -> &'static str {
    if contender.peer.is_empty() { "straight" } else { contender.peer }
}

/// Seconds as an option has them: from 0 to those of a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| *seconds <= LONGEST).ok_or_else(|| format!("must be a number from 0 to {}", LONGEST.as_secs()))
}

/// The same, and not 0.
fn some_seconds(text: &str) -> Result<Duration, String> {
    let seconds = seconds(text)?;
    if seconds.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(seconds) }
}

/// A path that holds in another folder too; one that is not there stays as it is.
fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

/// Measures a workload. Answers why it says nothing, where it does not.
fn measure_workload(bench: &Bench, workload: &Workload, record: &mut Record) -> Result<Option<&'static str>> {
    let contenders = who_can(bench, workload, record);
    record.workloads.push(Table::new(workload, &contenders));
    match workload.placement {
        Placement::Apart => pin(&bench.options.load_cpu)?,
        Placement::Together => pin(&format!("{},{}", bench.options.peer_cpu, bench.options.load_cpu))?,
    }
    let mut failures = Failures::new();
    let mut answered = Vec::new();
    for round in 0..bench.options.rounds() {
        let runs = measure_round(bench, workload, round, &contenders, &mut failures);
        answered.extend(runs.iter().filter(|run| run.measured.load.answers > 0).map(|run| run.contender));
        if let Some(table) = record.workloads.last_mut() {
            table.runs.extend(runs);
        }
        record.write(&bench.options.out)?;
    }
    for (contender, reasons) in failures {
        if let Some(why) = reasons.last() {
            let why = format!("failed in {} of {} rounds: {why}", reasons.len(), bench.options.rounds() * workload.turns() as usize);
            record.leave_out(workload, contender, why);
        }
    }
    record.write(&bench.options.out)?;
    Ok(says_nothing(&workload.contenders, &answered))
}

/// Measures each contender once, or as often as there are turns: they run side by side then, and are asked one after the other.
fn measure_round(bench: &Bench, workload: &Workload, round: usize, contenders: &[Contender], failures: &mut Failures) -> Vec<Run> {
    let turns = workload.turns() as usize;
    let mut order: Vec<(&Contender, Option<Running>)> = contenders.iter().map(|contender| (contender, None)).collect();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    let mut runs = Vec::new();
    for round in round * turns..(round + 1) * turns {
        for (contender, running) in &mut order {
            let failed = failures.entry(contender.label).or_default();
            if failed.len() >= MOST_FAILURES {
                continue;
            }
            let began = Instant::now();
            match bench.measure(workload, contender, running) {
                Ok(measured) => {
                    say(&line(workload, round, contender, &measured, began.elapsed()));
                    runs.push(Run { round, contender: contender.label, measured });
                }
                Err(error) => {
                    say(&format!("{} round {}: {} failed: {error:#}", workload.name, round + 1, contender.label));
                    failed.push(format!("{error:#}"));
                }
            }
            if turns == 1 {
                *running = None;
            }
        }
        order.reverse();
    }
    runs
}

/// Why a workload says nothing, where that is so: of those that were asked for nobody answered, or the router did not in any form.
fn says_nothing(asked_for: &[Contender], answered: &[&str]) -> Option<&'static str> {
    let mut routers = asked_for.iter().filter(|contender| contender.peer == "switchback").peekable();
    if answered.is_empty() {
        Some("nobody answered")
    } else if routers.peek().is_some() && !routers.any(|router| answered.contains(&router.label)) {
        Some("the router never answered")
    } else {
        None
    }
}

/// The contenders that can be measured here; the others are noted, with the reason.
fn who_can(bench: &Bench, workload: &Workload, record: &mut Record) -> Vec<Contender> {
    let mut able = Vec::new();
    for contender in &workload.contenders {
        match bench.look_at(contender) {
            Ok(version) => {
                if let Ok(peer) = Peer::read(&bench.options.peers.join(contender.peer)) {
                    record.versions.insert(contender.peer.to_owned(), version);
                    record.arms.insert(contender.peer.to_owned(), peer.arms);
                }
                if matches!(workload.load_of(contender), Load::Http2) {
                    record.versions.insert("h2load".to_owned(), h2load::version());
                }
                able.push(contender.clone());
            }
            Err(error) => {
                let why = format!("{error:#}");
                say(&format!("{}: LEFT OUT: {}: {why}", workload.name, contender.label));
                record.leave_out(workload, contender.label, why);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::failure::exit_code;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(more: &[&str]) -> Option<Options> {
        let needed = ["rounds", "--switchback", "s", "--tools", "t", "--work", "w", "--out", "o"];
        Line::try_parse_from(needed.iter().chain(more)).ok().map(|line| line.options)
    }

    #[test]
    fn what_is_nothing_or_no_number_is_refused() {
        for value in ["0", "-1", "NaN", "inf", "1e300", "x", ""] {
            for option in ["--rounds", "--seconds", "--connections", "--idle-clients"] {
                assert!(options(&[&format!("{option}={value}")]).is_none(), "{option} {value}");
            }
        }
        assert!(options(&["--warm-up=NaN"]).is_none());
        assert!(options(&["--warm-up=0", "--seconds=0.1", "--rounds=1", "--connections=1"]).is_some());
    }

    #[test]
    fn what_is_said_wins_over_quick() {
        let quick = options(&["--quick"]).unwrap();
        assert_eq!((quick.rounds(), quick.pace().measured), (3, Duration::from_secs(1)));
        let said = options(&["--quick", "--rounds", "5", "--seconds", "0.5"]).unwrap();
        assert_eq!((said.rounds(), said.pace().measured), (5, Duration::from_millis(500)));
        assert_eq!(said.pace().warm_up, quick.pace().warm_up);
        let usual = options(&[]).unwrap();
        assert_eq!((usual.rounds(), usual.pace().measured), (20, Duration::from_secs(2)));
    }

    #[test]
    fn names_that_nobody_has_are_refused_with_those_that_there_are() {
        for (more, known) in [(["--only", "get,gut"], "split"), (["--against", "ngnix"], "nginx"), (["--against", "straigth"], "straight")]
        {
            let error = asked_for(&options(&more).unwrap()).unwrap_err();
            assert_eq!(exit_code(&error), 64);
            assert!(error.to_string().contains(known), "{error}");
        }
    }

    #[test]
    fn contenders_that_nobody_asked_for_are_not_in_a_workload() {
        let wanted = asked_for(&options(&["--only", "get,tls", "--against", "floor,nginx"]).unwrap()).unwrap();
        let labels: Vec<Vec<&str>> =
            wanted.iter().map(|workload| workload.contenders.iter().map(|contender| contender.label).collect()).collect();
        assert_eq!(labels, [vec!["floor", "nginx"], vec!["nginx"]]);
        // Nobody is left.
        let error = asked_for(&options(&["--only", "tls", "--against", "floor"]).unwrap()).unwrap_err();
        assert_eq!(exit_code(&error), 64);
    }

    #[test]
    fn a_workload_says_nothing_without_answers_or_without_the_router() {
        let all = asked_for(&options(&["--only", "get"]).unwrap()).unwrap().remove(0).contenders;
        assert!(says_nothing(&all, &[]).is_some());
        assert!(says_nothing(&all, &["floor", "nginx"]).is_some());
        assert!(says_nothing(&all, &["nginx", "switchback again"]).is_none());
        let others = asked_for(&options(&["--only", "get", "--against", "nginx"]).unwrap()).unwrap().remove(0).contenders;
        assert!(says_nothing(&others, &["nginx"]).is_none());
    }
}
