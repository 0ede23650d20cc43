//! The state machine of a rollout. Pure: what is seen goes in, what is to be written comes out.
//!
//! ```text
//! loading -> pending -> mirroring -> canary (step 1) -> ... -> canary (last step) -> baking -> done
//!      any of them, done too -> rolled_back                any of them -> aborted
//! ```
//!
//! Every transition with its conditions is in docs/ROLLOUTS.md.

mod copies;
#[cfg(test)]
mod copies_tests;
mod event;
mod fresh;
#[cfg(test)]
mod fresh_tests;
mod layout;
#[cfg(test)]
mod loading_tests;
mod next;
mod order;
mod ready;
#[cfg(test)]
mod scene;
mod start;
#[cfg(test)]
mod tests;

pub use copies::{copies_before, copies_of};
pub use event::Event;
pub(super) use fresh::judged;
pub use fresh::{Asked, ServersSeen, tellable};
pub use next::{Move, Next, Seen, next};
pub use order::{Order, Refusal, carry_out};
pub use ready::{LoadSeen, LoadState, ToLoad};
pub use start::{Begin, LEAST_LEFT, begin, could_begin};
