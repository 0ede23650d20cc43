//! The data folder, and files with secrets in them: whose they are, and who may read them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::admin::TOKEN_FILE;
use crate::config::{Config, Password, StateUrl};

const PART: &str = "files";
/// What a full disk takes with it: flags that cannot be written.
const LEAST_FREE: u64 = 64 << 20;
/// Beside the windows that are kept: copies of flags, plugins, compiled code.
const ROOM: u64 = 256 << 20;

pub(super) fn checks(config: &Shared, file: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let (of_folder, of_disk) = (config.clone(), config.clone());
    checks.push(Check::blocking(PART, "data folder", move || data_dir(&of_folder.state.data_dir)));
    checks.push(Check::blocking(PART, "disk", move || disk(&of_disk)));
    let is_written = |password: &Password| matches!(password, Password::Written(_));
    let holds_password = matches!(&config.state.url, StateUrl::Redis(store) if is_written(&store.login.password)
        || is_written(&store.sentinel_login.password));
    let mut secrets = secrets(config);
    if holds_password {
        secrets.push(("a password in the config".to_owned(), file.to_owned()));
    }
    for (what, path) in secrets {
        checks.push(Check::blocking(PART, what.clone(), move || vec![secret(&what, &path)]));
    }
    checks
}

/// Every file with a secret in it, by the key that names it.
fn secrets(config: &Config) -> Vec<(String, PathBuf)> {
    let mut files = vec![(TOKEN_FILE.to_owned(), config.state.data_dir.join(TOKEN_FILE))];
    let mut add = |key: String, path: &Path| files.push((key, path.to_owned()));
    for token in &config.admin.tokens {
        add(format!("admin.token {}", token.name), &token.file);
    }
    config.overrides.iter().flat_map(|overrides| &overrides.key_files).for_each(|path| add("override.key_files".to_owned(), path));
    config.token_key_files.iter().flatten().for_each(|path| add("token.key_files".to_owned(), path));
    config.tls.iter().flat_map(|tls| &tls.certificates).for_each(|files| add("tls.certificate.key".to_owned(), &files.key));
    for target in &config.notify {
        target.secret_files.iter().for_each(|path| add(format!("notify.{}.secret_files", target.name), path));
    }
    for (route, pool) in config.routes.iter().flat_map(|route| route.pools.iter().map(move |pool| (route, pool))) {
        if let Some(files) = &pool.tls.certificate {
            add(format!("route.{}.pools.{}.tls.key", route.name, pool.name), &files.key);
        }
    }
    if let StateUrl::Redis(store) = &config.state.url {
        for (key, login) in [("state.password_file", &store.login), ("state.sentinel_password_file", &store.sentinel_login)] {
            if let Password::File(path) = &login.password {
                add(key.to_owned(), path);
            }
        }
        if let Some(files) = store.tls.as_ref().and_then(|tls| tls.certificate.as_ref()) {
            add("state.key".to_owned(), &files.key);
        }
    }
    files
}

fn secret(what: &str, path: &Path) -> Finding {
    let shown = path.display();
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && what == TOKEN_FILE => {
            return Finding::ok(PART, what, format!("{shown}: not there yet; the first start makes it"));
        }
        Err(error) => return Finding::failed(PART, what, format!("{shown}: {error}"), "make it, or name another in the config"),
    };
    if let Err(error) = rustix::fs::access(path, Access::READ_OK) {
        let to_do = format!("run this as the router's user; chown or chmod {shown} so that it may read it");
        return Finding::failed(PART, what, format!("{shown}: {} cannot read it: {error}", whoami()), to_do);
    }
    match found.mode() & 0o777 {
        mode if mode & 0o007 != 0 => {
            let why = format!("{shown}: mode {mode:03o}: everybody on this machine may read or change it");
            Finding::failed(PART, what, why, format!("chmod 600 {shown}, and replace the secret if others have been here"))
        }
        mode if mode & 0o022 != 0 => {
            Finding::warning(PART, what, format!("{shown}: mode {mode:03o}: its group may change it"), format!("chmod 640 {shown}"))
        }
        mode => Finding::ok(PART, what, format!("{shown}: mode {mode:03o}")),
    }
}

