//! What experiments come to: each arm against control, window by window, by the same tests as a candidate, and with intervals that hold at every look.
//!
//! One record in the store for each experiment, from which any router goes on; one router at a time moves it on ([`judging`]). [`record`], [`step`] and
//! [`view`] are pure.

pub(super) mod judging;
pub(super) mod record;
mod step;
pub(super) mod view;

#[cfg(test)]
mod tests;
