//! `switchback policy`: check a plugin before it goes anywhere near traffic, see what its decisions cost, and change or compare those of
//! a running router.

use std::io::IsTerminal;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::failure::complain;
use super::{Failure, plugins, shadow, simulate};
use crate::config::{self, Config};
use crate::policy::bench::{self, Contender, Cost};
use crate::policy::{self, Limits, PolicyEngine, Rejection, Report, Terms, World, admission};

/// Refused: the file is there and is no good policy.
const REFUSED: u8 = 2;
/// Bad usage: no such file, a broken config.
const USAGE: u8 = 64;

/// A line on standard output. A reader that is gone ends the command, as it ends every other.
macro_rules! say {
    ($($text:tt)*) => {
        if let Err(failure) = super::print(&format!("{}\n", format_args!($($text)*))) {
            failure.exit();
        }
    };
}

/// Check, measure and upload plugins, and run one beside the policy in force.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback policy check my-split.wasm\n  switchback policy push my-split.wasm --config switchback.toml\n  \
                        switchback policy shadow search my-split --percent 5 --for 10m --watch"
)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    #[command(
        after_help = "Examples:\n  switchback policy check my-split.wasm\n  switchback policy check my-split.wasm --config switchback.toml --json\n  \
                      switchback policy check split-weighted     # the shipped one"
    )]
    /// Says whether the router would admit a plugin, and why not. Exit code 0: admitted, 2: refused, 64: bad usage.
    Check {
        #[command(flatten)]
        plugin: PluginArgs,
    },
    #[command(
        after_help = "Examples:\n  switchback policy bench my-split.wasm\n  switchback policy bench my-split.wasm --seconds 10 --json"
    )]
    /// Measures nanoseconds per decision or evaluation (p50, p99), with native code beside it.
    Bench {
        #[command(flatten)]
        plugin: PluginArgs,
        /// How long to measure, in seconds: 0.1 to 600.
        #[arg(long, default_value_t = 3.0, value_parser = seconds)]
        seconds: f64,
    },
    #[command(after_help = "Examples:\n  switchback policy push my-split.wasm --config switchback.toml\n  \
                            switchback policy push my-split.wasm --name other --admin http://edge-1:9090 --token-file token")]
    /// Uploads a plugin to a running router. Exit code 0: admitted, 2: refused, with the reason.
    Push(plugins::Push),
    #[command(after_help = "Examples:\n  switchback policy list\n  switchback policy list --json")]
    /// Lists a running router's plugins: name, digest, state, where each is in force.
    List(plugins::List),
    #[command(after_help = "Examples:\n  switchback policy remove my-split\n  switchback policy remove my-split --force")]
    /// Takes a plugin's file out of a running router's folder.
    Remove(plugins::Remove),
    #[command(after_help = "Examples:
  switchback policy shadow search my-split --percent 5 --for 10m --watch
  switchback policy shadow search            # the run under way, or the last one
  switchback policy shadow search --stop")]
    /// Runs a candidate beside the policy in force, on a sample of real queries, and shows how often the two disagree.
    Shadow(shadow::Shadow),
    Simulate(simulate::Simulate),
}

#[derive(Debug, Args)]
struct PluginArgs {
    /// The plugin: a WebAssembly component, or the name of a shipped one where there is no file of that name.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Take the limits, and the routes' `split_config`, from this config instead of the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The policy's own config, JSON, as a route's `split_config` would give it.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    split_config: Option<String>,
    /// A rollback policy's own config, JSON, as a route's `rollback_config` would give it.
    #[arg(long, value_name = "JSON", value_parser = json_object, default_value = "{}")]
    rollback_config: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command; what it prints goes to standard output, reasons for a failure to standard error.
pub(crate) fn run(args: PolicyArgs) -> ExitCode {
    match args.command {
        PolicyCommand::Check { plugin } => check(&plugin),
        PolicyCommand::Bench { plugin, seconds } => measure(&plugin, Duration::from_secs_f64(seconds)),
        PolicyCommand::Push(push) => exit_code(push.json, push.run()),
        PolicyCommand::List(list) => exit_code(list.json, list.run()),
        PolicyCommand::Remove(remove) => exit_code(remove.json, remove.run()),
        // Prints the run also when that failed, and then it is told.
        PolicyCommand::Shadow(shadow) => exit_code(false, shadow.run()),
        PolicyCommand::Simulate(simulate) => exit_code(false, simulate.run()),
    }
}

fn exit_code(as_json: bool, done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.in_json(as_json).report(),
    }
}

