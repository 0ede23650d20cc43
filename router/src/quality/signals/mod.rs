//! Signals in bodies: what a JSON response says of its own results, heard on a sample and never on the query's way.
//!
//! ```text
//! worker: copies a sampled body as it passes, bounded -> queue, bounded -> thread: unpack, parse, look (said) -> counts -> windows
//! ```
//!
//! Invariant: the response is passed on as it comes, whatever becomes of the copy.

mod desk;
mod said;

pub use desk::{Heard, Hearing, Reading, SignalsDesk};
pub use said::{BodyFault, Packing, Said, said};
