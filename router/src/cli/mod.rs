//! The command line: one file for each command. Commands that look at or change a running router are clients of its admin API.
//!
//! Exit codes: 0 done, 2 refused, 64 bad usage or config, 69 something needed is unreachable or cannot be used, 75 still running
//! when the time was up, 130 interrupted.

mod admin_client;
mod again;
mod breaker;
mod bundle;
mod config;
mod demo;
mod deploy;
mod deploy_alias;
mod deploy_check;
mod deploy_decide;
mod deploy_follow;
mod deploy_push;
mod deploy_start;
mod deploy_told;
mod deploy_would;
mod doctor;
mod events;
mod evidence;
mod experiment;
mod experiment_report;
mod explain;
mod failure;
mod flag;
mod free_text;
mod ledger;
mod log;
mod model;
mod model_alias;
mod model_gc;
mod model_mlflow;
mod model_push;
mod model_show;
mod model_validate;
mod of_route;
mod parent;
mod plan;
mod plugins;
mod policy;
mod ranker;
mod registry_args;
mod reload;
mod replay;
mod replay_bundle;
mod rollback;
mod rollback_alias;
mod rollback_policy;
mod rollback_to;
mod rollout;
mod serve;
mod shadow;
mod sign_override;
mod simulate;
mod status;
mod stopped;
mod table;
mod validating;
mod watch;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};

pub(crate) use failure::Failure;

use crate::vocabulary::{escaped, is_obeyed};

const AFTER_HELP: &str = "\
Examples:
  switchback demo
  switchback serve --config switchback.toml
  switchback flag set search live=green --config switchback.toml

Exit codes: 0 done, 2 refused, 64 bad usage or config, 69 something needed is unreachable, \
                          75 still running when the time was up.";

/// An edge router for ranking models that switches back by itself.
#[derive(Debug, Parser)]
#[command(name = "switchback", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 110)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Reload(reload::Reload),
    Status(status::Status),
    Flag(flag::FlagArgs),
    Override(sign_override::SignOverride),
    Config(config::ConfigArgs),
    Demo(demo::Demo),
    Deploy(Box<deploy::DeployArgs>),
    Rollout(rollout::RolloutArgs),
    Experiment(experiment::ExperimentArgs),
    Explain(explain::ExplainArgs),
    Ledger(ledger::LedgerArgs),
    Replay(replay_bundle::Replay),
    Doctor(doctor::Doctor),
    Rollback(rollback::RollbackArgs),
    Breaker(breaker::BreakerArgs),
    Model(model::ModelArgs),
    Plan(plan::Plan),
    Policy(policy::PolicyArgs),
    Ranker(ranker::RankerArgs),
}

/// Parses the command line and runs the command; its exit code is the process's.
#[must_use]
pub fn run() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let error = with_usage(error, std::env::args().skip(1));
            let is_answer = error.exit_code() == 0;
            // Nothing can be said when stdout or stderr is gone.
            let _ = error.print();
            if !is_answer && std::env::args().any(|argument| argument == "--json") {
                let _ = print(&format!("{}\n", serde_json::json!({ "error": before_usage(&error.render().to_string()) })));
            }
            return if is_answer { ExitCode::SUCCESS } else { ExitCode::from(failure::USAGE) };
        }
    };
    let done = match command_line.command {
        Command::Serve(serve) => serve.run(),
        Command::Reload(reload) => reload.run(),
        Command::Status(status) => status.run(),
        Command::Flag(flag) => flag.run(),
        Command::Override(signed) => signed.run(),
        Command::Config(config) => config.run(),
        Command::Demo(demo) => demo.run(),
        Command::Deploy(deploy) => deploy.run(),
        Command::Rollout(rollout) => rollout.run(),
        Command::Experiment(experiment) => experiment.run(),
        Command::Explain(explain) => explain.run(),
        Command::Ledger(ledger) => ledger.run(),
        Command::Replay(replay) => replay.run(),
        Command::Doctor(doctor) => return doctor.run(),
        Command::Rollback(rollback) => rollback.run(),
        Command::Breaker(breaker) => breaker.run(),
        Command::Model(model) => model.run(),
        Command::Plan(plan) => plan.run(),
        Command::Policy(policy) => return policy::run(policy),
        Command::Ranker(ranker) => ranker.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// All that a wrong command line is told but its usage, on one line.
fn before_usage(said: &str) -> String {
    let lines = said.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

/// The error with the usage that the help has: clap's own begins with the options that variables of the environment stand for.
fn with_usage(mut error: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    if error.get(ContextKind::Usage).is_some() {
        let mut command = CommandLine::command();
        command.build();
        for argument in arguments {
            let Some(inner) = command.find_subcommand(argument).cloned() else { break };
            command = inner;
        }
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    }
    error
}

/// Runs a client command on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::unreachable(format!("no runtime: {error}")))?.block_on(work)
}

/// Prints to stdout. A reader that went away (`| head`) is no failure of ours, but the end.
fn print(text: &str) -> Result<(), Failure> {
    write(&plain(text))
}

/// Empties the terminal.
fn clear() -> Result<(), Failure> {
    write("\x1b[2J\x1b[H")
}

fn write(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| unwritten(&error))
}

