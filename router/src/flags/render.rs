//! Flags back to fields: what is written when a store lost them, what the copy on disk holds, and what log lines compare.

use super::{Fields, Flags, PolicyRef, VERSION_OF};
use crate::config::Route;
use crate::vocabulary::{PoolIndex, Ppm};

impl Flags {
    /// The fields that read as these flags. A field at its default is left out, but for `live` and `canary_percent`. Pure.
    ///
    /// Invariant: `Flags::read(&flags.render(route), any, route)` is `flags` without a fault.
    #[must_use]
    pub fn render(&self, route: &Route) -> Fields {
        let mut fields = Fields::new();
        let mut put = |name: &str, value: String| {
            fields.insert(name.to_owned(), value);
        };
        let name = |pool: PoolIndex| route.pools.get(pool.get()).map_or_else(String::new, |pool| pool.name.clone());
        put("epoch", self.epoch.to_string());
        if !self.seal.is_empty() {
            put("seal", self.seal.clone());
        }
        put("live", name(self.live));
        put("canary_percent", self.candidate.share.to_string());
        // Where there is no canary, the live pool stands for no candidate: written down, it would be one.
        let default = route.pool_named("canary").or((self.candidate.share == Ppm::ZERO).then_some(self.live));
        if Some(self.candidate.pool) != default {
            put("candidate_pool", name(self.candidate.pool));
        }
        if let Some(holdback) = self.holdback {
            put("holdback_pool", name(holdback.pool));
            put("holdback_percent", holdback.share.to_string());
        }
        if self.mirror > Ppm::ZERO {
            put("mirror_percent", self.mirror.to_string());
        }
        if let Some(pin) = self.pin {
            put("pin", name(pin));
        }
        if self.is_frozen {
            put("freeze", "true".to_owned());
        }
        if !self.salt.is_empty() {
            put("salt", self.salt.clone());
        }
        if self.split_policy != PolicyRef::named(&route.split_policy) {
            put("split_policy", self.split_policy.to_string());
        }
        if self.rollback_policy != PolicyRef::named(&route.rollback_policy) {
            put("rollback_policy", self.rollback_policy.to_string());
        }
        if let Some(experiments) = &self.experiments {
            put("experiments", experiments.render());
        }
        if let Some(rollout) = &self.rollout {
            put("rollout", rollout.render());
        }
        for (pool, version) in &self.versions {
            put(&format!("{VERSION_OF}{}", name(*pool)), version.clone());
        }
        for (feature, value) in &self.features {
            put(&format!("flag.{feature}"), value.clone());
        }
        fields
    }
}
