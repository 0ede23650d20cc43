//! From the bytes of a file to a verdict: what container it is, and then a walk over what is in it.

use serde::{Deserialize, Serialize};

use super::allowed::Allowed;
use super::archive::{self, Archive};
use super::compression::Compression;
use super::error::{Fault, Unsafe};
use super::input::{Budget, Input};
use super::limits::Limits;
use super::machine::Rules;
use super::npy;
use super::polyglot::second_nature;
use super::report::Report;
use super::walk::{Contents, verdict, walk};
use super::zip_layout::LOCAL;

/// What kind of a file it is, and so what reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Pickles: `pickle.load` reads it, and `joblib.load` too.
    Pickle,
    /// A pickle with arrays between its opcodes, or a compressed one: `joblib.load`.
    Joblib,
    /// An archive of `torch.save`: `torch.load`.
    Torch,
    /// An array file: `numpy.load`.
    Npy,
    /// An archive of them: `numpy.load`.
    Npz,
    /// Another archive, in which something is unpickled.
    Archive,
}

/// What is known of an artefact that may be handed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// What kind of a file it is.
    pub container: Container,
    /// How it is compressed, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// How many pickles are in it; none in an archive of raw arrays.
    pub pickles: u32,
    /// The highest protocol of them; 0 where none says one.
    pub protocol: u8,
    /// Every global that they name, `module.name` as Python 3 knows it, sorted.
    pub globals: Vec<String>,
    /// How many opcodes were walked.
    pub opcodes: u64,
}

/// Examines an artefact. `bytes` is the whole file.
///
/// # Errors
///
/// [`Unsafe`] with everything that is refused, when it names or does something that `allowed` does not have; when it is broken, or readable
/// in two ways; when it is over `limits`.
pub fn examine(bytes: &[u8], allowed: &Allowed, limits: &Limits) -> Result<Examined, Unsafe> {
    if bytes.len() as u64 > limits.bytes {
        return Err(Unsafe::Container(format!("the file has {} bytes: at most {} are looked at", bytes.len(), limits.bytes)));
    }
    let rules = Rules { allowed, limits };
    let mut report = Report::default();
    let (container, compression) = look(bytes, rules, &mut report)?;
    let container = if report.has_joblib_arrays || compression.is_some() { Container::Joblib } else { container };
    Ok(examined(container, compression, &report))
}

/// What is known after a walk that refused nothing.
pub(super) fn examined(container: Container, compression: Option<Compression>, report: &Report) -> Examined {
    Examined {
        container,
        compression,
        pickles: report.pickles,
        protocol: report.protocol,
        globals: report.labels(),
        opcodes: report.opcodes,
    }
}

fn look(bytes: &[u8], rules: Rules<'_>, report: &mut Report) -> Result<(Container, Option<Compression>), Unsafe> {
    let mut budget = budget(bytes, rules.limits);
    if bytes.starts_with(LOCAL) {
        check_nesting(rules.limits, 3)?;
        let (archive, fault) = archive::examine(bytes, rules, &mut budget, report).map_err(Unsafe::Container)?;
        verdict(fault, report)?;
        return Ok((if archive == Archive::Torch { Container::Torch } else { Container::Npz }, None));
    }
    if let Some(other) = second_nature(bytes) {
        return Err(Unsafe::Container(format!("the file is also {other}, which another reader would find in it")));
    }
    if bytes.starts_with(npy::MAGIC) {
        check_nesting(rules.limits, 2)?;
        verdict(archive::array(rules, Input::new(bytes, budget), report).err(), report)?;
        return Ok((Container::Npy, None));
    }
    if let Some(compression) = Compression::guess(bytes) {
        check_nesting(rules.limits, 2)?;
        let stream = compression.open(bytes, rules.limits.dictionary_bytes).map_err(Unsafe::Container)?;
        let walked = walk(rules, Input::new(stream, budget), Contents::Pickles, report);
        let left_over = match walked {
            Ok(input) => input.into_parts().0.left_over(),
            Err(fault) => return verdict(Some(fault), report).map(|()| (Container::Joblib, None)),
        };
        verdict((left_over > 0).then(|| Fault::broken(format!("{left_over} bytes come after the compressed stream"))), report)?;
        return Ok((Container::Pickle, Some(compression)));
    }
    verdict(walk(rules, Input::new(bytes, budget), Contents::Pickles, report).err(), report)?;
    Ok((Container::Pickle, None))
}

/// How much may come out of a file: less for a small one, so that it cannot make much work.
pub(super) fn budget(bytes: &[u8], limits: &Limits) -> Budget {
    let by_ratio = (bytes.len() as u64).saturating_mul(limits.ratio).max(limits.ratio_from);
    if by_ratio < limits.unpacked_bytes {
        return Budget { spent: 0, limit: by_ratio, what: "bytes after decompression for a file of this size" };
    }
    Budget { spent: 0, limit: limits.unpacked_bytes, what: "bytes after decompression" }
}

fn check_nesting(limits: &Limits, depth: u32) -> Result<(), Unsafe> {
    if depth > limits.nesting {
        return Err(Unsafe::Container(format!("containers are {depth} deep: at most {} are opened", limits.nesting)));
    }
    Ok(())
}
