//! What commands on one route are given.

use clap::Args;

use super::admin_client::AdminArgs;

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
