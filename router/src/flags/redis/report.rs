//! What the task reports of this router, and what it looks after beside the flags.

use std::sync::PoisonError;

use redis::RedisResult;
use tokio::time::Instant;

use super::fleet::{FORGET_AFTER, Fleet, Report};
use super::link::{Link, is_lost};
use super::sync::{Sync, explain};
use crate::vocabulary::RouteIndex;

impl Sync {
    /// Says that this router lives and what it applies, and hears who else does.
    pub(super) async fn beat(&mut self, link: &Link) -> RedisResult<()> {
        self.is_report_due = false;
        if !self.is_owner {
            // Beside the process that hands over, or after it was handed over: that one reports under this id.
            return Ok(());
        }
        let text = serde_json::to_string(&self.report()).unwrap_or_default();
        match link.beat(&self.id, &text, FORGET_AFTER).await {
            Ok(beat) => {
                let before: Option<Report> = serde_json::from_str(&beat.before).ok();
                // At its first beat a router finds what the process before it left.
                let has_twin = self.fleet.borrow().is_heard() && before.is_some_and(|before| before.incarnation != self.incarnation);
                let note = format!("another router reports under the id {:?}: give each a state.router_id of its own", self.id);
                self.note("heartbeat", has_twin.then_some(note));
                self.fleet.send_replace(Fleet::new(beat, Instant::now()));
                Ok(())
            }
            Err(error) if is_lost(&error) => Err(error),
            Err(error) => {
                self.note("heartbeat", Some(format!("this router cannot report itself: {}", explain(&error))));
                Ok(())
            }
        }
    }

    fn report(&self) -> Report {
        let routes = &self.published.config().routes;
        let applied = routes.iter().enumerate().filter_map(|(index, route)| {
            let flags = self.published.flags(RouteIndex(u16::try_from(index).ok()?))?;
            Some((route.name.clone(), (flags.epoch, flags.seal.clone())))
        });
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { incarnation: self.incarnation.clone(), admin, routes: applied.collect() }
    }

    /// Warns of a Redis that may drop flags when memory runs out.
    pub(super) async fn check_eviction(&mut self, link: &Link) -> RedisResult<()> {
        let note = match link.eviction_policy().await {
            Ok(Some(policy)) if policy != "noeviction" => {
                Some(format!("{} has maxmemory-policy {policy}: it may drop flags when memory runs out; set noeviction", self.address.name))
            }
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) => Some(format!("the eviction policy cannot be checked: {}", explain(&error))),
            Ok(_) => None,
        };
        self.note("eviction", note);
        Ok(())
    }
}
