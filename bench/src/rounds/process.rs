//! A peer's process: started on its processors, told apart from everything else, and ended. It ends by itself when this program does.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::cost::tree;

/// How often something is looked at that is waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A process that was asked to end has so long.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A process that was started here.
pub(crate) struct Process {
    child: Child,
    log: String,
}

impl Process {
    /// Starts a program on these processors (as taskset has them: `0`, `0,1`), with its output in a file.
    pub(crate) fn start(program: &Path, arguments: &[String], processors: &str, log: &Path) -> Result<Process> {
        let output = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "taskset", "-c", processors]).arg(program).args(arguments);
        // Programs of this benchmark end with their standard input.
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {} (needs setpriv and taskset of util-linux)", program.display()))?;
        Ok(Process { child, log: log.display().to_string() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            bail!("it ended ({status}): {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "));
        }
        Ok(())
    }

    /// Ends it and all that came of it: asked first, then without asking.
    pub(crate) fn stop(&mut self) {
        let processes = tree(self.id());
        signal(self.id(), Signal::TERM);
        drop(self.child.stdin.take());
        let until = Instant::now() + END_WITHIN;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        for process in processes {
            signal(process, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

fn signal(process: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(process, signal);
    }
}

/// What a program says when it is run, both of its outputs; an error with its last line when it fails.
pub(crate) fn said_by(program: &Path, arguments: &[String]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{}", text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it fails and says nothing").trim());
    }
    Ok(text)
}
