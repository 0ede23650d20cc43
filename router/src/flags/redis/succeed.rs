//! Another config, and another process: what changes about the one task that talks to Redis, which goes on.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::keys::Keys;
use super::sync::{Request, Sync};
use super::{RedisStore, STARTUP_WAIT, copy_of, start};
use crate::config::Config;
use crate::flags::FlagsError;
use crate::flags::published::Published;

/// What a new config came to.
pub(super) struct Succession {
    published: Arc<Published>,
    /// Ready when the new routes were read.
    heard: oneshot::Receiver<()>,
    has_new_routes: bool,
}

impl RedisStore {
    /// The same flags under another config. Routes that are new are waited for a second at most.
    pub(crate) async fn succeed(&self, config: &Arc<Config>) -> Result<Arc<Published>, FlagsError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Succeed { config: config.clone(), reply };
        let is_sent = self.requests.send(request).await.is_ok();
        let answer = if is_sent { answer.await.ok() } else { None };
        let Succession { published, heard, has_new_routes } = answer.unwrap_or(Err(FlagsError::Ended))?;
        if has_new_routes {
            let _ = tokio::time::timeout(STARTUP_WAIT, heard).await;
        }
        Ok(published)
    }

    /// See [`Sync::set_owner`]; done when this returns.
    pub(crate) async fn set_owner(&self, is_owner: bool) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::SetOwner { is_owner, reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
}

impl Sync {
    /// Goes on with another config's routes. What this router applied of those that stay, it still applies.
    pub(super) fn succeed(&mut self, config: &Arc<Config>, reply: oneshot::Sender<Result<Succession, FlagsError>>) {
        let (disk, store) = (self.disk.clone(), self.way.reach.name.clone());
        let published = match self.published.successor(config, |route| Ok(start(route, &disk, &store).0)) {
            Ok(published) => Arc::new(published),
            Err(error) => return drop(reply.send(Err(error))),
        };
        let before = self.published.clone();
        before.gives_way_to(&published);
        let mine = |route: &crate::config::Route| {
            let kept = before.index_of(&route.name).and_then(|index| self.mines.get(index.get()).cloned());
            kept.unwrap_or_else(|| start(route, &disk, &store).1)
        };
        self.mines = config.routes.iter().map(mine).collect();
        self.keys = config.routes.iter().map(|route| Keys::of(&route.name)).collect();
        self.notes.retain(|about, _| before.index_of(about).is_none() || published.index_of(about).is_some());
        let has_new_routes = config.routes.iter().any(|route| before.index_of(&route.name).is_none());
        let (heard, first_heard) = oneshot::channel();
        self.first_heard = Some(heard);
        self.published = published.clone();
        let _ = reply.send(Ok(Succession { published, heard: first_heard, has_new_routes }));
    }

    /// The data folder becomes this process's: everything that is applied is written there, and reported from now on. Or it is no longer:
    /// nothing is written and reported any more.
    pub(super) fn set_owner(&mut self, is_owner: bool, reply: oneshot::Sender<()>) {
        self.is_owner = is_owner;
        if is_owner {
            for (route, mine) in self.published.config().routes.iter().zip(&self.mines).filter(|(_, mine)| mine.epoch > 0) {
                self.copies.save(&route.name, copy_of(route, mine, &self.way.reach.name));
            }
        }
        self.is_report_due = true;
        let _ = reply.send(());
    }
}
