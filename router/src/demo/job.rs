//! The nightly job: `scripts/deploy_model.sh`, called as cron would call it. It is carried inside the binary, so that the demo needs no sources.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use super::DemoError;

const SCRIPT: &str = include_str!("../../../scripts/deploy_model.sh");
/// Its name, and what its lines begin with after their time.
const NAME: &str = "deploy_model";
/// What the script calls, and where it is from.
const TOOLS: [(&str, &str); 4] =
    [("sh", "any POSIX shell"), ("flock", "install util-linux"), ("mktemp", "install coreutils"), ("mkfifo", "install coreutils")];
/// Runs the script in a group of processes that ends when standard input does, also because the demo was killed. Input of what is in the background would
/// be nothing, so it is kept as 3.
const WITH_AN_END: &str = "exec 3<&0
(read -r gone <&3; kill -s KILL -- \"-$$\") >/dev/null 2>&1 &
exec sh \"$@\" </dev/null 3<&-";

/// What the job has to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// A line of its log, without time and name.
    Line(String),
    /// Not now.
    Nothing,
    /// No more.
    End,
}

/// A job that runs. Dropping it ends it, and everything that it started.
#[derive(Debug)]
pub(super) struct Job {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    group: Option<Pid>,
    /// As long as this is open, the group may live.
    _input: Option<ChildStdin>,
}

/// Looks for what the script calls.
///
/// # Errors
/// [`DemoError::Tool`] names the first that is not on the `PATH`.
pub(super) fn look_for_tools() -> Result<(), DemoError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing = TOOLS.into_iter().find(|(tool, _)| !is_there(tool));
    missing.map_or(Ok(()), |(name, from)| Err(DemoError::Tool { name, from }))
}

impl Job {
    /// `deploy_model.sh --route search --model search OPTIONS FILE` in the folder where its models are. `command` has the environment.
    ///
    /// # Errors
    /// When there is no script to run.
    pub(super) fn start(mut command: Command, folder: &Path, options: &[String], file: &str) -> Result<Job, DemoError> {
        let script = folder.join(format!("{NAME}.sh"));
        std::fs::write(&script, SCRIPT).map_err(DemoError::Folder)?;
        command.args(["-c", WITH_AN_END, NAME]).arg(script).args(["--route", "search", "--model", "search"]).args(options).arg(file);
        command.current_dir(folder).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(DemoError::Binary)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (input, said) = (child.stdin.take(), child.stderr.take());
        let said = said.ok_or_else(|| DemoError::process(NAME, "has no output"))?;
        Ok(Job { child, lines: BufReader::new(said).lines(), group, _input: input })
    }

    /// What it says within this time.
    pub(super) async fn hear(&mut self, within: Duration) -> Heard {
        match timeout(within, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Heard::Line(said(&line).to_owned()),
            Ok(_) => Heard::End,
            Err(_) => Heard::Nothing,
        }
    }

    /// Its exit code, once it has nothing more to say.
    pub(super) async fn code(&mut self) -> Option<i32> {
        self.child.wait().await.ok()?.code()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Whoever waits for the end of the input is one of the group until then: its id is nobody else's.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A line without its time and name.
fn said(line: &str) -> &str {
    line.split_once(&format!(" {NAME}: ")).map_or(line, |(_, said)| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_its_time_and_keeps_the_rest() {
        assert_eq!(said("2026-11-29T15:21:54Z deploy_model:     waits: hold"), "    waits: hold");
        assert_eq!(said("sh: not found"), "sh: not found");
    }
}
