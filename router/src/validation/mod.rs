//! Whether a model may be shown to users: one report, before any rollout.
//!
//! ```text
//! parent: artefact, live model, judged queries -> child process -> checks, a line each -> report
//!                                                 (limits)          formats, pickle: read, never run
//!                                                                   onnx: run by ONNX Runtime
//! ```
//!
//! Everything that touches a model's bytes happens in a child process with limits on memory, processor time and time ([`child`]); the parent reads checks.
//! A file that kills the child is refused, with what it was doing. `measures`, `paired`, `judged`, `vouched`, `formats` and `pickle` are pure. docs/VALIDATION.md.

mod child;
mod judged;
mod look;
mod measures;
mod onnx;
mod paired;
mod report;
mod vouched;

use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use child::{NoChild, Request};
pub use judged::{JUDGED_BYTES, Judged, JudgedFault, Query};
pub use report::{Check, Compared, Outcome, REPORT_BYTES, REPORT_FORM, Report};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
pub use vouched::{Numbered, QualityAsked, Reports};

use crate::config::Criteria;
use crate::onnx::load_library;
use crate::registry::Format;

/// A model, and what it is compared with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// `search:12`, or a file's name.
    pub name: String,
    /// The artefact.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
    /// The live model.
    pub live: Option<Live>,
    /// Judged queries.
    pub judged: Option<PathBuf>,
    /// ONNX Runtime's library, where somebody named one.
    pub onnxruntime: Option<PathBuf>,
    /// Who asks.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub now_ms: u64,
}

/// The model that users have now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Live {
    /// `search:11`, or a file's name.
    pub name: String,
    /// The artefact.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Validated {
    /// The report.
    pub report: Report,
    /// Golden queries with the model's scores, as JSON lines.
    pub golden: Option<Vec<u8>>,
}

/// Why nothing is known of a model.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// A file of ours cannot be read.
    #[error("{path}: cannot read it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No process.
    #[error(transparent)]
    Child(#[from] NoChild),
    /// ONNX Runtime or the live model cannot be used: it is not the model's fault.
    #[error("{0}")]
    Unusable(String),
    /// The judged queries make no sense.
    #[error("{0}")]
    Judged(String),
}

/// Looks at a model. `begins` hears what is being checked.
///
/// # Errors
/// [`ValidationError`]: nothing is known of the model. Whatever is wrong with the model itself is in the report.
pub async fn validate(subject: &Subject, criteria: &Criteria, begins: &(dyn Fn(&str) + Sync)) -> Result<Validated, ValidationError> {
    let began = Instant::now();
    let (sha256, bytes) = digest(&subject.file)?;
    let compared = |(name, file): (String, &Path)| -> Result<Compared, ValidationError> { Ok(Compared { name, sha256: digest(file)?.0 }) };
    let live = subject.live.as_ref().map(|live| compared((live.name.clone(), &live.file))).transpose()?;
    let named = |path: &PathBuf| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let judged = subject.judged.as_ref().map(|path| compared((named(path), path))).transpose()?;
    let request = Request {
        file: subject.file.clone(),
        format: subject.format,
        live: subject.live.clone(),
        judged: subject.judged.clone(),
        onnxruntime: subject.onnxruntime.clone(),
        criteria: criteria.clone(),
    };
    let said = child::ask(&request, begins).await?;
    if let Some(why) = said.unusable {
        return Err(ValidationError::Unusable(why));
    }
    if let Some(why) = said.usage {
        return Err(ValidationError::Judged(why));
    }
    let golden = said.golden;
    let report = Report {
        form: REPORT_FORM,
        passed: report::is_passed(&said.checks),
        name: subject.name.clone(),
        sha256,
        bytes,
        format: subject.format,
        live,
        judged,
        checks: said.checks,
        inputs: said.inputs,
        outputs: said.outputs,
        globals: said.globals,
        golden: golden.as_ref().map(|golden| hex::encode(Sha256::digest(golden))),
        criteria: criteria.clone(),
        who: subject.who.clone(),
        at_ms: subject.now_ms,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        by: concat!("switchback ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    Ok(Validated { report, golden })
}

/// What the child does: takes a request, looks, and says what it finds on standard output. Blocks.
///
/// # Errors
/// A request that makes no sense; limits that the system refuses; ONNX Runtime, the live model or judged queries that cannot be used.
pub fn look(request: &str) -> Result<(), String> {
    let request: Request = serde_json::from_str(request).map_err(|error| format!("no request: {error}"))?;
    // Of ours, and not of the model's: it may take what it takes.
    let library = (request.format == Format::Onnx).then(|| load_library(request.onnxruntime.as_deref()));
    child::limit(&request.criteria.cost).map_err(|error| format!("no limits: {error}"))?;
    look::look(&request, library, std::io::stdout().lock())
}

/// SHA-256 of a file, and its size.
/// A file's SHA-256, as hex digits, and its size.
///
/// # Errors
/// [`ValidationError::File`].
pub fn digest(path: &Path) -> Result<(String, u64), ValidationError> {
    let failed = |source| ValidationError::File { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hash, mut bytes, mut part) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut part).map_err(failed)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(part.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}
