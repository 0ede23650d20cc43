//! Routers that share a store share the key of their tokens, where no config names one: the first to come made it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::admin::AskedReload;
use crate::config::Config;
use crate::flags::FlagStore;
use crate::quality::{Secret, adopt_key, own_key, token_secrets};

/// A starting router waits for the store's answer for so long, and then goes on with its own key.
const STARTUP_WAIT: Duration = Duration::from_secs(1);
/// How often the store is asked: it may have lost the key, or another router may have come first meanwhile.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Adopts the store's key before the first query. Answers the secrets that are in force then; `before` are those of until now.
pub(super) async fn share_first(store: &FlagStore, config: &Config, before: Vec<Secret>) -> Vec<Secret> {
    if !store.has_others() {
        return before;
    }
    match tokio::time::timeout(STARTUP_WAIT, share(store, config)).await {
        Ok(Ok(_)) => {}
        Ok(Err(why)) => tracing::warn!(why, "the key of tokens is not shared yet; until then this router's tokens are its own"),
        Err(_) => {
            tracing::warn!("the key of tokens is not shared yet: the store does not answer; until then this router's tokens are its own")
        }
    }
    token_secrets(config).unwrap_or(before)
}

/// Whether another key is in the data folder than before.
async fn share(store: &FlagStore, config: &Config) -> Result<bool, String> {
    let own = own_key(config).map_err(|error| error.to_string())?;
    let (Some(own), Some(route)) = (own, config.routes.first()) else { return Ok(false) };
    let kept = store.token_key(&route.name, &own).await?;
    adopt_key(config, &kept).map_err(|error| error.to_string())
}

/// Keeps this router on the store's key: whenever that is another one, the config is read again.
pub(super) struct Sharing {
    newest: watch::Sender<(Arc<FlagStore>, Arc<Config>)>,
    task: JoinHandle<()>,
}

impl Sharing {
    pub(super) fn start(store: &Arc<FlagStore>, config: &Arc<Config>, reloads: mpsc::Sender<AskedReload>) -> Sharing {
        let newest = watch::Sender::new((store.clone(), config.clone()));
        Sharing { task: tokio::spawn(keep_sharing(newest.subscribe(), reloads)), newest }
    }

    /// Under another config.
    pub(super) fn succeed(&self, store: &Arc<FlagStore>, config: &Arc<Config>) {
        self.newest.send_replace((store.clone(), config.clone()));
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_sharing(newest: watch::Receiver<(Arc<FlagStore>, Arc<Config>)>, reloads: mpsc::Sender<AskedReload>) {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (store, config) = newest.borrow().clone();
        match share(&store, &config).await {
            Ok(true) => {
                let (reply, done) = oneshot::channel();
                if reloads.send(AskedReload { who: "the key of tokens in the store".to_owned(), reply }).await.is_err() {
                    return;
                }
                // What came of it is in the log.
                let _ = done.await;
            }
            Ok(false) => {}
            // While the store is away, others say so.
            Err(why) => tracing::debug!(why, "the key of tokens is not shared"),
        }
    }
}
