//! `switchback rollback --to`: back to a version that is known. One that a colour still has is one write; another is loaded first.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use serde_json::Value;
use tokio::time::Instant;

use super::admin_client::AdminClient;
use super::deploy_decide::{Ended, IfBusy, Scene, Until};
use super::deploy_follow::Followed;
use super::deploy_start::{Begun, Order, Patient};
use super::deploy_told::{Account, Told};
use super::flag::plain;
use super::rollback::store_is_away;
use super::status::{list, stray_line};
use super::{Failure, free_text, print, rollback_alias};
use crate::config::Config;
use crate::vocabulary::{NO_VERSION, is_earlier};

/// So often live may change under it.
const TRIES: u32 = 5;

/// Where to go back to, and how long to wait for it.
pub(super) struct To<'a> {
    pub(super) route: &'a str,
    /// `search:9`
    pub(super) version: &'a str,
    pub(super) why: &'a str,
    pub(super) deadline: Instant,
    pub(super) is_json: bool,
    /// The router's, where it was named.
    pub(super) config: Option<&'a Config>,
    /// The command that attaches again.
    pub(super) again: &'a str,
}

impl To<'_> {
    /// What would be done.
    ///
    /// # Errors
    /// The router is away.
    pub(super) async fn would(&self, client: &AdminClient) -> Result<(), Failure> {
        let route = client.get(&format!("/api/v1/routes/{}", self.route)).await?;
        check_form(&route, self.version)?;
        let (mut what, loads) = way(&route, self.version);
        self.check(client, &(what.clone(), loads)).await?;
        what.push_str(&store_is_away(&route, "nothing is written, and this ends with 69"));
        print(&match self.is_json {
            true => format!("{:#}\n", serde_json::json!({ "route": self.route, "version": self.version, "would": what, "loads": loads })),
            false => format!("would be done: {what}\n"),
        })
    }

    /// What cannot come back is told before anything is ended for it.
    async fn check(&self, client: &AdminClient, (what, loads): &(String, bool)) -> Result<(), Failure> {
        if what.starts_with(NOT_READY) {
            return Err(Failure::refused(format!("{what}; nothing was done")));
        }
        if !loads {
            return Ok(());
        }
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("candidate", self.version).append_pair("at_once", "true").finish();
        let found = client.get(&format!("/api/v1/routes/{}/rollout/check?{query}", self.route)).await?;
        match (found["registry"].as_str(), found["why"].as_str()) {
            (Some("away"), Some(why)) => Err(Failure::unreachable(format!("{} has to be loaded, and cannot be now: {why}", self.version))),
            _ => Ok(()),
        }
    }

    /// Goes back, and waits until that is done.
    ///
    /// # Errors
    /// It was refused, ended otherwise, or not in time; or the router is away.
    pub(super) async fn go(&self, client: AdminClient) -> Result<(), Failure> {
        let patient = Patient::new(client, self.route);
        let route = patient.client.get(&patient.path).await?;
        check_form(&route, self.version)?;
        self.check(&patient.client, &way(&route, self.version)).await?;
        let (mut told, mut account) = (Told::new(self.is_json), self.account());
        let Some(ended) = self.gone(&patient, &mut told, &mut account).await? else {
            account.outcome = Some("live");
            // Whoever went back may have ended before it was moved.
            let printed = self.end(&format!("{} is live already on {}", self.version, self.route), &account);
            self.move_champion(&told).await;
            return printed;
        };
        let why = account.why.clone().unwrap_or_default();
        match ended {
            Ended::Live => {
                account.outcome = Some("live");
                // The registry comes last: whether it answers is no business of whoever waits for this.
                let printed = self.end(&format!("rolled back: {} is live on {}", self.version, self.route), &account);
                self.move_champion(&told).await;
                printed
            }
            Ended::RolledBack | Ended::Aborted => {
                account.outcome = Some(if ended == Ended::Aborted { "aborted" } else { "rolled_back" });
                Err(Failure::refused(format!("{} did not come back on {}: {why}", self.version, self.route))
                    .with_details(account.object(crate::admin::now_unix_ms())))
            }
        }
    }

    /// Of the model and its number, where the version has them.
    fn account(&self) -> Account {
        let numbered = rollback_alias::numbered(self.version);
        let mut account = Account::of(self.route, numbered.as_ref().map_or(self.version, |(model, _)| model.as_str()));
        account.version = numbered.map(|(_, number)| number);
        account
    }

    async fn move_champion(&self, told: &Told) {
        rollback_alias::follow(self.config, (self.route, self.version, self.why), told).await;
    }

    async fn gone(&self, patient: &Patient, told: &mut Told, account: &mut Account) -> Result<Option<Ended>, Failure> {
        for _ in 0..TRIES {
            let scene = Scene::of(&patient.first(self.deadline, told).await?);
            let order = Order {
                route: self.route.to_owned(),
                candidate: self.version.to_owned(),
                sha256: None,
                live: scene.live,
                steps: None,
                at_once: true,
                why: self.why.to_owned(),
                if_busy: IfBusy::Supersede,
                deadline: self.deadline,
            };
            let begun = match order.begin(patient, told).await? {
                Begun::UnderWay(begun) => *begun,
                Begun::LiveAlready => return Ok(None),
                Begun::LiveChanged => continue,
            };
            account.rollout = Some(begun.id.clone());
            account.note(&begun);
            let followed =
                Followed { candidate: self.version, id: begun.id, until: Until::Done, deadline: self.deadline, again: self.again };
            return followed.to_its_end(patient, told, account).await.map(Some);
        }
        Err(Failure::refused(format!("{}: another version became live again and again", self.route)))
    }

    fn end(&self, said: &str, account: &Account) -> Result<(), Failure> {
        print(&if self.is_json { format!("{:#}\n", account.object(crate::admin::now_unix_ms())) } else { format!("{said}\n") })
    }
}

