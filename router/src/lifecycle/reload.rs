//! Another config in a running router: built and checked whole beside the one in force, then swapped.
//!
//! ```text
//! read the file -> check it -> read tokens and certificates -> flags, judged again by name -> policies -> workers swap -> admin swaps
//! ```
//!
//! Up to the flags nothing has changed, and whatever is wrong refuses the whole. From there on nothing can be wrong with the config.

use std::sync::Arc;

use super::error::{chain, problem};
use super::notify;
use super::running::{Running, flags_of, policies_of, shadows_of};
use super::versions::Versions;
use crate::admin::{self, Access, AdminState, ReloadRefused, Reloaded};
use crate::config::{self, Config, KeyChange, Reload};
use crate::flags::FlagStore;
use crate::policy::Policies;
use crate::quality::{Secret, token_secrets};
use crate::serve::{Generation, Overrides, Pools};
use crate::tls::{PreparedTls, ServerTls};
use crate::vocabulary::RouteIndex;

/// Changed keys that a log line names.
const LOGGED_KEYS: usize = 20;

/// What a config is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The file as it is now.
    File,
    /// The file that the config in force came from, as it was.
    InForce,
}

/// A config with the files that it names, all of it checked.
pub(super) struct Checked {
    asked: Config,
    config: Arc<Config>,
    changed: Vec<KeyChange>,
    waiting: Vec<KeyChange>,
    access: Access,
    tls: Option<PreparedTls>,
    pools: Pools,
    overrides: Overrides,
    secrets: Vec<Secret>,
    others: super::Others,
}

impl Running {
    /// Reads the config file again and puts it in force, or says why not. `who` goes into the log.
    pub(super) async fn reload(&mut self, who: &str) -> Result<Reloaded, ReloadRefused> {
        notify::reloading();
        let done = match self.check(Base::File) {
            Ok(checked) => self.put_in_force(checked).await,
            Err(problems) => Err(problems),
        };
        notify::ready(self.generation());
        self.process.reloads.count(done.is_ok());
        match done {
            Ok(reloaded) => {
                log(&reloaded, who);
                Ok(reloaded)
            }
            Err(problems) => {
                tracing::error!(who, ?problems, "the config is refused; the one before stays in force");
                Err(ReloadRefused { problems })
            }
        }
    }

    pub(super) fn check(&self, base: Base) -> Result<Checked, Vec<String>> {
        let asked = match base {
            Base::File => config::load(&self.file).map_err(|error| error.lines().to_vec())?,
            Base::InForce => self.asked.clone(),
        };
        let Reload { mut config, changed, waiting } = config::reload(self.config(), &self.asked, &self.at_start, &asked);
        Versions::of(&self.flags, self.config()).apply(&mut config);
        let refused = |key: &str, error: &dyn std::error::Error| vec![problem(&self.file, key, error)];
        let access = Access::open(&config).map_err(|error| refused(error.key(), &error))?;
        let tls = config.tls.as_ref().map(ServerTls::prepare).transpose().map_err(|error| refused(error.key(), &error))?;
        let before = &self.generation;
        let pools = before.pools.succeed(&before.config.routes, &config).map_err(|error| refused(error.key(), &error))?;
        FlagStore::check(&config).map_err(|error| refused(error.key(), &error))?;
        let overrides = Overrides::load(config.overrides.as_ref()).map_err(|error| refused(error.key(), &error))?;
        let secrets = token_secrets(&config).map_err(|error| refused(error.key(), &error))?;
        let others = super::others(&config).map_err(|error| refused(error.key(), &error))?;
        Ok(Checked { asked, config: Arc::new(config), changed, waiting, access, tls, pools, overrides, secrets, others })
    }

