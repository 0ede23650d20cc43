//! The state machine of a rollout. Pure: what is seen goes in, what is to be written comes out.
//!
//! ```text
//! mirroring -> canary (step 1) -> ... -> canary (last step) -> baking -> done
//!      any of them, done too -> rolled_back                any of them -> aborted
//! ```
//!
//! Every transition with its conditions is in docs/ROLLOUTS.md.

mod layout;
mod next;
mod order;
mod start;
#[cfg(test)]
mod tests;

pub use next::{Event, Move, Next, Seen, next};
pub use order::{Order, Refusal, carry_out};
pub use start::{Begin, LEAST_LEFT, begin};