/// That a text can be a version at all: a pool runs it, or it is the number of one of a model.
fn check_form(route: &Value, version: &str) -> Result<(), Failure> {
    let is_run = route["pools"].as_object().into_iter().flatten().any(|(_, pool)| pool["version"] == version);
    if is_run || rollback_alias::numbered(version).is_some() {
        return Ok(());
    }
    let rule = "must be MODEL:NUMBER like search:9, MODEL@ALIAS like search@champion, or a version that a pool of the route runs";
    Err(Failure::usage(format!("--to {}: {rule}", free_text::cut(version))))
}

/// Begins what is said of a pool whose servers are all unhealthy.
const NOT_READY: &str = "it is not ready";

/// How a version becomes live again, in words; and whether it has to be loaded for that.
fn way(route: &Value, version: &str) -> (String, bool) {
    let live = plain(&route["live"]);
    if plain(&route["pools"][&live]["version"]) == version {
        return (format!("nothing: {version} is live already on {live}"), false);
    }
    let ends = match route["rollout"]["is_active"] == true && route["rollout"]["candidate"] != version {
        true => format!("{} is aborted; ", plain(&route["rollout"]["summary"])),
        false => String::new(),
    };
    let idle = if live == "blue" { "green" } else { "blue" };
    let pool = &route["pools"][idle];
    let last = match route["rollout"]["load_ms"].as_u64() {
        Some(millis) => format!("the last load took {:.1} s", std::time::Duration::from_millis(millis).as_secs_f64()),
        None => "how long that takes is not known yet".to_owned(),
    };
    let strays = list(&pool["strays"]);
    if let Some(stray) = strays.first().filter(|_| plain(&pool["version"]) == version && strays.len() >= list(&pool["endpoints"]).len()) {
        return (
            format!("{ends}{version} is loaded on {idle} again, where {}, and becomes live then; {last}", stray_line(version, stray)),
            true,
        );
    }
    if plain(&pool["version"]) == version {
        let healthy = format!("{} of {} endpoints healthy", plain(&pool["healthy"]), pool["endpoints"].as_array().map_or(0, Vec::len));
        if pool["healthy"] == 0 {
            return (format!("{NOT_READY}: {idle}, which has {version}, has no healthy endpoint ({healthy}); mend it first"), false);
        }
        return (format!("{ends}{version} becomes live on {idle}, which still has it ({healthy}): at once"), false);
    }
    (format!("{ends}{version} is loaded on {idle}, which runs {}, and becomes live then; {last}", plain(&pool["version"])), true)
}

