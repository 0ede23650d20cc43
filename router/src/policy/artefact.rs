//! Compiled components, kept on disk so that nothing is compiled twice.
//!
//! A file is named by the digest of the component and by the engine's compatibility hash, so that another version of the
//! router, or another CPU, compiles for itself. It begins with a MAC over all three.
//!
//! Invariant: nothing is loaded from here that this router's own key did not sign. A cache that cannot be used costs time only.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher24;
use wasmtime::Engine;
use wasmtime::component::Component;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Compiled components that are kept; a component is about 100 KB to 2 MB.
const MOST_FILES: usize = 128;

/// The folder of compiled components.
pub(crate) struct ArtefactCache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    engine_hash: u64,
}

impl ArtefactCache {
    /// Opens the folder, making it and its key when they are not there.
    ///
    /// # Errors
    /// When the folder cannot be made, or somebody else could write to it.
    pub(super) fn open(dir: &Path, engine: &Engine) -> io::Result<ArtefactCache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        check_private(dir)?;
        let mut hasher = SipHasher24::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(ArtefactCache { dir: dir.to_owned(), key: load_or_make_key(dir)?, engine_hash: hasher.finish() })
    }

    /// The compiled component from the cache; `None` when it is not there, or is not what this router wrote.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let file = fs::read(self.path(digest)).ok()?;
        let (mac, code) = file.split_at_checked(MAC_BYTES)?;
        if self.mac(digest, code).verify_slice(mac).is_err() {
            tracing::warn!(digest, "a compiled policy in the cache is not what this router wrote; compiling anew");
            return None;
        }
        trusted_component(engine, code)
    }

    /// Keeps a compiled component. A failure is logged: it costs a compilation at the next start.
    pub(super) fn store(&self, digest: &str, code: &[u8]) {
        let path = self.path(digest);
        let mac = self.mac(digest, code).finalize().into_bytes();
        let written = write_atomically(&self.dir, &path, |file| {
            file.write_all(&mac)?;
            file.write_all(code)
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "a compiled policy cannot be kept");
        }
        prune(&self.dir, "cwasm", MOST_FILES, |_| false);
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{:016x}.cwasm", self.engine_hash))
    }

    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    fn mac(&self, digest: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key length");
        mac.update(digest.as_bytes());
        mac.update(&self.engine_hash.to_le_bytes());
        mac.update(code);
        mac
    }
}

/// Loads compiled code that [`ArtefactCache::load`] has checked.
#[allow(unsafe_code)]
fn trusted_component(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` must only be given what `precompile_component` made. The bytes are in our own memory, so that
    // nobody changes them between the check and here, and their MAC was just verified: they were written by a process that
    // knew the key, which lies in a folder that only this user can read or write, and whose only use is to sign what
    // `precompile_component` returned. Whoever can read that key can replace this program too. A file of another engine version or
    // CPU is refused by wasmtime itself, and the engine's hash is part of the MAC.
    let component = unsafe { Component::deserialize(engine, code) };
    component.inspect_err(|error| tracing::warn!(%error, "a compiled policy in the cache does not load; compiling anew")).ok()
}

/// Refuses a folder that somebody else owns or can write to.
fn check_private(dir: &Path) -> io::Result<()> {
    let folder = fs::metadata(dir)?;
    let probe = tempfile::NamedTempFile::new_in(dir)?;
    let is_own = folder.uid() == probe.as_file().metadata()?.uid();
    if !is_own {
        return Err(io::Error::other("another user owns it"));
    }
    if folder.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn load_or_make_key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = dir.join("key");
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&key)?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(key),
        // Another router with the same data folder was quicker.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(&path)?.ok_or_else(|| io::Error::other("its key is broken"))
        }
        Err(error) => Err(error.error),
    }
}

/// The key; `None` when there is none. A key of another length is removed, which empties the cache.
fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    match fs::read(path) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => Ok(Some(key)),
            Err(_) => fs::remove_file(path).map(|()| None),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file so that a reader, or a crash, sees all of it or none.
pub(super) fn write_atomically(
    dir: &Path,
    path: &Path,
    write: impl FnOnce(&mut tempfile::NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    write(&mut file)?;
    file.as_file().sync_all()?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

/// Removes the oldest files of this kind beyond `most`, but for those that are in use.
pub(super) fn prune(dir: &Path, extension: &str, most: usize, is_in_use: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let of_this_kind = paths.filter(|path| path.extension().is_some_and(|found| found == extension) && !is_in_use(path));
    let mut files: Vec<_> = of_this_kind.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).collect();
    files.sort();
    let surplus = files.len().saturating_sub(most);
    for (_, path) in files.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}
