//! The hand-over to a new process, on both sides. See [`super::channel`] for who says what.
//!
//! The listening sockets are the same kernel objects in both, and so is their queue of connections that nobody has taken yet: none is
//! lost. `SO_REUSEPORT` with two sockets was rejected for that: what waits in the old one's queue is reset when it closes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::channel::{self, Channel, Predecessor, Said};
use super::running::Running;
use super::signals::Signals;
use super::{LifecycleError, StartedAs, notify};

/// How often a new process looks whether it would be ready.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// From `yours` to `serving`: the new process takes the data folder, reads the flags and listens.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Between `failed` and the end of the process that said so.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// What came of a hand-over.
pub(super) enum Outcome {
    /// The new process serves: this one drains.
    HandedOver,
    /// It does not: this one goes on.
    GoesOn,
    /// A signal came in between: this one drains, and the new one is gone.
    Stops(&'static str),
}

/// A new process that has not taken over yet. It is killed when dropped before.
struct Successor {
    child: Child,
    channel: Channel,
    has_taken_over: bool,
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.has_taken_over {
            // It is gone, or goes now; tokio reaps it.
            let _ = self.child.start_kill();
        }
    }
}

impl Successor {
    fn start(started_as: &StartedAs, running: &Running) -> std::io::Result<Successor> {
        let (ours, theirs) = StdStream::pair()?;
        let listeners = running.listeners.as_ref().map(super::Listeners::named).unwrap_or_default();
        channel::send_sockets(&ours, &listeners)?;
        let mut command = Command::new(&started_as.program);
        command.args(&started_as.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        command.env(channel::VARIABLE, channel::FORM);
        for passed_by_systemd in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(passed_by_systemd);
        }
        let child = command.spawn()?;
        Ok(Successor { child, channel: Channel::new(ours)?, has_taken_over: false })
    }

    /// Waits for one line. Anything else is a reason to go on without it.
    async fn hears(&mut self, line: &str, limit: Duration) -> Result<(), String> {
        let said = tokio::time::timeout(limit, self.channel.hear()).await;
        match said {
            Ok(Said::Line(said)) if said == line => Ok(()),
            Ok(Said::Line(said)) => Err(format!("it said {said:?} instead of {line:?}")),
            Ok(Said::Failed(why)) => {
                let _ = tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await;
                Err(why)
            }
            Ok(Said::Gone) => Err(match tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await {
                Ok(Ok(status)) => format!("it ended: {status}"),
                _ => "it closed the channel".to_owned(),
            }),
            Err(_) => Err(format!("it was not {line} within {limit:?}")),
        }
    }

    async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

impl Running {
    /// Starts a new process, and lets it take over when it would be ready.
    pub(super) async fn hand_over(&mut self, signals: &mut Signals) -> Outcome {
        let limit = self.config().lifecycle.upgrade_timeout;
        let program = self.started_as.program.display().to_string();
        let mut successor = match Successor::start(&self.started_as, self) {
            Ok(successor) => successor,
            Err(error) => {
                tracing::error!(program, %error, "a new process cannot be started; this one goes on");
                return Outcome::GoesOn;
            }
        };
        let pid = successor.child.id().unwrap_or(0);
        tracing::info!(program, pid, "a new process was started to take over");
        notify::status("a new process is starting");
        let prepared = tokio::select! {
            prepared = successor.hears(channel::PREPARED, limit) => prepared,
            signal = signals.next_stop() => {
                successor.kill().await;
                return Outcome::Stops(signal);
            }
        };
        if let Err(why) = prepared {
            successor.kill().await;
            tracing::error!(program, pid, why, "the new process did not become ready; this one goes on");
            return Outcome::GoesOn;
        }
        self.leave_operators().await;
        self.flags.let_go().await;
        successor.channel.say(channel::YOURS).await;
        match successor.hears(channel::SERVING, TAKEN_WITHIN).await {
            Ok(()) => {
                successor.has_taken_over = true;
                tracing::info!(program, pid, "the new process serves");
                notify::main_process_is(pid);
                Outcome::HandedOver
            }
            Err(why) => {
                successor.kill().await;
                tracing::error!(program, pid, why, "the new process did not take over; this one goes on");
                self.take_back().await;
                Outcome::GoesOn
            }
        }
    }

    /// After a hand-over that failed half-way.
    async fn take_back(&mut self) {
        if let Err(error) = self.flags.take_over().await {
            tracing::error!(%error, "the data folder cannot be taken back: flags are obeyed as they are, and cannot be changed");
        }
        if let Err(error) = self.listen_to_operators() {
            tracing::error!(%error, "the admin API cannot be started again");
        }
    }

    /// The other side: waits until this process would be ready, and takes over.
    pub(super) async fn take_over_from(&mut self, predecessor: &mut Predecessor) -> Result<(), LifecycleError> {
        let state = self.states.borrow().clone();
        let mut told = Instant::now();
        loop {
            let mut problems = state.problems();
            if !state.has_heard_flags() {
                problems.push("the flag store was not heard yet: the candidate would be held at 0".to_owned());
            }
            if problems.is_empty() {
                break;
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                tracing::warn!(?problems, "not ready to take over yet");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        predecessor.prepared().await?;
        self.flags.take_over().await?;
        self.process.readiness.ready();
        Ok(())
    }
}
