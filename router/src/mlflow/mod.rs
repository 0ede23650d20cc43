//! MLflow: versions of models that come from its registry, and its webhooks that say which of them is a candidate now.
//!
//! ```text
//! switchback model push --from-mlflow   Tracking -> the version -> its run -> MLmodel -> the one file that is the model
//! POST /api/v1/mlflow/webhook           Webhook (signature, time, repeats) -> Event -> the routes that ask for it -> Candidates
//! Candidates                            one at a time for each route: two processes of this program, model push and then deploy
//! ```
//!
//! Nothing of a model is read in the router's process, and nothing of it runs anywhere: the file is copied, and what it is tells validation.
//!
//! Invariant: what an event says is believed only when it is signed; and what is deployed is what the alias points to when it is deployed, whatever the
//! event said, so that events may come late, twice, or in another order.

mod answers;
mod candidates;
mod child;
mod deliveries;
mod described;
mod error;
#[cfg(test)]
mod fuzz;
mod kept;
mod mlmodel;
mod model_uri;
mod tracking;
mod version;
mod webhook;
mod wish;

pub use candidates::{Candidates, Ended, Outcome, Progress, Told};
pub use deliveries::Delivered;
pub use error::MlflowError;
pub use mlmodel::{Artefact, MlModel, is_inside};
pub use model_uri::{ModelUri, ModelUriError, Picked};
pub use tracking::{Credentials, Tracking};
pub use version::Version;
pub use webhook::{Event, Refused, Signed, Webhook, WebhookError};
pub use wish::Wish;
