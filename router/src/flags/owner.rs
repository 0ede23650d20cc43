//! One router a data folder: two that write the same copies, tokens and plugins would undo each other's.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::FlagsError;
use super::disk::{create_private_folder, private_file};

/// Held as long as the store is open; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Owner {
    _lock: File,
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
        Ok(Owner { _lock: lock(&data_dir.join("owner"))? })
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
