//! What a router before this one, in the same data folder, had counted and not told when it was killed: counted as dropped.
//!
//! Where there may be other routers, each process keeps a tally in `untold/` in the data folder, locked for as long as it lives; and each looks, at its start and from
//! time to time, for tallies that nobody holds any more.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use crate::flags::random_id;
use crate::quality::{Books, Number, TALLY_BYTES, keep_tally, route_id, untold};

/// Filesystems where pages that were written once have their room for good: ext4, xfs, tmpfs, and overlayfs, by the numbers of statfs(2). Elsewhere (a full btrfs) a
/// page that is written again may find no room, which would end the process.
const FILESYSTEMS: [u64; 4] = [0xEF53, 0x5846_5342, 0x0102_1994, 0x794C_7630];
/// Tallies that one look takes in.
const MOST: usize = 64;

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Tallies {
    folder: PathBuf,
}

impl Tallies {
    /// Begins this process's own. One that cannot be kept is a warning: a kill then loses without a count.
    pub(super) fn open(data_dir: &Path) -> Tallies {
        let folder = data_dir.join("untold");
        if let Err(error) = keep(&folder) {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "what this process counts and has not told is not known when it is killed");
        }
        Tallies { folder }
    }

    /// Counts as dropped what processes that are gone had not told.
    pub(super) fn look(&self, books: &Books) {
        // The routes are not known yet.
        if books.lock().is_empty() {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let tallies = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "tally"));
        for path in tallies.take(MOST) {
            if let Err(error) = take_in(&path, books) {
                tracing::warn!(file = %path.display(), %error, "what another process had not told is not known");
            }
        }
    }
}

fn keep(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(random_id());
    let mut file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    let kept = file.try_lock().map_err(io::Error::from).and_then(|()| {
        if !FILESYSTEMS.contains(&u64::try_from(fstatfs(&file)?.f_type).unwrap_or(0)) {
            return Err(io::Error::other("the filesystem gives written pages no room for good"));
        }
        file.write_all(&vec![0; TALLY_BYTES])?;
        // Whoever cut it off would end this process: nobody opens it for writing by mistake.
        file.set_permissions(fs::Permissions::from_mode(0o400))?;
        // Under its name only once it is locked: nobody takes it for one that was left.
        fs::rename(&path, path.with_extension("tally"))?;
        keep_tally(file)
    });
    if kept.is_err() {
        let _ = fs::remove_file(&path);
    }
    kept
}

fn take_in(path: &Path, books: &Books) -> io::Result<()> {
    let mut file = File::open(path)?;
    // Whoever holds it lives.
    if file.try_lock().is_err() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(TALLY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    // One that was cut off is of a process that was killed before it counted anything.
    let lost = untold(&bytes);
    fs::remove_file(path)?;
    for ((route, version), lost) in lost.map_err(io::Error::other)? {
        let (requests, impressions, clicks) = (lost[Number::Requests], lost[Number::Impressions], lost[Number::Clicks]);
        let mut books = books.lock();
        let book = books.iter_mut().find(|(name, _)| route_id(name) == route);
        let name = book.as_ref().map_or("one that this config does not have", |(name, _)| name);
        tracing::warn!(
            route = name,
            requests,
            impressions,
            clicks,
            "a router before this one was killed before it told the fleet of these"
        );
        if let Some((_, book)) = book {
            book.dropped.entry(version).or_default().merge(&lost);
        }
    }
    Ok(())
}
