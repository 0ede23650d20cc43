//! For a command that makes files for itself: told to stop, by Ctrl-C or SIGTERM, it takes them away before it ends.

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Does a work to its end, or until somebody tells this process to stop: what the work made for itself goes with it then.
///
/// # Errors
/// Those of the work, and that it was interrupted.
pub(super) async fn unless_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let terminated = async {
        // Where no handler can be set, a signal ends the process as ever.
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) if terminate.recv().await.is_some() => {}
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted("interrupted")),
        () = terminated => Err(Failure::interrupted("interrupted")),
    }
}
