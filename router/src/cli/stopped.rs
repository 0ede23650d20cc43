//! For a command that makes files for itself: told to stop, by Ctrl-C or SIGTERM, it takes them away before it ends.

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Does a work to its end, or until somebody tells this process to stop: what the work made for itself goes with it then.
///
/// # Errors
/// Those of the work, and that it was interrupted.
pub(super) async fn unless_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let terminated = async {
        let told = match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            // Where no handler can be set, a signal ends the process as ever.
            Err(_) => None,
        };
        if told.is_none() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted("interrupted")),
        () = terminated => Err(Failure::interrupted("interrupted")),
    }
}