/// The way back from what is live, or on its way, for a screen; empty where there is none.
pub(super) fn way_back(route: &Value) -> String {
    let rollout = &route["rollout"];
    let live = &route["pools"][plain(&route["live"])]["version"];
    match rollout["phase"].as_str() {
        Some("baking" | "done" | "retired") if *live == rollout["candidate"] => {
            let before = plain(&rollout["control"]);
            // What is gone, and what was gone back from, has to be named.
            let is_plain = rollout["phase"] != "retired" && !is_earlier(&plain(live), &before);
            let how = if is_plain { String::new() } else { format!("rollback --to {before}: ") };
            if before == NO_VERSION { String::new() } else { format!("  way back: {how}{}\n", way(route, &before).0) }
        }
        // A plain rollback is not repeated into the version before: that has to be named. A later version is no way back: it came as a candidate, and went.
        Some("rolled_back" | "aborted") if *live == rollout["control"] => {
            let idle = if plain(&route["live"]) == "blue" { "green" } else { "blue" };
            let before = route["pools"][idle]["version"].as_str();
            let before = before.filter(|before| rollout["candidate"] != *before && is_earlier(before, &plain(live)));
            before.map_or_else(String::new, |before| format!("  way back: rollback --to {before}: {}\n", way(route, before).0))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_no_version_is_bad_usage() {
        let route = json!({ "pools": { "blue": { "version": "v1" }, "green": { "version": "search:2" } } });
        for good in ["v1", "search:2", "search:99"] {
            assert!(check_form(&route, good).is_ok(), "{good}");
        }
        for bad in ["v2", "search", "search:", "search:x", "search:0", ""] {
            let refused = check_form(&route, bad).unwrap_err();
            assert!(refused.message().starts_with(&format!("--to {bad}: must be MODEL:NUMBER")), "{}", refused.message());
            assert!(!refused.is_refused() && !refused.is_unreachable());
        }
    }

    #[test]
    fn the_way_back_says_how_ready_it_is() {
        let mut route = json!({
            "live": "green", "pools": {
                "blue": { "version": "search:1", "healthy": 1, "endpoints": [{}, {}] },
                "green": { "version": "search:2", "healthy": 2, "endpoints": [{}, {}] },
            },
            "rollout": { "phase": "done", "is_active": false, "candidate": "search:2", "control": "search:1", "load_ms": 4_200 },
        });
        let at_once = "search:1 becomes live on blue, which still has it (1 of 2 endpoints healthy): at once";
        assert_eq!(way(&route, "search:1"), (at_once.to_owned(), false));
        assert_eq!(way_back(&route), format!("  way back: {at_once}\n"));
        let loaded = "search:9 is loaded on blue, which runs search:1, and becomes live then; the last load took 4.2 s";
        assert_eq!(way(&route, "search:9"), (loaded.to_owned(), true));
        assert_eq!(way(&route, "search:2").0, "nothing: search:2 is live already on green");
        let mut lost = route.clone();
        lost["pools"]["blue"]["strays"] = json!([{ "server": "http://a:1", "serves": ["search:5"], "restore": null }]);
        let (what, loads) = way(&lost, "search:1");
        assert!(what.starts_with("search:1 becomes live on blue") && !loads, "the other one has it: {what}");
        lost["pools"]["blue"]["endpoints"] = json!([{}]);
        let (what, loads) = way(&lost, "search:1");
        let says = "search:1 is loaded on blue again, where http://a:1 serves search:5 and not search:1, and becomes live then; ";
        assert!(what.starts_with(says) && loads, "{what}");
        assert!(way_back(&lost).contains("is loaded on blue again"));
        let mut down = route.clone();
        down["pools"]["blue"]["healthy"] = 0.into();
        let says = "it is not ready: blue, which has search:1, has no healthy endpoint (0 of 2 endpoints healthy); mend it first";
        assert_eq!((way(&down, "search:1"), way_back(&down)), ((says.to_owned(), false), format!("  way back: {says}\n")));
        // One that is loaded anew may bring them back.
        assert!(way(&down, "search:9").1);
        // What was retired, and what was gone back from, has to be named; nobody goes back to nothing.
        let mut gone = route.clone();
        (gone["rollout"]["phase"], gone["pools"]["blue"]["version"]) = ("retired".into(), "none".into());
        let loaded = "search:1 is loaded on blue, which runs none, and becomes live then; the last load took 4.2 s";
        assert_eq!(way_back(&gone), format!("  way back: rollback --to search:1: {loaded}\n"));
        let mut over = route.clone();
        (over["rollout"]["control"], over["pools"]["blue"]["version"]) = ("search:3".into(), "search:3".into());
        let again = "search:3 becomes live on blue, which still has it (1 of 2 endpoints healthy): at once";
        assert_eq!(way_back(&over), format!("  way back: rollback --to search:3: {again}\n"));
        over["rollout"]["control"] = "none".into();
        assert_eq!(way_back(&over), "");
        // After a later rollout that failed the version before has to be named.
        for phase in ["rolled_back", "aborted"] {
            let mut failed = route.clone();
            failed["rollout"] = json!({ "phase": phase, "is_active": false, "candidate": "search:3", "control": "search:2" });
            assert_eq!(way_back(&failed), format!("  way back: rollback --to search:1: {at_once}\n"));
            for version in ["search:3", "search:2", "search:9", "v1", "none"] {
                failed["pools"]["blue"]["version"] = version.into();
                assert_eq!(way_back(&failed), "", "{version}");
            }
            failed["rollout"]["control"] = "search:7".into();
            assert_eq!(way_back(&failed), "", "somebody changed who is live");
        }
        route["rollout"] =
            json!({ "phase": "canary", "is_active": true, "candidate": "search:3", "summary": "search:3 canary step 1 of 2 (1 %)" });
        assert!(way(&route, "search:1").0.starts_with("search:3 canary step 1 of 2 (1 %) is aborted; search:1 becomes live"));
        assert_eq!(way_back(&route), "");
    }
}