fn check(args: &PluginArgs) -> ExitCode {
    let (bench, bytes) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    if shipped(&args.file).is_none()
        && let Err(rejection) = policy::check_name(&args.file)
    {
        return refuse(args, &rejection);
    }
    match admission::admit(&bench.engine, None, &bench.terms, &bytes) {
        Ok(admitted) => {
            let report = &admitted.report;
            if args.json {
                say!("{}", json!({"admitted": true, "file": args.file, "report": report}));
            } else {
                print_report(&args.file, report);
            }
            ExitCode::SUCCESS
        }
        Err(rejection) => refuse(args, &rejection),
    }
}

fn measure(args: &PluginArgs, length: Duration) -> ExitCode {
    let (bench, bytes) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let admitted = match admission::admit(&bench.engine, None, &bench.terms, &bytes) {
        Ok(admitted) => admitted,
        Err(rejection) => return refuse(args, &rejection),
    };
    if let Some(program) = &admitted.rollback {
        return super::rollback_policy::measure(&args.file, &args.rollback_config, program.clone(), length, args.json);
    }
    let split_config = args.split_config.as_deref().unwrap_or("{}");
    let Some(plugin) = Contender::wasm(&admitted, split_config) else { return ExitCode::FAILURE };
    let bar = progress_bar(args.json);
    let costs = plugin.and_then(|plugin| {
        let contenders = vec![plugin, Contender::native()?];
        bench::run(contenders, length, |share| bar.set_position((share * 1_000.0) as u64))
    });
    bar.finish_and_clear();
    let costs = match costs {
        Ok(costs) => costs,
        Err(failure) => return refuse(args, &Rejection::Failed { step: "bench".to_owned(), failure }),
    };
    let [plugin, native] = costs.as_slice() else { return ExitCode::FAILURE };
    if args.json {
        let report = &admitted.report;
        say!("{}", json!({"file": args.file, "digest": report.digest, "plugin": plugin, "native_split_weighted": native}));
    } else {
        say!("{:<34} {:>9} {:>9} {:>9} {:>12}", "ns per decision", "p50", "p99", "fastest", "decisions");
        print_cost(&args.file.file_name().unwrap_or_default().to_string_lossy(), plugin);
        print_cost("split-weighted as native code", native);
    }
    ExitCode::SUCCESS
}

/// The engine and the terms that a plugin is held against.
struct Bench {
    engine: PolicyEngine,
    terms: Terms,
}

fn prepare(args: &PluginArgs) -> Result<(Bench, Vec<u8>), ExitCode> {
    let config = match &args.config {
        Some(path) => config::load(path).map_err(|error| {
            tell(args, &error.to_string(), &error.to_string());
            ExitCode::from(USAGE)
        })?,
        None => default_config(),
    };
    let mut terms = Terms::of(&config);
    if let Some(split_config) = &args.split_config {
        terms.set(split_config);
    }
    let bytes = shipped(&args.file).map_or_else(|| read(&args.file, &terms), |bytes| Ok(bytes.to_vec())).map_err(|error| match error {
        ReadError::Usage(reason) => usage(args, &reason),
        ReadError::Refused(rejection) => refuse(args, &rejection),
    })?;
    let engine = PolicyEngine::new(Limits::of(&config.policies)).map_err(|error| {
        complain(&format!("the WebAssembly engine cannot start on this machine: {error:#}"));
        ExitCode::FAILURE
    })?;
    Ok((Bench { engine, terms }, bytes))
}

/// A shipped plugin's bytes, where its bare name is given and there is no such file.
fn shipped(file: &Path) -> Option<&'static [u8]> {
    file.to_str().filter(|_| !file.exists()).and_then(policy::shipped)
}

/// The bytes of a plugin, or why not.
pub(super) fn read_plugin(file: &Path, terms: &Terms) -> Result<Vec<u8>, String> {
    shipped(file).map_or_else(|| read(file, terms), |bytes| Ok(bytes.to_vec())).map_err(|error| match error {
        ReadError::Usage(reason) => reason,
        ReadError::Refused(rejection) => format!("refused: {rejection}"),
    })
}

enum ReadError {
    Usage(String),
    Refused(Rejection),
}

