//! For a command that another process starts as its child: it ends when that one does, however that ends.
//!
//! The parent holds the other end of standard input and never writes. The system closes it with the parent, also after a SIGKILL, on
//! every system and whichever thread started the child.

use std::io::{ErrorKind, Read as _};

use rustix::process::{Signal, getpid, kill_process};

use super::Failure;

/// Has this process told to stop, as by SIGTERM, when standard input ends.
///
/// # Errors
/// No thread.
pub(super) fn end_with_stdin() -> Result<(), Failure> {
    let wait = || {
        let mut ignored = [0; 64];
        loop {
            match std::io::stdin().lock().read(&mut ignored) {
                Ok(0) => break,
                Err(error) if error.kind() != ErrorKind::Interrupted => break,
                Ok(_) | Err(_) => {}
            }
        }
        // A process can always signal itself.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    let spawned = std::thread::Builder::new().name("parent".to_owned()).spawn(wait);
    spawned.map(drop).map_err(|error| Failure::unreachable(format!("no thread: {error}")))
}
