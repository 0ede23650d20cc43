//! What systemd is told (`Type=notify-reload`, see docs/OPERATIONS.md). Without `NOTIFY_SOCKET` nobody is told anything.

use sd_notify::NotifyState;

/// It listens, with this config.
pub(super) fn ready(generation: u64) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving, config generation {generation}"))]);
}

/// The config is read again; [`ready`] says when that is done, whatever came of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading the config")]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// It drains.
pub(super) fn stopping(why: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&format!("draining: {why}"))]);
}

/// Another process is this service from now on.
pub(super) fn main_process_is(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready, NotifyState::Status("handed over to a new process")]);
}

/// In words only.
pub(super) fn status(what: &str) {
    tell(&[NotifyState::Status(what)]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
