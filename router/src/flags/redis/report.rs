//! What the task reports of this router, and what it looks after beside the flags.

use std::sync::{Arc, PoisonError};

use redis::RedisResult;
use tokio::time::Instant;

use super::fleet::{FORGET_AFTER, Fleet, Report};
use super::link::{info_field, is_lost};
use super::session::Session;
use super::sync::{Sync, explain};
use crate::config::Node;
use crate::flags::TripSeen;
use crate::vocabulary::RouteIndex;

impl Sync {
    /// Says that this router lives and what it applies, and hears who else does.
    pub(super) async fn beat(&mut self, session: &Session) -> RedisResult<()> {
        self.is_report_due = false;
        self.tell_servers(session);
        // Beside the process that hands over, or after it was handed over: that one reports under this id.
        let id = if self.is_owner { self.id.as_str() } else { "" };
        let text = serde_json::to_string(&self.report()).unwrap_or_default();
        match session.beat(id, &text, FORGET_AFTER, self.time.say()).await {
            Ok(beat) => {
                let now = Instant::now();
                let is_believed = self.time.hear(beat.clock, now);
                self.is_report_due = self.time.has_to_say();
                self.clock.send_replace(self.time.last());
                if !self.is_owner || !is_believed {
                    return Ok(());
                }
                let before: Option<Report> = serde_json::from_str(&beat.before).ok();
                // At its first beat a router finds what the process before it left.
                let has_twin = self.fleet.borrow().is_heard() && before.is_some_and(|before| before.incarnation != self.incarnation);
                let note = format!("another router reports under the id {:?}: give each a state.router_id of its own", self.id);
                self.note("heartbeat", has_twin.then_some(note));
                self.fleet.send_replace(Fleet::new(beat, now));
                Ok(())
            }
            Err(error) if is_lost(&error) && !session.outlives() => Err(error),
            Err(error) => {
                let why = match error.code() {
                    Some("WRONGTYPE") => {
                        "{switchback}:routers must be a sorted set and {switchback}:reports a hash; DEL the one that TYPE says is none, and it is \
                         written anew"
                            .to_owned()
                    }
                    _ => explain(&error),
                };
                self.note("heartbeat", Some(format!("this router cannot report itself: {why}")));
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
        let trips = routes.iter().enumerate().filter_map(|(index, route)| {
            let trip = self.published.trip(RouteIndex(u16::try_from(index).ok()?))?;
            Some((route.name.clone(), TripSeen::of(&trip)))
        });
        let down = routes.iter().enumerate().filter_map(|(index, route)| {
            let down = self.published.down(RouteIndex(u16::try_from(index).ok()?));
            (!down.is_empty()).then(|| (route.name.clone(), down))
        });
        let copies = routes.iter().enumerate().filter_map(|(index, route)| {
            let copies = self.published.copies(RouteIndex(u16::try_from(index).ok()?))?;
            Some((route.name.clone(), copies))
        });
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report {
            incarnation: self.incarnation.clone(),
            admin,
            routes: applied.collect(),
            trips: trips.collect(),
            down: down.collect(),
            copies: copies.collect(),
        }
    }

    /// Warns of servers that may drop flags when memory runs out. Each is asked once, when it is new.
    pub(super) async fn check_eviction(&mut self, session: &Session) -> RedisResult<()> {
        let links = session.links();
        self.notes.retain(|about, _| !about.starts_with(EVICTION) || links.iter().any(|link| *about == eviction_of(&link.node)));
        self.asked.retain(|asked| links.iter().any(|link| std::ptr::eq(asked.as_ptr(), Arc::as_ptr(link))));
        for link in links {
            if self.asked.iter().any(|asked| std::ptr::eq(asked.as_ptr(), Arc::as_ptr(&link))) {
                continue;
            }
            let note = match link.info("memory").await {
                Ok(info) => eviction_problem(&info, &link.node),
                Err(error) if is_lost(&error) && session.outlives() => continue,
                Err(error) if is_lost(&error) => return Err(error),
                Err(error) => Some(format!("the eviction policy cannot be checked: {}", explain(&error))),
            };
            self.asked.push(Arc::downgrade(&link));
            self.note(&eviction_of(&link.node), note);
        }
        Ok(())
    }

    /// Tells where each route's flags are, and what an operator should see to in the servers.
    pub(super) fn tell_servers(&mut self, session: &Session) {
        let nodes: Vec<Option<String>> = self.keys.iter().map(|keys| session.node_of(keys.slot)).collect();
        self.nodes.send_if_modified(|told| {
            let is_new = *told != nodes;
            *told = nodes;
            is_new
        });
        self.note("servers", session.concern());
    }
}

/// What is wrong with a server that may drop flags, by its `INFO memory`.
pub(super) fn eviction_problem(info: &str, node: &Node) -> Option<String> {
    let policy = info_field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    Some(format!("redis {node} has maxmemory-policy {policy}: it may drop flags when memory runs out; set noeviction"))
}

const EVICTION: &str = "eviction";

fn eviction_of(node: &Node) -> String {
    format!("{EVICTION} {node}")
}
