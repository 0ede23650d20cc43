//! Reads a bundle, which is whatever somebody sent: bounded, no name that leads elsewhere, nothing but plain files, and every member as the manifest has it.
//!
//! Nothing is unpacked to disk.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::EntryType;

use super::manifest::{Manifest, quoted, sha256, shown};
use super::{ALL_BYTES, Bundle, FILE_BYTES, MANIFEST, MANIFEST_BYTES, MEMBER_BYTES, MOST_MEMBERS, Members, is_name};
use crate::cli::Failure;
use crate::cli::model_push::regular;

/// What an archive takes beside its members: heads, padding, and zeros at its end.
const FRAME_BYTES: u64 = 4 << 20;

/// Reads the bundle in this file.
///
/// # Errors
/// It is not there, or is no bundle: which member, and why.
pub(in crate::cli) fn open(file: &Path) -> Result<Bundle, Failure> {
    let cannot = |error: io::Error| Failure::usage(format!("{}: cannot be read: {error}", file.display()));
    regular(file)?;
    let opened = File::open(file).map_err(cannot)?;
    let length = opened.metadata().map_err(cannot)?.len();
    let refused = |why: String| Failure::refused(format!("{}: no bundle that can be trusted: {why}", file.display()));
    if length > FILE_BYTES {
        return Err(refused(format!("it has {length} bytes; {FILE_BYTES} at most are allowed")));
    }
    // A device has no length, and no end.
    read(BufReader::new(opened.take(FILE_BYTES))).map_err(refused)
}

/// Reads a bundle's bytes.
///
/// # Errors
/// Which member is wrong, and how.
pub(in crate::cli) fn read(file: impl io::BufRead) -> Result<Bundle, String> {
    let mut unpacked = GzDecoder::new(file).take(ALL_BYTES + FRAME_BYTES);
    let mut last = "the beginning".to_owned();
    let (manifest, members) = read_members(&mut unpacked, &mut last)?;
    // What follows is nothing but zeros; and with its end comes the checksum of everything.
    let mut rest = [0_u8; 8_192];
    loop {
        match unpacked.read(&mut rest) {
            Ok(0) => break,
            Ok(read) if rest.iter().take(read).all(|byte| *byte == 0) => {}
            Ok(_) => return Err(format!("something follows after {last}, and belongs to no member")),
            Err(error) => return Err(format!("after {last}: damaged: {error}")),
        }
    }
    if unpacked.limit() == 0 {
        return Err(format!("more than {ALL_BYTES} bytes unpacked"));
    }
    if !unpacked.into_inner().into_inner().fill_buf().is_ok_and(<[u8]>::is_empty) {
        return Err("something follows after its end".to_owned());
    }
    if let Some(missing) = manifest.members.iter().find(|member| !members.contains_key(&member.name)) {
        return Err(format!("{}: {MANIFEST} names it, and it is not there", missing.name));
    }
    Ok(Bundle { manifest, members })
}

