//! Which program was measured: what a report needs to be held against the program that is shipped.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{Access, access};
use serde::Serialize;

use super::process::said_by;
use crate::failure::unavailable;

/// Digits of the digest that people are told.
const DIGITS_SHOWN: usize = 12;
/// Folders that cargo names after a profile.
const PROFILES: [&str; 3] = ["dist", "release", "debug"];

/// The router's program. What cannot be known is `None`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Program {
    pub(crate) path: String,
    /// In 64 hexadecimal digits.
    pub(crate) sha256: Option<String>,
    /// Its size.
    pub(crate) bytes: u64,
    /// The first line that it says when it is asked for its version.
    pub(crate) version: Option<String>,
    /// Of its build, where its folder says so.
    pub(crate) profile: Option<String>,
    /// Whether a tracked file differs from the commit that the report names.
    pub(crate) is_dirty: Option<bool>,
}

impl Program {
    /// Looks at a program; exit code 69 where it is not there or cannot be run.
    pub(crate) fn look(file: &Path) -> Result<Program> {
        let is_missing = |why: &dyn std::fmt::Display| unavailable(format!("--switchback {}: {why}", file.display()));
        let path = fs::canonicalize(file).map_err(|error| is_missing(&error))?;
        let metadata = fs::metadata(&path).map_err(|error| is_missing(&error))?;
        if !metadata.is_file() {
            return Err(is_missing(&"it is no file"));
        }
        access(&path, Access::EXEC_OK).map_err(|_| is_missing(&"it is not executable"))?;
        let profile = profile(&path);
        let version = said(&path, &["--version"]).and_then(|text| Some(text.lines().next()?.trim().to_owned()));
        let is_dirty = said(Path::new("git"), &["status", "--porcelain", "--untracked-files=no"]).map(|text| !text.trim().is_empty());
        let path = path.display().to_string();
        let sha256 = said(Path::new("sha256sum"), &[&path]).and_then(|text| digest(&text));
        Ok(Program { path, sha256, bytes: metadata.len(), version, profile, is_dirty })
    }

    /// What people are told.
    pub(crate) fn line(&self) -> String {
        let version = self.version.as_deref().unwrap_or("says no version");
        let digest = self.sha256.as_deref().and_then(|digits| digits.get(..DIGITS_SHOWN)).unwrap_or("unknown");
        format!("{}: {version}, sha256 {digest}", self.path)
    }
}

fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
    said_by(program, &arguments).ok()
}

/// The first word of what sha256sum says; where the name of the file had to be escaped, behind a backslash.
fn digest(said: &str) -> Option<String> {
    let digits = said.split_whitespace().next()?.trim_start_matches('\\');
    let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digits.to_owned())
}

fn profile(path: &Path) -> Option<String> {
    let folder = path.parent()?.file_name()?.to_str()?;
    PROFILES.contains(&folder).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;

    #[test]
    fn a_program_is_known_by_its_digest_and_its_size() {
        let file = std::env::current_exe().unwrap();
        let program = Program::look(&file).unwrap();
        assert_eq!(program.bytes, fs::metadata(&file).unwrap().len());
        let sha256 = program.sha256.clone().unwrap();
        assert!(program.line().contains(&sha256[..DIGITS_SHOWN]), "{}", program.line());
        assert!(!program.line().contains(&sha256), "{}", program.line());
    }

    #[test]
    fn a_program_that_is_not_there_or_cannot_be_run_is_69() {
        for file in ["no-such-program", "/proc/self/status", "/proc/self"] {
            assert_eq!(exit_code(&Program::look(Path::new(file)).unwrap_err()), 69, "{file}");
        }
    }

    #[test]
    fn what_is_no_digest_is_none() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(digest(&format!("{digits}  switchback\n")).as_ref(), Some(&digits));
        assert_eq!(digest(&format!("\\{digits}  switch\\nback\n")).as_ref(), Some(&digits));
        assert_eq!(digest("sha256sum: switchback: Permission denied\n"), None);
    }

    #[test]
    fn a_profile_is_known_by_its_folder() {
        assert_eq!(profile(Path::new("target/dist/switchback")).as_deref(), Some("dist"));
        assert_eq!(profile(Path::new("/usr/bin/switchback")), None);
    }
}
