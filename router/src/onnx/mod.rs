//! ONNX Runtime, and models that it runs: the only module that knows it. The ranker serves with it, and validation looks at models with it.

mod library;
mod model;

pub use library::{Library, LibraryError, ensure_no_telemetry, load_library, look};
pub use model::{Model, Signature, Source};
