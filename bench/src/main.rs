//! The benchmark's programs in one: a cheap upstream, a raw forwarder as the floor, a load generator, and the rounds that measure peers with them.
//!
//! ```text
//! load generator -> one peer at a time -> upstream          rounds starts the three, and reads what the peer's processes cost
//! ```
//!
//! The load generator and the upstreams share one core, the peer has another one: what they cost is not in its figures. docs/PERFORMANCE.md
//! says how to read those.

mod failure;
mod floor;
mod load;
mod poll;
mod rounds;
mod upstream;
mod upstream_h2;
mod wire;

use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "What a query costs in this router, and in others")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A backend that costs as little as one can: NAME=ADDRESS for each name under which it answers. Ends with its standard input.
    Upstream {
        /// Port 0 takes a free one; a line NAME=ADDRESS says which.
        #[arg(required = true, value_parser = upstream::parse_arm)]
        arms: Vec<(String, SocketAddr)>,
        /// The same, for those who speak HTTP/2.
        #[arg(long = "http2", value_parser = upstream::parse_arm)]
        http2: Vec<(String, SocketAddr)>,
    },
    /// Forwards HTTP/1.1 from one address to another, and does nothing else. Ends with its standard input.
    Floor {
        /// Where it listens.
        listen: SocketAddr,
        /// Where it forwards to.
        upstream: SocketAddr,
    },
    /// Asks one address, and prints what came of it as JSON.
    Load(load::LoadOptions),
    /// Measures every peer on every workload, and writes what was measured as JSON.
    Rounds(Box<rounds::Options>),
}

fn main() -> ExitCode {
    let done = match Options::try_parse() {
        Ok(options) => run(options.command),
        Err(error) => {
            // Nothing can be said when stdout or stderr is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "switchback-bench: {error:#}");
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Upstream { arms, http2 } => {
            upstream_h2::start(&http2)?;
            upstream::run(&arms)
        }
        Command::Floor { listen, upstream } => floor::run(listen, upstream),
        Command::Load(options) => load::run(&options),
        Command::Rounds(options) => rounds::run(&options),
    }
}
