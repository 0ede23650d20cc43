//! ONNX Runtime's shared library: where it is looked for, and what to do when it is nowhere.
//!
//! It is loaded at run time, so that only what ranks with ONNX needs it. `ort` panics when the library is missing and it was not
//! asked first; so nothing here or above touches `ort` before [`load`] has succeeded.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

/// The loaded library. One per process: `ort` allows no second environment.
#[derive(Debug)]
pub(super) struct Library {
    /// Where it was found; a bare file name when the system's loader found it.
    pub(super) path: PathBuf,
    /// What sessions are made in.
    pub(super) environment: Environment,
}

/// Why ONNX Runtime cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LibraryError {
    /// It is nowhere.
    #[error(
        "the ONNX Runtime library ({FILE_NAME}) was not found. Get it with `make onnxruntime` or `scripts/fetch_onnxruntime.sh`, or \
         point --onnxruntime or the variable ORT_DYLIB_PATH at it. Looked at: {}", .tried.join("; ")
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

static LIBRARY: OnceLock<Result<Library, LibraryError>> = OnceLock::new();

/// Loads the library, or returns the one that is loaded already. Blocks for some 50 ms.
///
/// # Errors
/// [`LibraryError`]; the first result stands for the life of the process.
pub(super) fn load(wanted: Option<&Path>) -> Result<&'static Library, LibraryError> {
    LIBRARY.get_or_init(|| find(wanted)).as_ref().map_err(Clone::clone)
}

fn find(wanted: Option<&Path>) -> Result<Library, LibraryError> {
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
