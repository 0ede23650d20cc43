//! From one config to the next, as far as flags are concerned: a route that stays is judged again under its new config, from what was
//! applied; a new one starts as at start-up; one that is gone is forgotten.
//!
//! Invariant: nobody's share changes by it. A candidate stays where it is, also while the store is away.

use std::sync::{Arc, Weak};

use super::judge::without_epoch;
use super::published::{Applied, Published, in_force};
use super::{Flags, FlagsError};
use crate::config::{Config, Route};
use crate::vocabulary::RouteIndex;

impl Published {
    /// What this router obeys from now on; `start` gives what a route starts with that there was not before.
    ///
    /// # Errors
    /// Those of `start`; nothing has changed then.
    pub(crate) fn successor(
        &self,
        config: &Arc<Config>,
        mut start: impl FnMut(&Route) -> Result<Applied, FlagsError>,
    ) -> Result<Published, FlagsError> {
        let mut starts = Vec::new();
        for route in &config.routes {
            starts.push(match self.named(&route.name) {
                Some((old, applied)) => judged_again(&applied, old, route),
                None => start(route)?,
            });
        }
        Ok(self.followed_by(config.clone(), starts))
    }

    /// From now on changes are made to `next`.
    pub(crate) fn gives_way_to(&self, next: &Arc<Published>) {
        // Nobody gives way twice: changes are made one after the other.
        let _ = self.next.set(Arc::downgrade(next));
    }

    /// A route's flags with all changes, also those that were made while another config was about to be in force: who changed something and
    /// asks for it again finds it.
    pub(crate) fn newest(&self, index: RouteIndex) -> Option<Arc<Flags>> {
        let Some(next) = self.next.get().and_then(Weak::upgrade) else { return self.flags(index) };
        let (last, route) = (next.last(), self.route(index)?);
        match last.named(&route.name) {
            Some((new, applied)) => Some(Arc::new(in_force(&judged_again(&applied, new, route)))),
            // What is gone is as it was left.
            None => self.flags(index),
        }
    }

    /// The one that changes are made to.
    fn last(self: Arc<Self>) -> Arc<Published> {
        let mut last = self;
        while let Some(next) = last.next.get().and_then(Weak::upgrade) {
            last = next;
        }
        last
    }

    /// The place of a route that was asked for under another config; `None` when it is gone.
    pub(crate) fn place_of(&self, asked_of: &Published, route: RouteIndex) -> Option<RouteIndex> {
        if std::ptr::eq(self, asked_of) {
            return Some(route);
        }
        self.index_of(&asked_of.route(route)?.name)
    }

    /// The place of the route of this name.
    pub(crate) fn index_of(&self, name: &str) -> Option<RouteIndex> {
        let index = self.config().routes.iter().position(|route| route.name == name)?;
        u16::try_from(index).ok().map(RouteIndex)
    }

    fn named(&self, name: &str) -> Option<(&Route, Arc<Applied>)> {
        let index = self.index_of(name)?;
        Some((self.route(index)?, self.applied(index)?))
    }
}

