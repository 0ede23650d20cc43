//! HTTP/2 in: h2load of nghttp2, a well-kept load generator, as a process. All of its requests are one user's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::said_by;
use crate::load::Summary;

/// Connections, and streams on each.
const CONNECTIONS: u32 = 8;
const STREAMS: u32 = 8;
/// Requests of the warm-up.
const WARM_UP: u32 = 4_000;

/// A few requests that do not count.
pub(crate) fn warm_up(port: u16) -> Result<()> {
    run(port, &["-n".to_owned(), WARM_UP.to_string()]).map(drop)
}

/// As many requests as the target takes, for so long.
pub(crate) fn load(port: u16, time: Duration) -> Result<Summary> {
    let said = run(port, &["-D".to_owned(), time.as_secs_f64().ceil().to_string()])?;
    read(&said).with_context(|| format!("h2load said something else: {said}"))
}

/// What it says its version is.
pub(crate) fn version() -> String {
    said_by(Path::new("h2load"), &["--version".to_owned()]).map_or_else(|error| format!("{error:#}"), |said| said.trim().to_owned())
}

fn run(port: u16, how: &[String]) -> Result<String> {
    let mut arguments =
        vec!["-t".to_owned(), "1".to_owned(), "-c".to_owned(), CONNECTIONS.to_string(), "-m".to_owned(), STREAMS.to_string()];
    arguments.extend_from_slice(how);
    let fields = [
        "user-agent: Mozilla/5.0 (X11; Linux x86_64)",
        "accept: */*",
        "accept-encoding: gzip, deflate",
        "cookie: sid=0000000000000001; theme=dark",
        "x-user-id: user1",
    ];
    for field in fields {
        arguments.extend(["-H".to_owned(), field.to_owned()]);
    }
    arguments.push(format!("http://127.0.0.1:{port}/search?q=hello"));
    said_by(Path::new("h2load"), &arguments).context("h2load (apt-get install nghttp2-client)")
}

/// `finished in 2.00s, ...` and `requests: N total, ... N succeeded, N failed, ...`.
fn read(said: &str) -> Option<Summary> {
    let finished = said.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let time = finished.split(',').next()?.trim();
    let seconds = match time.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse::<f64>().ok()? / 1e3,
        None => time.strip_suffix('s')?.parse().ok()?,
    };
    let requests = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |what: &str| requests.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
    let statuses = said.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let well = statuses.split(' ').next()?.parse::<u64>().ok()?;
    Some(Summary::counted(well, count(" failed")?, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "finished in 2.00s, 21007.00 req/s, 24.90MB/s\n\
                    requests: 42014 total, 42078 started, 42014 done, 42014 succeeded, 1 failed, 0 errored, 0 timeout\n\
                    status codes: 42014 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let summary = read(said).unwrap();
        assert_eq!((summary.answers, summary.lost), (42014, 1));
        assert!((summary.seconds - 2.0).abs() < 1e-9);
    }
}
