//! Files of which somebody says that only their backend can read them: what of them that backend, or whoever else loads them, would unpickle. A label is believed of what a file is,
//! and not of what it does.
//!
//! Invariant: what a loader would find in the bytes is walked by the rules of `examine`, or is refused.

use std::io::Read as _;

use super::allowed::Allowed;
use super::archive::{Kind, look, unpacked};
use super::compression::Compression;
use super::error::{Fault, Place, Unsafe};
use super::examine::{Container, Examined, budget, examine, examined};
use super::input::Input;
use super::limits::Limits;
use super::machine::Rules;
use super::nature::{is_unpickled, names_something};
use super::npy;
use super::polyglot::second_nature;
use super::report::Report;
use super::skops;
use super::walk::verdict;
use super::zip_layout::{Entry, LOCAL, entries};

/// So many of an entry's first bytes say whether it is something else in turn.
const HEAD_BYTES: u64 = 8;
/// So many of what is compressed: the header of a tar archive.
const INNER_BYTES: u64 = 512;

/// Examines a file that is said to be none of ours. `bytes` is the whole file. `None`: nothing in it is unpickled.
///
/// # Errors
/// As [`examine`]; also an archive in which another one is, or something compressed; a compressed archive, array file or stream; and one of skops whose types are not allowed.
pub fn examine_opaque(bytes: &[u8], allowed: &Allowed, limits: &Limits) -> Result<Option<Examined>, Unsafe> {
    if bytes.len() as u64 > limits.bytes {
        return Err(Unsafe::Container(format!("the file has {} bytes: at most {} are looked at", bytes.len(), limits.bytes)));
    }
    if bytes.starts_with(LOCAL) {
        return match examine(bytes, allowed, limits) {
            // Torch's and numpy's are walked as theirs; this is another one.
            Err(Unsafe::Container(_)) => archive(bytes, Rules { allowed, limits }),
            known => known.map(Some),
        };
    }
    if let Some(what) = compressed(bytes, limits) {
        return Err(Unsafe::Container(format!("the file is {what} that is compressed, which is not looked into")));
    }
    if second_nature(bytes).is_some() || is_unpickled(bytes, limits) {
        return examine(bytes, allowed, limits).map(Some);
    }
    Ok(None)
}

/// What is in a compressed file, where that is no stream of opcodes: others open it when they have unpacked it. A file that cannot be unpacked is refused by who reads all of it.
fn compressed(bytes: &[u8], limits: &Limits) -> Option<&'static str> {
    let stream = Compression::guess(bytes)?.open(bytes, limits.dictionary_bytes).ok()?;
    let mut head = Vec::new();
    // What comes before an error counts.
    drop(stream.take(INNER_BYTES).read_to_end(&mut head));
    match second_nature(&head) {
        _ if head.starts_with(LOCAL) => Some("a ZIP archive"),
        _ if head.starts_with(npy::MAGIC) => Some("an array file"),
        _ if Compression::guess(&head).is_some() => Some("something compressed"),
        other => other,
    }
}

/// Each entry is what its bytes are.
fn archive(bytes: &[u8], rules: Rules<'_>) -> Result<Option<Examined>, Unsafe> {
    let entries = entries(bytes, rules.limits.entries).map_err(Unsafe::Container)?;
    let (mut budget, mut report) = (budget(bytes, rules.limits), Report::default());
    let mut types = Vec::new();
    for entry in &entries {
        report.place = Place { entry: Some(entry.name.clone()), ..Place::default() };
        if entry.name == skops::SCHEMA {
            types = skops::types(unpacked(entry), rules.allowed).map_err(Unsafe::Container)?;
        }
        let fault = match kind(entry, rules) {
            Ok(kind) => look(entry, kind, rules, &mut budget, &mut report),
            Err(fault) => Some(fault),
        };
        verdict(fault, &mut report)?;
    }
    if report.pickles == 0 && types.is_empty() {
        return Ok(None);
    }
    let mut found = examined(Container::Archive, None, &report);
    found.globals.append(&mut types);
    found.globals.sort_unstable();
    found.globals.dedup();
    Ok(Some(found))
}

fn kind(entry: &Entry<'_>, rules: Rules<'_>) -> Result<Kind, Fault> {
    let mut head = Vec::new();
    unpacked(entry)
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(|error| Fault::broken(format!("it cannot be decompressed: {error}")))?;
    if head.starts_with(LOCAL) {
        return Err(Fault::broken("it is an archive in an archive, which is not looked into"));
    }
    if let Some(compression) = Compression::guess(&head) {
        let how = format!("{compression:?}").to_lowercase();
        return Err(Fault::broken(format!("it is compressed in an archive ({how}), which is not looked into")));
    }
    if head.starts_with(npy::MAGIC) {
        return Ok(Kind::Array);
    }
    // Counted once, where it is read in earnest.
    let whole = budget(entry.packed, rules.limits);
    if !names_something(&mut Input::new(unpacked(entry), whole), rules.limits) {
        return Ok(Kind::Raw);
    }
    let is_torch = entry.name.split_once('/').is_some_and(|(_, inner)| inner == "data.pkl");
    Ok(if is_torch { Kind::TorchPickle } else { Kind::Pickle })
}
