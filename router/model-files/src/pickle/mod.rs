//! Pickles, joblib files, torch and numpy archives: whether an artefact may be handed on to a backend that will unpickle it.
//!
//! A pickle is a program. Here it is never run: its opcodes (protocols 0 to 5) are walked by a machine of abstract values, the globals that it names are compared with an
//! allow-list, and what it would do with them with what the list allows for each. Everything else is refused, by name and place. After that the artefact is opaque.
//!
//! ```text
//! bytes -> polyglot? -> container (ZIP | npy | compressed | plain) -> input -> opcodes -> machine -> report
//! ```
//!
//! Two readers of one file must not see two files: where `pickle.load`, `joblib.load`, `torch.load` or `numpy.load` would read a file differently, it is refused
//! or both readings are walked.
//!
//! What it does not promise: that a model is good, or that the C code which gets its numbers survives them. A tree whose children are out of range makes scikit-learn
//! read out of bounds, and LightGBM and XGBoost parse their own formats.
//!
//! Invariant: nothing is executed, imported or unpickled, and time and memory are bounded by [`Limits`].

mod allowed;
mod archive;
mod build;
mod calls;
mod compression;
mod dtype;
mod error;
mod examine;
#[cfg(test)]
mod fuzz;
mod generators;
mod input;
mod limits;
mod lists;
mod machine;
mod names;
mod nature;
mod npy;
mod opaque;
mod opcodes;
mod parse;
mod polyglot;
mod python2;
mod report;
mod skops;
mod values;
mod walk;
mod zip_layout;

#[cfg(test)]
mod tests;

pub use allowed::Allowed;
pub use compression::Compression;
pub use error::{MOST_REFUSALS, Place, Refusal, Unsafe};
pub use examine::{Container, Examined, examine};
#[cfg(test)]
pub(crate) use fuzz::fuzz;
pub use limits::Limits;
pub use nature::is_pickle;
pub use opaque::examine_opaque;
