//! The load generator: one thread, closed or open loop, or connections that only stay; in the clear or over TLS.

mod client;
mod crowd;
mod request;
mod runs;
mod tally;
mod trust;

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

pub(crate) use client::Target;
pub(crate) use crowd::{Crowd, Mark};
pub(crate) use request::Shape;
pub(crate) use runs::{OnMark, Pace, closed, idle, open};
pub(crate) use tally::Summary;
pub(crate) use trust::{Identity, trust};

/// What `load` can be told.
#[derive(Debug, Args)]
pub(crate) struct LoadOptions {
    /// Where requests go.
    target: SocketAddr,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Open loop: so many requests a second.
    #[arg(long)]
    rate: Option<u32>,
    /// Ask once on each connection, and hold them for --seconds.
    #[arg(long)]
    idle: bool,
    /// How long it is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long it runs before that.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Speak TLS, and trust this certificate (PEM) alone.
    #[arg(long)]
    ca: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

/// Asks, and prints what came of it.
pub(crate) fn run(options: &LoadOptions) -> Result<()> {
    let tls = options.ca.as_deref().map(trust).transpose()?;
    let mut crowd = Crowd::new(Target { address: options.target, tls }, options.shape.requests())?;
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let pace = Pace { warm_up: Duration::try_from_secs_f64(options.warm_up)?, measured };
    let summary = if options.idle {
        let hold = &mut |mark: Mark| {
            if mark == Mark::Begin {
                std::thread::sleep(measured);
            }
            Ok(())
        };
        idle(&mut crowd, options.connections, hold)?
    } else {
        crowd.join(options.connections)?;
        match options.rate {
            Some(rate) => open(&mut crowd, rate, pace, &mut |_| Ok(()))?,
            None => closed(&mut crowd, pace, &mut |_| Ok(()))?,
        }
    };
    serde_json::to_writer_pretty(stdout(), &summary)?;
    writeln!(stdout())?;
    Ok(())
}
