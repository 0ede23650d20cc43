//! Tells others what happens to rollouts: one [`Notice`] for each event, to each target of `[[notify]]`.
//!
//! ```text
//! notice -> render (cloudevents, cdevents, slack) -> sign -> post -> answer
//!                                                              ^ retry   |
//!                                                              +---------+
//! ```
//!
//! A notice has one id in the whole fleet, whoever sends it and however often: it is `webhook-id` and the id of the CloudEvent, so that a
//! receiver knows a repeat. It is sent again only when a try was not answered, or was answered with "later".
//!
//! [`OpenGate`] asks over the same [`Poster`] whether a rollout may go on.
//!
//! Pure, with time and chance as parameters: [`cdevents`], [`cloudevents`], [mod@notice], [mod@render], [`retry`], [`slack`].
//!
//! Which notices there are, and how far a target was told, is not known here: that is the ledger's. Invariant: neither a URL nor a secret gets into a log, an error or a metric.

mod cdevents;
mod clock;
mod cloudevents;
mod delivery;
mod gate;
mod notice;
mod post;
#[cfg(test)]
mod receiver;
mod render;
mod retry;
mod sign;
mod slack;

pub use clock::{Clock, SystemClock};
pub use delivery::{Delivered, Delivery, TargetError, Totals};
pub use gate::OpenGate;
pub use notice::Notice;
pub use post::{ANSWER_BYTES, Answer, PostError, Poster};
pub use render::{Rendered, render};
pub use sign::{SecretError, Signer};

pub use crate::config::NoticeEvent;
