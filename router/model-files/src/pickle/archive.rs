//! Archives: torch's and numpy's. Each entry is walked, or is raw data of a known kind; any other is refused. Invariant: what an entry is
//! follows from its name and bytes, never from what the archive says of itself.

use std::io::{self, Read};

use super::error::{Fault, Place, shown};
use super::input::{Budget, Input};
use super::machine::Rules;
use super::npy;
use super::report::Report;
use super::walk::{Contents, walk};
use super::zip_layout::{Entry, entries};

/// The small entries of a torch archive that torch reads as text.
const TORCH_TEXTS: &[&str] = &["version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"];
/// The longest of them, in bytes.
const TEXT_BYTES: u64 = 64;

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    Torch,
    Npz,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    TorchPickle,
    Raw,
    Text,
    Array,
    Pickle,
}

/// Examines all entries. An error is about the archive; what is wrong in an entry is in `report`, or is the fault that comes back.
pub(super) fn examine(
    bytes: &[u8],
    rules: Rules<'_>,
    budget: &mut Budget,
    report: &mut Report,
) -> Result<(Archive, Option<Fault>), String> {
    let entries = entries(bytes, rules.limits.entries)?;
    let mut kinds = Vec::new();
    for entry in &entries {
        kinds.push(kind(entry)?);
    }
    let archive = check_whole(&entries, &kinds)?;
    for (entry, kind) in entries.iter().zip(&kinds) {
        report.place = Place { entry: Some(entry.name.clone()), ..Place::default() };
        if let Some(fault) = look(entry, *kind, rules, budget, report) {
            return Ok((archive, Some(fault)));
        }
    }
    Ok((archive, storages(&entries, report)))
}

/// Whether each storage that a pickle asked for is there, and as long as it says.
fn storages(entries: &[Entry<'_>], report: &mut Report) -> Option<Fault> {
    for (key, bytes) in std::mem::take(&mut report.storages) {
        let is_its = |entry: &&Entry<'_>| entry.name.split_once('/').is_some_and(|(_, inner)| inner.strip_prefix("data/") == Some(&key));
        let found = entries.iter().find(is_its).map(|entry| entry.bytes);
        if found != Some(bytes) {
            report.place = Place { entry: Some(format!("data/{key}")), ..Place::default() };
            let found = found.map_or_else(|| "it is not there".to_owned(), |found| format!("it has {found} bytes"));
            return Some(Fault::broken(format!("a storage of a tensor has {bytes} bytes, and {found}")));
        }
    }
    None
}

fn check_whole(entries: &[Entry<'_>], kinds: &[Kind]) -> Result<Archive, String> {
    let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
    match (count(Kind::TorchPickle), count(Kind::Array)) {
        (1, 0) => {
            let folder = |entry: &Entry<'_>| entry.name.split('/').next().map(str::to_owned);
            let first = entries.first().and_then(folder);
            if entries.iter().any(|entry| folder(entry) != first) {
                return Err("a torch archive has more than one folder".to_owned());
            }
            Ok(Archive::Torch)
        }
        (0, 1..) if count(Kind::Raw) + count(Kind::Text) == 0 => Ok(Archive::Npz),
        _ => Err("the archive is neither torch's (one data.pkl) nor numpy's (.npy files)".to_owned()),
    }
}

/// What an entry is by its name, and by its bytes where the name says nothing.
fn kind(entry: &Entry<'_>) -> Result<Kind, String> {
    let inner = entry.name.split_once('/').map_or("", |(_, inner)| inner);
    let storage = inner.strip_prefix("data/").unwrap_or_default();
    match inner {
        "data.pkl" => Ok(Kind::TorchPickle),
        _ if !storage.is_empty() && storage.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Kind::Raw),
        _ if TORCH_TEXTS.contains(&inner) && entry.bytes <= TEXT_BYTES => Ok(Kind::Text),
        _ if entry.name.ends_with(".npy") => Ok(Kind::Array),
        _ if !has_code_name(&entry.name) && begins_a_pickle(entry) => Ok(Kind::Pickle),
        _ => Err(format!("{}: the archive has an entry that is neither torch's nor numpy's", shown(&entry.name))),
    }
}

fn begins_a_pickle(entry: &Entry<'_>) -> bool {
    let mut first = [0; 2];
    unpacked(entry).read_exact(&mut first).is_ok() && matches!(first, [0x80, 2..=5])
}

/// What some loader would load or run by its name.
fn has_code_name(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    matches!(
        extension.as_str(),
        "pkl" | "pickle" | "joblib" | "py" | "pyc" | "so" | "dll" | "pyd" | "dylib" | "zip" | "npz" | "pt" | "pth" | "sh"
    )
}

/// An entry's bytes as they were before they were packed.
pub(super) fn unpacked<'a>(entry: &Entry<'a>) -> Box<dyn Read + 'a> {
    if entry.is_deflated { Box::new(flate2::bufread::DeflateDecoder::new(entry.packed)) } else { Box::new(entry.packed) }
}

/// Walks an entry, or reads it to its end; a fault is about the place that `report` has.
pub(super) fn look(entry: &Entry<'_>, kind: Kind, rules: Rules<'_>, budget: &mut Budget, report: &mut Report) -> Option<Fault> {
    let stream = Checked { reader: unpacked(entry), hash: crc32fast::Hasher::new(), bytes: 0 };
    let input = Input::new(stream, *budget);
    let contents = match kind {
        Kind::TorchPickle => Contents::Torch,
        _ => Contents::One,
    };
    let walked = match kind {
        Kind::TorchPickle | Kind::Pickle => walk(rules, input, contents, report),
        Kind::Array => array(rules, input, report),
        Kind::Raw | Kind::Text => drain(input),
    };
    let input = match walked {
        Ok(input) => input,
        Err(fault) => return Some(fault),
    };
    let (stream, spent) = input.into_parts();
    *budget = spent;
    let is_whole = stream.bytes == entry.bytes && stream.hash.finalize() == entry.crc;
    (!is_whole).then(|| Fault::broken("it has not the length or the checksum that the archive says"))
}

/// An array file: raw data, or one pickle.
pub(super) fn array<R: Read>(rules: Rules<'_>, input: Input<R>, report: &mut Report) -> Result<Input<R>, Fault> {
    let mut input = input;
    let mut start = Vec::new();
    // The length of a header is in its first 12 bytes, and no array file is shorter.
    input.data(npy::LENGTH_AT, usize::MAX, &mut start)?;
    let rest = npy::rest_of_header(&start).map_err(Fault::Broken)?;
    let mut text = Vec::new();
    input.data(rest, usize::MAX, &mut text)?;
    start.append(&mut text);
    let header = npy::header(&start).map_err(Fault::Broken)?;
    if header.is_pickle {
        return walk(rules, input, Contents::One, report);
    }
    let start = input.position();
    let input = drain(input)?;
    match input.position() - start {
        bytes if bytes == header.bytes => Ok(input),
        bytes => Err(Fault::broken(format!("by its shape and type its data has {} bytes, and there are {bytes}", header.bytes))),
    }
}

/// Reads raw data to its end: it counts, and its checksum is looked at.
fn drain<R: Read>(mut input: Input<R>) -> Result<Input<R>, Fault> {
    while !input.is_at_end()? {
        input.skip_buffer()?;
    }
    Ok(input)
}

/// A stream whose checksum is counted.
struct Checked<R> {
    reader: R,
    hash: crc32fast::Hasher,
    bytes: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(count as u64);
        Ok(count)
    }
}
