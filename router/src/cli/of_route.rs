//! What commands on one route are given.

use clap::Args;

use super::admin_client::AdminArgs;
use super::{Failure, free_text};

/// A route, and who is asked about it.
#[derive(Debug, Args)]
pub(super) struct OfRoute {
    /// The route.
    pub(super) route: String,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// An order that the ledger keeps.
#[derive(Debug, Args)]
pub(super) struct Ordered {
    #[command(flatten)]
    pub(super) of: OfRoute,
    /// Why, for the ledger.
    #[arg(long, default_value = "")]
    pub(super) why: String,
}

impl Ordered {
    /// That what was said makes sense.
    ///
    /// # Errors
    /// The reason is more than one line.
    pub(super) fn check(&self) -> Result<(), Failure> {
        free_text::check("--why", &self.why).map_err(|failure| failure.in_json(self.of.json))
    }
}
