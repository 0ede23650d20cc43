//! The command line: one file per command.

mod ranker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An edge router for ranking models that switches back by itself
#[derive(Debug, Parser)]
#[command(name = "switchback", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ranker(ranker::RankerArgs),
}

/// Reads the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ranker(args) => ranker::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchback: {error:#}");
            ExitCode::FAILURE
        }
    }
}