fn data_dir(folder: &Path) -> Vec<Finding> {
    let (name, shown) = ("data folder", folder.display());
    let found = match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return vec![Finding::failed(PART, name, format!("{shown} is no folder"), "name another in state.data_dir")],
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return vec![not_there(folder)],
        Err(error) => {
            let to_do = format!("let {} into the folders above it, or name another in state.data_dir", whoami());
            return vec![Finding::failed(PART, name, format!("{shown}: {error}"), to_do)];
        }
    };
    if let Err(error) = rustix::fs::access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let to_do = format!("run this as the router's user; chown it to that user: chown -R USER {shown}");
        return vec![Finding::failed(PART, name, format!("{shown}: {} cannot write there: {error} ({})", whoami(), owner(&found)), to_do)];
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        let why = format!("{shown}: mode {mode:03o}: others may put files there, also plugins");
        return vec![Finding::failed(PART, name, why, format!("chmod 700 {shown}"))];
    }
    let mut findings = Vec::new();
    if found.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("{shown}: {}, and this runs as {}", owner(&found), whoami());
        findings.push(Finding::warning(PART, name, why, "run this as the router's user: what that may read is what counts"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(PART, name, format!("{shown}: mode {mode:03o}, {}", owner(&found))));
    }
    findings
}

/// The first start makes it, where it can.
fn not_there(folder: &Path) -> Finding {
    let above = folder.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    let shown = folder.display();
    match rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(PART, "data folder", format!("{shown}: not there yet; the first start makes it")),
        Err(error) => {
            let why = format!("{shown}: not there, and {} cannot make it in {}: {error}", whoami(), above.display());
            Finding::failed(PART, "data folder", why, format!("install -d -m 700 -o USER {shown}"))
        }
    }
}

fn owner(found: &Metadata) -> String {
    format!("owned by uid {}", found.uid())
}

fn whoami() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

fn disk(config: &Config) -> Vec<Finding> {
    let folder = &config.state.data_dir;
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let to_do = "give the disk more room, or lower evidence.log_bytes";
    match rustix::fs::statvfs(there) {
        Err(error) => vec![Finding::failed(PART, "disk", format!("{}: {error}", there.display()), "look at the disk")],
        Ok(disk) => {
            let needed = config.evidence.log_bytes.saturating_mul(config.routes.len() as u64).saturating_add(ROOM);
            let has_inodes = disk.f_files == 0 || disk.f_favail > 0;
            vec![room(disk.f_bavail.saturating_mul(disk.f_frsize), needed, has_inodes, to_do)]
        }
    }
}

/// Whether so many bytes are enough.
fn room(free: u64, needed: u64, has_inodes: bool, to_do: &str) -> Finding {
    let found = format!("{} MiB free, and up to {} MiB may be written", free >> 20, needed >> 20);
    match () {
        () if !has_inodes => Finding::failed(PART, "disk", "no file can be made: the disk has no inodes left", "remove files"),
        () if free < LEAST_FREE => Finding::failed(PART, "disk", found, to_do),
        () if free < needed => Finding::warning(PART, "disk", found, to_do),
        () => Finding::ok(PART, "disk", found),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn a_secret_that_others_may_read_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(secret("key", &path).status, Status::Failed);
        assert_eq!(secret(TOKEN_FILE, &path).status, Status::Ok, "the first start makes it");
        std::fs::write(&path, "secret").unwrap();
        for (mode, status) in [(0o600, Status::Ok), (0o640, Status::Ok), (0o660, Status::Warning), (0o644, Status::Failed)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = secret("key", &path);
            assert_eq!(found.status, status, "{found:?}");
        }
    }

    #[test]
    fn a_folder_is_there_or_can_be_made_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(&folder.path().join("a/b"))[0].status, Status::Ok);
        assert_eq!(data_dir(folder.path())[0].status, Status::Ok);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let found = &data_dir(folder.path())[0];
        assert!(found.status == Status::Failed && found.to_do.starts_with("chmod 700"), "{found:?}");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(data_dir(&folder.path().join("file"))[0].status, Status::Failed);
    }

    #[test]
    fn room_is_enough_hardly_enough_or_none() {
        let status = |free_mib: u64, has_inodes: bool| room(free_mib << 20, 500 << 20, has_inodes, "").status;
        assert_eq!(
            [status(600, true), status(100, true), status(10, true), status(600, false)],
            [Status::Ok, Status::Warning, Status::Failed, Status::Failed]
        );
    }
}
