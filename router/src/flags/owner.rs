//! One router a data folder: two that write the same copies, tokens and plugins would undo each other's.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::FlagsError;
use super::disk::{create_private_folder, private_file};

/// The process before this one lets go of the folder a moment before it says so, or when the system has cleaned up after it.
const TAKE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Held as long as the store is open, unless it is let go of for a new process; the system takes it back when the process ends, however
/// it ends.
#[derive(Debug)]
pub(crate) struct Owner {
    path: PathBuf,
    lock: Mutex<Option<File>>,
}

impl Owner {
    /// Takes the folder, making it where it is missing, or says who has it.
    ///
    /// # Errors
    /// [`FlagsError::Owned`], and [`FlagsError::File`] when the lock file cannot be made.
    pub(crate) fn of(data_dir: &Path) -> Result<Owner, FlagsError> {
        create_private_folder(data_dir).map_err(|source| FlagsError::File {
            path: data_dir.to_owned(),
            what: "make the folder",
            source,
        })?;
        let path = data_dir.join("owner");
        let lock = Mutex::new(Some(lock(&path)?));
        Ok(Owner { path, lock })
    }

    /// Of a process that takes the folder later, when the one before it lets go of it.
    pub(crate) fn beside(data_dir: &Path) -> Owner {
        Owner { path: data_dir.join("owner"), lock: Mutex::new(None) }
    }

    /// Leaves the folder to a new process.
    pub(crate) fn let_go(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes the folder that another process lets go of.
    ///
    /// # Errors
    /// As [`Owner::of`], after some seconds.
    pub(crate) async fn take(&self) -> Result<(), FlagsError> {
        let deadline = Instant::now() + TAKE_WITHIN;
        loop {
            match lock(&self.path) {
                Ok(file) => {
                    *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
                    return Ok(());
                }
                Err(FlagsError::Owned { .. }) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => return Err(error),
            }
        }
    }
}

fn lock(path: &Path) -> Result<File, FlagsError> {
    let fails = |what| move |source| FlagsError::File { path: path.to_owned(), what, source };
    let mut file = private_file().read(true).write(true).create(true).truncate(false).open(path).map_err(fails("open it"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(FlagsError::Owned { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(fails("lock it")(source)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(fails("write it"))?;
    Ok(file)
}
