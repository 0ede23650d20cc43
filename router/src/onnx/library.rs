//! ONNX Runtime's shared library: where it is looked for, and what to do when it is nowhere.
//!
//! It is loaded at run time, so that only what ranks with ONNX needs it. `ort` panics when the library is missing and it was not
//! asked first; so nothing here or above touches `ort` before [`load_library`] has succeeded.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

/// The loaded library. One per process: `ort` allows no second environment.
#[derive(Debug)]
pub struct Library {
    /// Where it was found; a bare file name when the system's loader found it.
    pub path: PathBuf,
    /// What sessions are made in.
    pub(super) environment: Environment,
}

/// Why ONNX Runtime cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LibraryError {
    /// It is nowhere.
    #[error(
        "the ONNX Runtime library ({FILE_NAME}) was not found. Get it with `make onnxruntime` or `scripts/fetch_onnxruntime.sh`, or \
         point the variable ORT_DYLIB_PATH at it, or `switchback ranker --onnxruntime`. Looked at: {}", .tried.join("; ")
    )]
    Missing {
        /// Every place, with what was wrong there.
        tried: Vec<String>,
    },
    /// The one that was named cannot be used.
    #[error(
        "the ONNX Runtime library named by {named_by} cannot be used: {reason}. `make onnxruntime` or `scripts/fetch_onnxruntime.sh` \
         gets one that fits"
    )]
    Unusable {
        /// `--onnxruntime` or `ORT_DYLIB_PATH`.
        named_by: &'static str,
        /// What the loader said.
        reason: String,
    },
    /// This process could not be started again with the library's telemetry off, or was not asked to.
    #[error("{TELEMETRY_SWITCH} is not set: ONNX Runtime would report to its vendor. Set it to 1 (or to 0, to allow that)")]
    Telemetry,
    /// It was loaded, but does not work.
    #[error("ONNX Runtime was loaded from {path} but does not start: {reason}")]
    Environment {
        /// Where it is.
        path: String,
        /// What it said.
        reason: String,
    },
}

#[cfg(target_os = "macos")]
const FILE_NAME: &str = "libonnxruntime.dylib";
#[cfg(not(target_os = "macos"))]
const FILE_NAME: &str = "libonnxruntime.so";

/// ONNX Runtime from 1.29 on sends the names, hashes and metadata of models, and a lasting id of the machine, to its vendor unless this
/// is set before it is loaded. Turning it off later through its API comes too late for the first report.
const TELEMETRY_SWITCH: &str = "ORT_DISABLE_TELEMETRY";

/// Makes sure that ONNX Runtime's telemetry is off: where nobody has said what they want, this process is replaced by itself, same
/// id and arguments, with the variable set. (To set it in place would need unsafe code, as other threads may be reading.) To be
/// called first thing, before anything is opened.
///
/// # Errors
/// [`LibraryError::Telemetry`], when this binary cannot be started again.
pub fn ensure_no_telemetry() -> Result<(), LibraryError> {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os(TELEMETRY_SWITCH).is_some() {
        return Ok(());
    }
    let binary = std::env::current_exe().map_err(|_| LibraryError::Telemetry)?;
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(binary);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Returns only when it failed.
    let _ = again.args(arguments).env(TELEMETRY_SWITCH, "1").exec();
    Err(LibraryError::Telemetry)
}

static LIBRARY: OnceLock<Result<Library, LibraryError>> = OnceLock::new();

/// Loads the library, or returns the one that is loaded already. Blocks for some 50 ms.
///
/// # Errors
/// [`LibraryError`]; the first result stands for the life of the process.
pub fn load_library(wanted: Option<&Path>) -> Result<&'static Library, LibraryError> {
    LIBRARY.get_or_init(|| find(wanted)).as_ref().map_err(Clone::clone)
}

fn find(wanted: Option<&Path>) -> Result<Library, LibraryError> {
    if std::env::var_os(TELEMETRY_SWITCH).is_none() {
        return Err(LibraryError::Telemetry);
    }
    if let Some(path) = wanted {
        return open_named("--onnxruntime", path);
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return open_named("ORT_DYLIB_PATH", Path::new(&path));
    }
    let mut tried = Vec::new();
    for place in usual_places() {
        let is_a_path = place.components().count() > 1;
        if is_a_path && !place.exists() {
            tried.push(format!("{} (no such file)", place.display()));
            continue;
        }
        match ort::init_from(&place) {
            Ok(builder) => return start(builder, place),
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(LibraryError::Missing { tried })
}

/// Where the library would be taken from, without loading it.
///
/// # Errors
/// In words: the one that is named is not there, or none is in the usual places.
pub fn look() -> Result<String, String> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path };
        let shown = path.display().to_string();
        return if path.exists() { Ok(shown) } else { Err(format!("ORT_DYLIB_PATH: {shown} does not exist")) };
    }
    let of_the_system = ["/usr/lib", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let of_the_system = of_the_system.iter().map(|folder| Path::new(folder).join(FILE_NAME));
    let places: Vec<PathBuf> = usual_places().into_iter().filter(|place| place.components().count() > 1).chain(of_the_system).collect();
    let found = places.iter().find(|place| place.exists());
    let tried = || places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
    found.map(|place| place.display().to_string()).ok_or_else(|| format!("{FILE_NAME} is in none of: {}", tried()))
}

/// Beside the executable, in `onnxruntime/` beside it or one folder up (`target/onnxruntime` for `target/release/switchback`), then
/// wherever the system's loader looks.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    let executable = std::env::current_exe().ok();
    if let Some(folder) = executable.as_deref().and_then(Path::parent) {
        places.push(folder.join(FILE_NAME));
        places.push(folder.join("onnxruntime").join(FILE_NAME));
        if let Some(parent) = folder.parent() {
            places.push(parent.join("onnxruntime").join(FILE_NAME));
        }
    }
    places.push(PathBuf::from(FILE_NAME));
    places
}

/// An operator who names a library wants that one and no other.
fn open_named(named_by: &'static str, path: &Path) -> Result<Library, LibraryError> {
    let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_path_buf() };
    let path = std::path::absolute(&path).unwrap_or(path);
    if !path.exists() {
        return Err(LibraryError::Unusable { named_by, reason: format!("{} does not exist", path.display()) });
    }
    match ort::init_from(&path) {
        Ok(builder) => start(builder, path),
        Err(error) => Err(LibraryError::Unusable { named_by, reason: error.to_string() }),
    }
}

fn start(builder: ort::environment::EnvironmentBuilder, path: PathBuf) -> Result<Library, LibraryError> {
    match builder.with_name("switchback").with_telemetry(false).build() {
        Ok(environment) => Ok(Library { path, environment }),
        Err(error) => Err(LibraryError::Environment { path: path.display().to_string(), reason: error.to_string() }),
    }
}
