//! Logs go to stderr: a line for each change of traffic, and for what an operator should see to.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::Failure;

/// Which lines: a filter as tracing has them, for example `debug` or `switchback::flags=debug,info`.
const FILTER: &str = "SWITCHBACK_LOG";
/// How lines look: `text` or `json`.
const FORMAT: &str = "SWITCHBACK_LOG_FORMAT";

/// Starts logging, for commands that run long.
///
/// # Errors
/// A filter or format that makes no sense.
pub(super) fn start() -> Result<(), Failure> {
    let written = std::env::var(FILTER).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&written).map_err(|error| Failure::usage(format!("{FILTER} = {written:?}: {error}")))?;
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(is_terminal);
    match std::env::var(FORMAT).as_deref() {
        Ok("json") => lines.json().init(),
        Ok("text") | Err(_) => lines.init(),
        Ok(other) => return Err(Failure::usage(format!("{FORMAT} = {other:?}: must be \"text\" or \"json\""))),
    }
    Ok(())
}