fn read(file: &Path, terms: &Terms) -> Result<Vec<u8>, ReadError> {
    let unreadable = |error: std::io::Error| ReadError::Usage(format!("cannot be read: {error}"));
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    admission::check_size(size, terms.file_bytes).map_err(ReadError::Refused)?;
    // A device has no size, and no end.
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|file| file.take(terms.file_bytes + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    admission::check_size(bytes.len() as u64, terms.file_bytes).map_err(ReadError::Refused)?;
    Ok(bytes)
}

/// The defaults of every limit, for a plugin that is checked without a config.
#[allow(clippy::expect_used, reason = "the text is part of the program, and a test parses it")]
pub(super) fn default_config() -> Config {
    config::parse("defaults", DEFAULTS).expect("the defaults are a valid config")
}

const DEFAULTS: &str = r#"
[listen]
traffic = "127.0.0.1:0"
admin = "127.0.0.1:0"

[[route]]
name = "search"
match = { path_prefix = "/" }

[route.pools.blue]
endpoints = ["http://127.0.0.1:9001"]
"#;

fn refuse(args: &PluginArgs, rejection: &Rejection) -> ExitCode {
    let mut reason = rejection.to_string();
    if args.config.is_none() && args.split_config.is_some() {
        reason.push_str(" (without --config, made-up pools stand in for a route's)");
    }
    tell(args, &reason, &format!("{}: refused: {reason}", args.file.display()));
    ExitCode::from(REFUSED)
}

fn usage(args: &PluginArgs, reason: &str) -> ExitCode {
    tell(args, reason, &format!("{}: {reason}", args.file.display()));
    ExitCode::from(USAGE)
}

/// Why not, for machines or for people.
fn tell(args: &PluginArgs, reason: &str, line: &str) {
    if args.json {
        // The exit code says it too, also when nobody reads this.
        let _ = super::print(&format!("{}\n", json!({"admitted": false, "file": args.file, "reason": reason})));
    } else {
        complain(line);
    }
}

fn print_report(file: &Path, report: &Report) {
    let world = match report.world {
        World::SplitPolicy => "split-policy",
        World::RollbackPolicy => "rollback-policy",
    };
    say!("{}: admitted", file.display());
    say!("  world      {world} ({})", report.exports);
    say!("  digest     {}", report.digest);
    say!("  size       {} bytes", report.bytes);
    say!("  imports    {}", if report.imports.is_empty() { "none".to_owned() } else { report.imports.join(", ") });
    say!("  compiled   in {:.0} ms", report.compile_ms);
    if report.world == World::RollbackPolicy {
        return;
    }
    let refused = match report.snapshots_refused {
        0 => String::new(),
        refused => format!(" ({refused} refused by the policy in its own words)"),
    };
    say!("  trial      {} decisions, each asked twice, over {} states of the flags{refused}", report.decisions, report.snapshots);
    say!("  cost       {:.0} ns per decision", report.decision_ns);
}

pub(super) fn print_cost(name: &str, cost: &Cost) {
    say!("{name:<34} {:>9.1} {:>9.1} {:>9.1} {:>12}", cost.p50_ns, cost.p99_ns, cost.min_ns, cost.decisions);
}

pub(super) fn progress_bar(is_json: bool) -> ProgressBar {
    let bar = ProgressBar::new(1_000);
    if is_json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("measuring {bar:40} {percent}% {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.1 to 600".to_owned()),
    }
}

fn json_object(text: &str) -> Result<String, String> {
    let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    parsed.map(|_| text.to_owned()).map_err(|error| format!("must be a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(file: PathBuf) -> ExitCode {
        check(&PluginArgs { file, config: None, split_config: None, rollback_config: "{}".to_owned(), json: true })
    }

    #[test]
    fn exit_codes_tell_admitted_refused_and_missing_apart() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (good, bad) = (dir.path().join("good.wasm"), dir.path().join("bad.wasm"));
        std::fs::write(&good, include_bytes!(concat!(env!("OUT_DIR"), "/split-weighted.wasm")))?;
        std::fs::write(&bad, "no plugin")?;
        assert_eq!(exit_of(good), ExitCode::SUCCESS);
        assert_eq!(exit_of(bad), ExitCode::from(REFUSED));
        assert_eq!(exit_of(dir.path().join("missing.wasm")), ExitCode::from(USAGE));
        assert_eq!(exit_of(dir.path().to_owned()), ExitCode::from(USAGE));
        assert_eq!(exit_of(PathBuf::from("split-weighted")), ExitCode::SUCCESS);
        assert_eq!(exit_of(PathBuf::from("split-nothing")), ExitCode::from(USAGE));
        Ok(())
    }

    #[test]
    fn the_defaults_are_a_config() {
        assert_eq!(default_config().routes.len(), 1);
    }
}
