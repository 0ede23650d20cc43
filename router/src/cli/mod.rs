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

/// Exit codes.
pub(crate) mod exit {
    /// Wrong usage, config or input.
    pub(crate) const USAGE: u8 = 64;
    /// Something needed is not to be had.
    pub(crate) const UNREACHABLE: u8 = 69;
}

/// Reads the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Ranker(args) => ranker::run(args),
    }
}
