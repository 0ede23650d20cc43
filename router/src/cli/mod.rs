//! The command line: one file per command.

mod policy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An edge router for ranking models that switches back by itself.
#[derive(Debug, Parser)]
#[command(name = "switchback", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check and measure WebAssembly policies.
    Policy(policy::PolicyArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Policy(args) => policy::run(args),
    }
}
