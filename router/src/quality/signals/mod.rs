//! Signals in bodies: what a JSON response says of its own results, heard on a sample and never on the query's way; and whether a copy of a query was
//! answered as the query itself was, compared there too.
//!
//! ```text
//! worker: copies a sampled body as it passes, bounded -> queue, bounded -> thread: unpack, parse, look (said) -> counts -> windows
//!         keeps both answers of a copied query, bounded ---^                       ranked lists of both, compared (ranked) -> sums (pairs)
//! ```
//!
//! Invariant: the response is passed on as it comes, whatever becomes of the copy.

mod desk;
mod kept;
mod pairs;
mod ranked;
mod said;

pub use desk::{Heard, Hearing, Reading, SignalsDesk};
pub use kept::Kept;
pub use pairs::{Half, PairOf};
pub use ranked::{Likeness, compare, has_list, ranked};
pub use said::{BodyFault, Packing, Said, said};
