//! A bundle's bytes, and the file that they are put into.

use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Bundle, MANIFEST};
use crate::cli::Failure;

/// The file's bytes: the manifest first, so that whoever reads it knows what comes.
pub(in crate::cli) fn pack(bundle: &Bundle) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let made = bundle.manifest.made_unix_ms / 1_000;
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(made);
        archive.append_data(&mut header, name, bytes)
    };
    add(MANIFEST, bundle.manifest.text().as_bytes())?;
    for (name, bytes) in &bundle.members {
        add(name, bytes)?;
    }
    archive.into_inner()?.finish()
}

/// Puts it into a file that its owner alone may read. One that is there already stays as it is.
///
/// # Errors
/// There is one already, or it cannot be written.
pub(in crate::cli) fn put(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let why = format!("--bundle {}: cannot be written: {error}", file.display());
        if error.kind() == io::ErrorKind::StorageFull { Failure::no_room(why) } else { Failure::usage(why) }
    };
    if file.exists() {
        return Err(Failure::usage(format!("--bundle {}: there is such a file already: name another, or remove it", file.display())));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new().prefix(".bundle.").tempfile_in(folder).map_err(failed)?;
    beside.write_all(bytes).map_err(failed)?;
    beside.as_file().sync_all().map_err(failed)?;
    beside.persist_noclobber(file).map(drop).map_err(|error| failed(error.error))
}
