//! What signals ask for. They are heard from the start on, so that none ends the process by its default.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::LifecycleError;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Drain and end; with the signal's name.
    Stop(&'static str),
    /// Read the config again.
    Reload,
    /// Hand over to a new process.
    HandOver,
}

/// The signals that the router hears.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user2: Signal,
}

impl Signals {
    /// Hears them from now on.
    pub(super) fn listen() -> Result<Signals, LifecycleError> {
        let hear = |kind| signal(kind).map_err(|source| LifecycleError::System { what: "cannot listen for signals", source });
        Ok(Signals {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
            hang_up: hear(SignalKind::hangup())?,
            user2: hear(SignalKind::user_defined2())?,
        })
    }

    /// The next wish.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.hang_up.recv() => Wish::Reload,
            _ = self.user2.recv() => Wish::HandOver,
        }
    }

    /// The next wish to stop, while something else is under way; others wait until that is done.
    pub(super) async fn next_stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
