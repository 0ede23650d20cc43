//! What the control path sees of the config in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::rollback::PoolHealth;
use crate::config::Config;
use crate::flags::FlagStore;
use crate::notify::{Delivery, OpenGate};
use crate::policy::Policies;
use crate::quality::Quality;
use crate::quality::signals::SignalsDesk;
use crate::vocabulary::RouteIndex;

/// A route's pools, one by one, as this router sees them.
pub type Health = Arc<dyn Fn(RouteIndex) -> Vec<PoolHealth> + Send + Sync>;

/// What a config brings.
pub struct Under {
    /// The config.
    pub config: Arc<Config>,
    /// Its flags.
    pub flags: Arc<FlagStore>,
    /// Its policies.
    pub policies: Arc<Policies>,
    /// What its workers count.
    pub quality: Quality,
    /// What became of copies of queries.
    pub signals: SignalsDesk,
    /// How its pools are.
    pub health: Health,
    /// Who is asked before a rollout goes on, by route.
    pub gates: BTreeMap<String, Vec<Arc<OpenGate>>>,
    /// Who is told of what happens, ready to be sent to.
    pub targets: Vec<Arc<Delivery>>,
}

/// What the newest config brings, and whether that is news to this receiver.
pub(super) fn newest(under: &mut watch::Receiver<Arc<Under>>) -> (Arc<Under>, bool) {
    let newest = under.borrow_and_update();
    (newest.clone(), newest.has_changed())
}
