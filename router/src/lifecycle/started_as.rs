//! How this process was started, so that a new one can be started alike.
//!
//! By the path that it was started by, not by `/proc/self/exe`: after an upgrade that names the old binary, which may be gone.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Program and arguments.
#[derive(Debug, Clone)]
pub struct StartedAs {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl StartedAs {
    /// As this process was. To be asked before the working folder changes.
    ///
    /// # Errors
    /// When the program cannot be found.
    pub fn this_process() -> std::io::Result<StartedAs> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().map(PathBuf::from).unwrap_or_default();
        let program = match program(&name, std::env::var_os("PATH")) {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(StartedAs { program, arguments: arguments.collect() })
    }
}

/// A name with a slash is a path; any other is looked up as a shell does.
fn program(name: &Path, path: Option<OsString>) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return Some(name.to_owned());
    }
    let is_executable = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path?).map(|folder| folder.join(name)).find(is_executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_path_that_it_was_started_by() {
        assert_eq!(program(Path::new("target/switchback"), None), Some("target/switchback".into()));
        assert_eq!(program(Path::new("/usr/bin/x"), None), Some("/usr/bin/x".into()));
        assert_eq!(program(Path::new("sh"), Some("/nowhere:/bin".into())), Some("/bin/sh".into()));
        assert_eq!(program(Path::new("sh"), Some("/nowhere".into())), None);
    }
}