/// Pools are known by their place among a route's pools, which another config may have moved: so what is in force goes through its
/// names.
fn judged_again(applied: &Applied, old: &Route, new: &Route) -> Applied {
    let (epoch, seal) = (applied.known.epoch, applied.known.seal.clone());
    let (last_good, _) = Flags::read(&without_epoch(&applied.known.render(old)), &Flags::initial(new), new);
    let (mut known, faults) = Flags::read(&without_epoch(&applied.fields), &last_good, new);
    (known.epoch, known.seal) = (epoch, seal);
    Applied { fields: applied.fields.clone(), known, faults, source: applied.source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flags::Fields;
    use crate::flags::published::Source;

    fn config(pools: &[&str]) -> Arc<Config> {
        let pools: String = pools.iter().map(|name| format!("[route.pools.{name}]\nendpoints = [\"http://127.0.0.1:1\"]\n")).collect();
        let text = format!("[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[[route]]\nname = \"search\"\n{pools}");
        Arc::new(crate::config::parse("test", &text).unwrap())
    }

    fn published(pools: &[&str], fields: &[(&str, &str)]) -> Published {
        let config = config(pools);
        let route = config.routes.first().unwrap();
        let fields: Fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (known, faults) = Flags::read(&fields, &Flags::initial(route), route);
        Published::new(config.clone(), vec![Applied { fields, known, faults, source: Source::Redis }])
    }

    fn after(published: &Published, pools: &[&str]) -> Applied {
        let none = |_: &Route| -> Result<Applied, FlagsError> { panic!("no route is new") };
        let successor = published.successor(&config(pools), none).unwrap();
        Arc::unwrap_or_clone(successor.applied(RouteIndex(0)).unwrap())
    }

    const FIELDS: [(&str, &str); 6] =
        [("live", "green"), ("candidate_pool", "zebra"), ("canary_percent", "25"), ("salt", "0123456789"), ("epoch", "7"), ("seal", "s")];

    #[test]
    fn pools_that_moved_are_found_by_their_names() {
        let before = published(&["blue", "green", "zebra"], &FIELDS);
        let new = config(&["blue", "green", "apple", "zebra"]);
        let applied = after(&before, &["blue", "green", "apple", "zebra"]);
        assert!(applied.faults.is_empty());
        assert_eq!(applied.known.candidate.pool, new.routes.first().unwrap().pool_named("zebra").unwrap());
        assert_eq!((applied.known.candidate.share.get(), applied.known.epoch, applied.known.seal.as_str()), (250_000, 7, "s"));
        assert_eq!(applied.source, Source::Redis, "no candidate is held at 0 by it");
    }

    #[test]
    fn nobody_is_sent_to_a_version_before_the_config_has_it() {
        let before = published(&["blue", "green", "zebra"], &FIELDS);
        let shares = |published: &Published| {
            let flags = published.watch(RouteIndex(0)).unwrap().borrow().clone();
            (flags.epoch, flags.candidate.share.get(), flags.holdback.map_or(0, |holdback| holdback.share.get()))
        };
        let route = before.route(RouteIndex(0)).unwrap().clone();
        let mut fields = before.applied(RouteIndex(0)).unwrap().fields.clone();
        for (name, value) in [("holdback_pool", "blue"), ("holdback_percent", "10"), ("version.zebra", "v9"), ("epoch", "8")] {
            fields.insert(name.to_owned(), value.to_owned());
        }
        let (known, faults) = Flags::read(&fields, &Flags::initial(&route), &route);
        assert!(faults.is_empty(), "{faults:?}");
        before.apply(RouteIndex(0), Applied { fields, known, faults, source: Source::Redis });
        assert_eq!(shares(&before), (8, 0, 100_000), "who is not ahead keeps the share");
        assert_eq!(before.flags(RouteIndex(0)).unwrap().candidate.share.get(), 250_000, "what the store says is as it is");
        let with_version = |version: &str| {
            let text = format!(
                "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[[route]]\nname = \"search\"\n\
                 [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.pools.green]\nendpoints = [\"http://127.0.0.1:1\"]\n\
                 [route.pools.zebra]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = {version:?}\n"
            );
            Arc::new(crate::config::parse("test", &text).unwrap())
        };
        let none = |_: &Route| -> Result<Applied, FlagsError> { panic!("no route is new") };
        let other = before.successor(&with_version("v8"), none).unwrap();
        assert_eq!(shares(&other), (8, 0, 100_000), "another config that does not have it either");
        let followed = other.successor(&with_version("v9"), none).unwrap();
        assert_eq!(shares(&followed), (8, 250_000, 100_000));
    }

    #[test]
    fn a_value_that_is_not_obeyed_leaves_the_last_good_one_in_force() {
        let before = published(&["blue", "green", "zebra"], &FIELDS);
        let route = before.route(RouteIndex(0)).unwrap().clone();
        let mut applied = Arc::unwrap_or_clone(before.applied(RouteIndex(0)).unwrap());
        applied.fields.insert("live".to_owned(), "grene".to_owned());
        let known = applied.known.clone();
        before.apply(RouteIndex(0), Applied { known, ..applied });
        let applied = after(&before, &["blue", "green", "apple", "zebra"]);
        assert_eq!(applied.known.live, route.pool_named("green").unwrap());
        assert_eq!(applied.faults.len(), 1);
    }

    #[test]
    fn who_still_has_the_old_one_hears_of_changes_to_the_new_one() {
        let before = published(&["blue", "green", "zebra"], &FIELDS);
        let none = |_: &Route| -> Result<Applied, FlagsError> { panic!("no route is new") };
        let next = Arc::new(before.successor(&config(&["zebra", "blue", "green"]), none).unwrap());
        before.gives_way_to(&next);
        let mut applied = Arc::unwrap_or_clone(next.applied(RouteIndex(0)).unwrap());
        applied.fields.insert("live".to_owned(), "blue".to_owned());
        applied.known.live = next.route(RouteIndex(0)).unwrap().pool_named("blue").unwrap();
        applied.known.epoch = 8;
        next.apply(RouteIndex(0), applied);
        let newest = before.newest(RouteIndex(0)).unwrap();
        let blue = before.route(RouteIndex(0)).unwrap().pool_named("blue").unwrap();
        assert_eq!((newest.epoch, newest.live), (8, blue));
        assert_eq!(before.flags(RouteIndex(0)).unwrap().epoch, 7, "what workers obey comes with the config");
        drop(next);
        assert_eq!(before.newest(RouteIndex(0)).unwrap().epoch, 7);
    }

    #[test]
    fn a_pool_in_force_that_is_gone_is_told() {
        let before = published(&["blue", "green", "zebra"], &FIELDS);
        let applied = after(&before, &["blue", "zebra"]);
        assert_eq!(applied.known.live.get(), 0);
        assert_eq!(applied.faults.first().unwrap().field, "live");
    }
}
