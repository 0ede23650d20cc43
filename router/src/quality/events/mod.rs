//! Events in: what users did with the results, said by whoever saw it, and attributed to the version that answered by the token in it.
//!
//! ```text
//! body -> rate limits -> read (bytes to events) -> book (verify, drop repeats, attribute) -> counts -> whoever collects windows
//! ```
//!
//! A worker, or the admin listener, reads the bounded body and hands it to the [`EventsDesk`], whose thread does the rest and answers with a
//! [`Report`]. `read`, `rate`, `repeats`, `book` and `counts` are pure: `now` is a parameter.
//!
//! Invariants: nobody who serves queries waits for this; whatever is refused is counted by its reason and moves nothing else; memory is bounded, whatever
//! is said.

mod book;
mod counts;
mod desk;
#[cfg(test)]
mod fuzz;
mod rate;
mod read;
mod refusal;
mod repeats;
mod report;

pub use book::{Booking, What};
pub use counts::{Cell, EventCounts};
pub use desk::{Accepted, Buffered, EventsDesk, Totals};
pub use read::Action;
pub use refusal::EventRefusal;
pub use report::Report;