    pub(super) async fn put_in_force(&mut self, checked: Checked) -> Result<Reloaded, Vec<String>> {
        let Checked { asked, config, changed, waiting, access, tls, pools, overrides, secrets, others } = checked;
        let routes: Vec<RouteIndex> = (0..=u16::MAX).map(RouteIndex).take(config.routes.len()).collect();
        let flags = self.flags.succeed(&config).await.map_err(|error| vec![chain(&error)])?;
        let policies = self.next_policies(&config, &flags, &routes).await?;
        let mut warnings = self.new_faults(&flags, &config, &routes);
        pools.look_up_names(&config).await;
        let generation = Arc::new(Generation {
            number: self.generation.number + 1,
            config: config.clone(),
            pools,
            flags: flags_of(&flags, &routes),
            policies: policies_of(&policies, &routes),
            shadows: shadows_of(&policies, &routes),
            overrides: Arc::new(overrides),
            secrets: secrets.clone(),
            events: self.generation.events.clone(),
            signals: self.generation.signals.clone(),
            quality: self.generation.quality.succeed(&config),
        });
        if let (Some(in_use), Some(prepared)) = (&self.tls, tls) {
            in_use.use_prepared(prepared);
        }
        self.counting.succeed(&generation.quality);
        self.telling.succeed(&flags);
        if let Some(sharing) = &self.sharing {
            sharing.succeed(&flags, &config);
        }
        self.judging.succeed(super::under(&generation, &flags, &policies, others));
        if !self.serving.succeed(generation.clone()).await {
            warnings.push("a worker has not taken the new config yet: it is busy with something that does not end".to_owned());
        }
        self.generation.events.succeed(&config, &secrets);
        let parts = admin::Parts {
            generation: generation.clone(),
            flags: flags.clone(),
            policies: policies.clone(),
            tls: self.tls.clone(),
            access: Arc::new(access),
            waiting: waiting.clone(),
        };
        self.states.send_replace(Arc::new(AdminState::new(parts, self.process.clone())));
        self.process.candidates.follow(&generation.config);
        (self.asked, self.generation, self.flags, self.policies) = (asked, generation, flags, policies);
        Ok(Reloaded { generation: self.generation.number, changed, waiting_for_restart: waiting, warnings })
    }

    /// Not on this thread: a plugin may have to be compiled.
    async fn next_policies(&self, config: &Arc<Config>, flags: &FlagStore, routes: &[RouteIndex]) -> Result<Arc<Policies>, Vec<String>> {
        let (before, config, watched) = (self.policies.clone(), config.clone(), flags_of(flags, routes));
        let next = tokio::task::spawn_blocking(move || before.succeed(&config, watched)).await;
        // Only a machine that gives no thread comes here.
        let fails = |why: String| vec![format!("policies cannot be started for it ({why}); restart the router when there is room")];
        next.map_err(|error| fails(error.to_string()))?.map_err(|error| fails(chain(&error)))
    }

    /// Values of flags that are not obeyed under this config and were under the one before: a pool that is gone, for example.
    fn new_faults(&self, flags: &FlagStore, config: &Config, routes: &[RouteIndex]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, route) in routes.iter().zip(&config.routes) {
            let before = self.config().routes.iter().position(|old| old.name == route.name);
            let before = before.and_then(|place| u16::try_from(place).ok()).map(|place| self.flags.view(RouteIndex(place)).faults);
            let before = before.unwrap_or_default();
            for fault in flags.view(*index).faults.iter().filter(|fault| !before.contains(fault)) {
                let (name, field, value, allowed) = (&route.name, &fault.field, &fault.value, &fault.allowed);
                warnings.push(format!("route {name}: {field} = {value} is not obeyed under this config: must be {allowed}"));
            }
        }
        warnings
    }
}

fn log(reloaded: &Reloaded, who: &str) {
    let keys = |changes: &[KeyChange]| {
        let mut keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).take(LOGGED_KEYS).collect();
        if changes.len() > LOGGED_KEYS {
            keys.push("...");
        }
        keys.join(", ")
    };
    let (generation, changed, waiting) = (reloaded.generation, keys(&reloaded.changed), keys(&reloaded.waiting_for_restart));
    tracing::info!(who, generation, changed, "the config is reloaded");
    if !waiting.is_empty() {
        tracing::warn!(keys = waiting, "these keys changed and wait for a restart");
    }
    for warning in &reloaded.warnings {
        tracing::warn!("{warning}");
    }
}
