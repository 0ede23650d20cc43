//! Where the secrets of tokens come from: the files that `[token]` names, or a key that the router makes for itself.
//!
//! Not pure: this is the one place of `quality` that reads and writes files, at start and at each reload.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::config::Config;

/// The key that a router makes for itself, in `state.data_dir`, readable by its user alone.
pub const TOKEN_KEY_FILE: &str = "token.key";
/// Shorter ones could be guessed, longer ones are some other file.
const KEY_CHARACTERS: std::ops::RangeInclusive<usize> = 32..=1_024;

/// Keys that a router made or adopted, and still accepts.
const KEPT_KEYS: usize = 4;

/// What [`super::TokenKeys`] are made of.
pub type Secret = [u8; 32];

/// A key that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("{key} = {path:?}: cannot {what}")]
    File {
        /// The config key that leads to it.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{key} = {path:?}: must hold a key of 32 to 1024 printable ASCII characters on one line")]
    Key {
        /// The config key that leads to the file.
        key: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// No randomness.
    #[error("cannot make a key for tokens: {0}")]
    Random(getrandom::Error),
}

impl SecretError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            SecretError::File { key, .. } | SecretError::Key { key, .. } => key,
            SecretError::Random(_) => "state.data_dir",
        }
    }
}

/// The secrets of this router's tokens: the first signs, all are good. Makes the key in the data folder where the config names none and there is none yet.
///
/// # Errors
/// [`SecretError`], naming the key and the file.
pub fn token_secrets(config: &Config) -> Result<Vec<Secret>, SecretError> {
    match &config.token_key_files {
        Some(_) => configured_secrets(config),
        None => Ok(own_keys(&config.state.data_dir)?.iter().map(|key| secret(key)).collect()),
    }
}

/// The key that this router signs with, where the config names none: what it offers to routers that share its store. `None` where the config names some.
///
/// # Errors
/// As [`token_secrets`].
pub fn own_key(config: &Config) -> Result<Option<String>, SecretError> {
    match &config.token_key_files {
        Some(_) => Ok(None),
        None => Ok(own_keys(&config.state.data_dir)?.into_iter().next()),
    }
}

/// From now on this router signs with this key, which another one made, and goes on accepting its own. Whether that is another key than before; it
/// is in force when [`token_secrets`] are read again.
///
/// # Errors
/// As [`token_secrets`]; and what is no key is refused.
pub fn adopt_key(config: &Config, key: &str) -> Result<bool, SecretError> {
    let folder = &config.state.data_dir;
    let path = folder.join(TOKEN_KEY_FILE);
    if !is_key(key) {
        return Err(SecretError::Key { key: "the key in the store", path });
    }
    let mut keys = own_keys(folder)?;
    if keys.first().is_some_and(|first| first == key) {
        return Ok(false);
    }
    keys.retain(|kept| kept != key);
    keys.insert(0, key.to_owned());
    keys.truncate(KEPT_KEYS);
    let fail = |what: &'static str| {
        let path = path.clone();
        move |source: std::io::Error| SecretError::File { key: "state.data_dir", path, what, source }
    };
    let file = beside(folder, &keys).map_err(fail("be written"))?;
    file.persist(&path).map_err(|error| fail("be put in place")(error.error))?;
    Ok(true)
}

/// The secrets that the config names, and makes nothing: for `switchback config check`.
///
/// # Errors
/// As [`token_secrets`].
pub fn configured_secrets(config: &Config) -> Result<Vec<Secret>, SecretError> {
    config.token_key_files.iter().flatten().map(|path| read_key("token.key_files", path)).collect()
}

/// Any key becomes 32 bytes.
fn secret(text: &str) -> Secret {
    Sha256::digest(text).into()
}

fn read_key(key: &'static str, path: &Path) -> Result<Secret, SecretError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretError::File { key, path: path.to_owned(), what: "be read", source })?;
    let text = text.trim_end();
    if is_key(text) { Ok(secret(text)) } else { Err(SecretError::Key { key, path: path.to_owned() }) }
}

fn is_key(text: &str) -> bool {
    KEY_CHARACTERS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Made with mode 0600.
fn beside(folder: &Path, keys: &[String]) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".token.key.").tempfile_in(folder)?;
    writeln!(file, "{}", keys.join("\n"))?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The keys in the data folder, one a line: the first signs. It is written beside its place and linked there, so that two processes that start at once agree on one.
fn own_keys(folder: &Path) -> Result<Vec<String>, SecretError> {
    let key = "state.data_dir";
    let path = folder.join(TOKEN_KEY_FILE);
    let fail = |what: &'static str| {
        let path = path.clone();
        move |source: std::io::Error| SecretError::File { key, path, what, source }
    };
    if !path.exists() {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
        std::fs::create_dir_all(folder).map_err(fail("make its folder"))?;
        let file = beside(folder, &[hex::encode(bytes)]).map_err(fail("be written"))?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail("be put in place")(error.error)),
        }
    }
    let text = std::fs::read_to_string(&path).map_err(fail("be read"))?;
    let keys: Vec<String> = text.lines().map(str::to_owned).take(KEPT_KEYS).collect();
    if !keys.is_empty() && keys.iter().all(|text| is_key(text)) { Ok(keys) } else { Err(SecretError::Key { key, path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(top: &str, data_dir: &Path) -> Config {
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nstate = {{ data_dir = {data_dir:?} }}\n{top}\n\
             [[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n"
        );
        crate::config::parse("test", &text).unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_kept_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let config = config("", &folder.path().join("new"));
        assert!(configured_secrets(&config).unwrap().is_empty());
        let secrets = token_secrets(&config).unwrap();
        assert_eq!((secrets.len(), token_secrets(&config).unwrap()), (1, secrets));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(config.state.data_dir.join(TOKEN_KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(&config.state.data_dir).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_that_another_router_made_signs_and_the_own_one_is_still_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let config = config("", folder.path());
        let own = own_key(&config).unwrap().unwrap();
        assert!(!adopt_key(&config, &own).unwrap());
        let other = "k".repeat(64);
        assert!(adopt_key(&config, &other).unwrap());
        assert_eq!(token_secrets(&config).unwrap(), [secret(&other), secret(&own)]);
        assert_eq!(own_key(&config).unwrap(), Some(other));
        for number in 0..9 {
            adopt_key(&config, &number.to_string().repeat(40)).unwrap();
        }
        assert_eq!(token_secrets(&config).unwrap().len(), KEPT_KEYS);
        assert!(adopt_key(&config, "short").unwrap_err().to_string().contains("the key in the store"));
    }

    #[test]
    fn keys_of_the_config_come_first_and_must_be_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (new, old) = (file("new", &format!("{}\n", "n".repeat(32))), file("old", &"o".repeat(1_024)));
        let of = |paths: &[&PathBuf]| token_secrets(&config(&format!("token = {{ key_files = {paths:?} }}"), folder.path()));
        assert_eq!(of(&[&new, &old]).unwrap(), [secret(&"n".repeat(32)), secret(&"o".repeat(1_024))]);
        for bad in [file("short", "abc"), file("long", &"l".repeat(1_025)), file("blank", &"a ".repeat(20)), folder.path().join("none")] {
            let error = of(&[&new, &bad]).unwrap_err();
            assert_eq!(error.key(), "token.key_files");
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        assert!(!folder.path().join(TOKEN_KEY_FILE).exists());
    }
}