/// `last` is how far it came, for whoever goes on.
fn read_members(unpacked: &mut impl Read, last: &mut String) -> Result<(Manifest, Members), String> {
    let mut archive = tar::Archive::new(unpacked);
    let mut manifest: Option<Manifest> = None;
    let mut members = Members::new();
    // As they stand: names of their own members, links and sparse files are things of a kind that is refused.
    for entry in archive.entries().map_err(|error| format!("no archive: {}", quoted(&error)))?.raw(true) {
        let mut entry = entry.map_err(|error| format!("after {last}: damaged: {}", quoted(&error)))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.header().entry_size().map_err(|error| format!("after {last}: {}", quoted(&error)))?;
        let kind = entry.header().entry_type();
        if !is_name(&name) {
            return Err(format!("a member \"{}\": a name must stay inside, of letters, digits and . - _ @", quoted(&shown(&name))));
        }
        if kind != EntryType::Regular {
            return Err(format!("{name}: {kind:?}: must be a plain file"));
        }
        let most = if manifest.is_some() { MEMBER_BYTES } else { MANIFEST_BYTES };
        if size > most {
            return Err(format!("{name}: {size} bytes; {most} at most are allowed"));
        }
        if members.len() == MOST_MEMBERS {
            return Err(format!("{name}: more than {MOST_MEMBERS} members"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| format!("{name}: damaged: {error}"))?;
        match &manifest {
            None if name != MANIFEST => return Err(format!("{name}: the first member must be {MANIFEST}")),
            None => manifest = Some(Manifest::read(&bytes)?),
            Some(manifest) => {
                let seen = manifest.member(&name).ok_or_else(|| format!("{name}: {MANIFEST} does not name it"))?;
                let found = sha256(&bytes);
                if (seen.bytes, &seen.sha256) != (bytes.len() as u64, &found) {
                    return Err(format!("{name}: its SHA-256 is {found}, and must be {}", shown(&seen.sha256)));
                }
                if members.insert(name.clone(), bytes).is_some() {
                    return Err(format!("{name}: there twice"));
                }
            }
        }
        last.clone_from(&name);
    }
    manifest.map(|manifest| (manifest, members)).ok_or_else(|| format!("it is empty: no {MANIFEST}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::manifest::About;
    use super::super::{pack, write};
    use super::*;

    pub(in crate::cli::bundle) fn bundle() -> Bundle {
        let members = Members::from([("README.txt".to_owned(), b"read me".to_vec()), ("windows/1/a.jsonl".to_owned(), vec![b'x'; 3_000])]);
        let (router, route) = ("a:1".to_owned(), "search".to_owned());
        let about = About { router, route, at_ms: 5, from_ms: 1, to_ms: 9, missing: Vec::new() };
        // Made at one moment, whenever it is made.
        let mut manifest = Manifest::of(about, &members);
        manifest.made_unix_ms = 7;
        Bundle { manifest, members }
    }

    /// An archive with these members after a manifest that names them.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let bundle = bundle();
        let manifest = bundle.manifest.text();
        for (name, kind, bytes) in [(MANIFEST, EntryType::Regular, manifest.as_bytes())].iter().chain(entries) {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &archive.into_inner().unwrap()).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn a_bundle_is_read_as_it_was_packed() {
        assert_eq!(read(pack(&bundle()).unwrap().as_slice()).unwrap(), bundle());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.tar.gz");
        write::put(&file, &pack(&bundle()).unwrap()).unwrap();
        assert!(open(&file).is_ok());
        assert!(write::put(&file, b"other").is_err(), "what is there stays");
    }

    #[test]
    fn garbage_is_refused_in_a_few_plain_words() {
        let garbage: Vec<u8> = (0..5_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &garbage).unwrap();
        for bytes in [packed.finish().unwrap(), garbage] {
            let why = read(bytes.as_slice()).unwrap_err();
            assert!(why.len() < 2_000 && why.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{why}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_plain_file_is_refused() {
        let refused = |entries: &[(&str, EntryType, &[u8])]| read(archive(entries).as_slice()).unwrap_err();
        for name in ["../evil", "/etc/cron.d/evil", "a/../../evil"] {
            let why = refused(&[(name, EntryType::Regular, b"x")]);
            assert!(why.contains(name) && why.contains("must stay inside"), "{why}");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Directory, EntryType::GNUSparse, EntryType::XHeader] {
            let why = refused(&[("README.txt", kind, b"")]);
            assert!(why.contains("README.txt") && why.contains("must be a plain file"), "{why}");
        }
        assert!(refused(&[("other", EntryType::Regular, b"x")]).contains("other: manifest.json does not name it"));
        assert!(refused(&[("README.txt", EntryType::Regular, b"read mE")]).starts_with("README.txt: its SHA-256 is"));
        let twice: [(&str, EntryType, &[u8]); 2] = [("README.txt", EntryType::Regular, b"read me"); 2];
        assert!(refused(&twice).contains("there twice"));
        assert!(refused(&[("README.txt", EntryType::Regular, b"read me")]).contains("windows/1/a.jsonl: manifest.json names it"));
    }

    #[test]
    fn a_size_that_is_a_lie_takes_no_room() {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..MANIFEST.len()].copy_from_slice(MANIFEST.as_bytes());
        header.set_size(MEMBER_BYTES);
        header.set_cksum();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, header.as_bytes()).unwrap();
        let why = read(packed.finish().unwrap().as_slice()).unwrap_err();
        assert!(why.contains("manifest.json: 268435456 bytes; 1048576 at most"), "{why}");
    }

    /// Whatever byte is another one: refused, or the same bundle, for the few that say nothing (the time and the system in gzip's own head, lengths of codes that nothing
    /// uses, the bits that fill up the last byte before its checksum).
    #[test]
    fn a_flipped_byte_changes_nothing_unseen() {
        let whole = pack(&bundle()).unwrap();
        let mut silent = 0;
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            match read(flipped.as_slice()) {
                Ok(read) => {
                    assert!(read == bundle(), "byte {at} of {}", whole.len());
                    silent += 1;
                }
                Err(why) => assert!(!why.is_empty(), "byte {at}"),
            }
        }
        assert!(silent < 20, "{silent} of {}", whole.len());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
    }
}
