//! What a policy is told about the flags.

use switchback_policy::split::{Share, Snapshot};

use crate::config::Route;
use crate::flags::Flags;

/// The flags of a route as a split policy may see them: without the salt, and with a share of nobody left out.
///
/// Whether the holdback is ready is not known here: a caller that knows it is not sets `holdback` to `None`.
#[must_use]
pub fn snapshot(route: &Route, flags: &Flags) -> Snapshot {
    let share = |share: crate::flags::Share| {
        let ppm = share.share.get();
        (ppm > 0).then(|| Share { pool: u32::from(share.pool.0), ppm })
    };
    Snapshot {
        route: route.name.clone(),
        epoch: flags.epoch,
        pools: route.pools.iter().map(|pool| pool.name.clone()).collect(),
        live: u32::from(flags.live.0),
        candidate: share(flags.candidate),
        holdback: flags.holdback.and_then(share).filter(|holdback| holdback.pool != u32::from(flags.live.0)),
        features: flags.features.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        experiments: flags.experiments.as_ref().map(|experiments| experiments.without_salts()),
        config: route.split_config.clone(),
    }
}
