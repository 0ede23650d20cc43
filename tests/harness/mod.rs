//! What the system tests are made of: real routers, real Redis, real backends, real load. No sleeps: tests wait for the effect.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::missing_panics_doc, clippy::string_slice)]

mod backend;
pub mod cases;
pub mod deploy;
pub mod exchange;
pub mod flags;
pub mod fleet;
pub mod frames;
pub mod guests;
pub mod hooked;
pub mod http;
mod lifecycle;
mod load;
pub mod mlflow;
pub mod model_pools;
pub mod over_h2;
mod process;
mod provenance;
pub mod ranker;
pub mod redis;
pub mod redis_groups;
pub mod registry;
pub mod relay;
mod router;
pub mod scenes;
mod scripted;
pub mod seaweed;
pub mod shoppers;
pub mod strict;
pub mod tls;
mod wire;

use std::time::{Duration, Instant};

pub use backend::{Backend, Behaviour};
pub use load::{Load, Report, Running, time_of_day};
pub use provenance::provenance;
pub use router::{Router, Setup, binary, python};
pub use scripted::{Act, Scripted};

/// How often an effect is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits for an effect and returns it; fails with `what` when it does not come in time.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// The pause between two looks, for tests that poll inside a runtime.
pub async fn look_again() {
    tokio::time::sleep(LOOK_EVERY).await;
}
