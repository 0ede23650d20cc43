//! What a process that goes on says of itself: log lines on stderr.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Log lines that may wait to be written.
const LOG_LINES: usize = 10_000;

/// Lines are written by a thread of their own: whoever reads stderr may be slow or stuck, and no worker waits for that. Lines beyond
/// [`LOG_LINES`] are dropped, and counted. `RUST_LOG` says which there are; `least` without.
pub(super) fn start_log(format: LogFormat, least: &str) -> (WorkerGuard, ErrorCounter) {
    let asked = std::env::var_os(EnvFilter::DEFAULT_ENV).map(|_| EnvFilter::try_from_default_env());
    let (filter, unreadable) = match asked {
        None => (EnvFilter::new(least), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(least), Some(error)),
    };
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(std::io::stderr());
    let dropped = writer.error_counter();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    if let Some(error) = unreadable {
        tracing::warn!(%error, "RUST_LOG cannot be read, and {least} holds; it must be like info or switchback=debug,info");
    }
    (guard, dropped)
}