/// How a command ends that cannot write to its standard output.
fn unwritten(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::quiet(),
        std::io::ErrorKind::StorageFull => Failure::no_room(format!("stdout: {error}")),
        _ => Failure::unreachable(format!("stdout: {error}")),
    }
}

/// What a terminal would obey, as people and readers of JSON can read it: some of a text is whoever's who can write to the store.
fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    escaped(text, |letter| is_obeyed(letter) && !matches!(letter, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_somebody_wrote_into_the_store() {
        assert_eq!(plain("a\tb\n"), "a\tb\n");
        assert_eq!(plain("\u{1b}[2J\u{7}\r\u{9b}x"), r"\u001b[2J\u0007\r\u009bx");
        assert_eq!(plain("a\u{202e}b\u{2028}c\n"), "a\\u202eb\\u2028c\n");
        let told = serde_json::json!({ "why": "\u{7f}\u{9b}\u{202e}\n" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain(&format!("{told:#}"))).unwrap(), told);
    }

    #[test]
    fn machines_are_told_all_that_is_wrong_with_a_command_line() {
        let said = |arguments: &[&str]| before_usage(&CommandLine::try_parse_from(arguments).unwrap_err().render().to_string());
        let missing = said(&["switchback", "deploy", "--json"]);
        assert!(missing.starts_with("the following required arguments were not provided: --route <ROUTE>"), "{missing}");
        assert!(
            said(&["switchback", "status", "--jsn"]).starts_with("unexpected argument '--jsn' found"),
            "{}",
            said(&["switchback", "status", "--jsn"])
        );
    }

    #[test]
    fn the_usage_of_an_error_is_that_of_the_help() {
        let arguments = ["model", "push", "--registry", "file:///models"];
        let error = CommandLine::try_parse_from(std::iter::once("switchback").chain(arguments)).unwrap_err();
        let said = with_usage(error, arguments.map(str::to_owned).into_iter()).to_string();
        assert!(said.contains("Usage: switchback model push [OPTIONS]") && !said.contains("--registry"), "{said}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    /// The help is wrapped to the terminal: a paragraph that is wrapped already gets short and long lines in turns.
    #[test]
    fn a_paragraph_of_a_help_is_one_line() {
        fn walk(command: &clap::Command) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = after.lines().collect();
            for pair in lines.windows(2).filter(|pair| !pair[0].ends_with(':')) {
                let is_prose = |line: &str| !line.is_empty() && !line.starts_with("  ");
                assert!(!(is_prose(pair[0]) && is_prose(pair[1])), "{}: {pair:?}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&CommandLine::command());
    }

    #[test]
    fn every_command_has_help_with_examples() {
        fn walk(command: &clap::Command, path: &str) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let path = format!("{path} {}", inner.get_name());
                assert!(inner.get_about().is_some(), "{path} says nothing of itself");
                let after = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
                let examples = after.lines().filter(|line| line.contains(path.as_str())).count();
                assert!(examples >= 2, "{path} has {examples} examples in its help");
                walk(inner, &path);
            }
        }
        let all = CommandLine::command();
        assert!(all.get_after_help().map(ToString::to_string).unwrap_or_default().contains("  switchback demo"));
        walk(&all, "switchback");
    }
}
