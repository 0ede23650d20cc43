//! What a deployment does next, from what is seen of the route. Pure.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use clap::ValueEnum;
use serde_json::Value;

use super::flag::plain;
use super::status::stray_line;
use crate::config::Criteria;
use crate::validation::Report;
use crate::vocabulary::read_version;

/// What to do where another rollout is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum IfBusy {
    /// Say so, and end with 2.
    Refuse,
    /// Abort it, and begin.
    Supersede,
    /// Wait until it is over, and begin.
    Queue,
}

/// How far a rollout is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    /// The candidate is live, and a holdback stays on the version before.
    Live,
    /// Everybody is on the candidate.
    Done,
}

/// The rollout that is under way, or the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RolloutSeen {
    pub(super) id: String,
    pub(super) candidate: String,
    /// SHA-256 of the candidate's artefact, where whoever began it said so.
    pub(super) sha256: Option<String>,
    pub(super) phase: String,
    pub(super) is_active: bool,
    /// `search:2 canary step 1 of 2 (10 %), paused`
    pub(super) summary: String,
    /// Why it was last moved.
    pub(super) why: String,
    /// What it waits for.
    pub(super) waits: Option<String>,
    /// What became of the copies of queries that it was sent: in words.
    pub(super) copies: Option<String>,
    /// When its phase, and step, began, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

/// A route, as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scene {
    /// The version on the live pool.
    pub(super) live: String,
    pub(super) rollout: Option<RolloutSeen>,
    /// Servers that serve another version than their pool runs: a line for each.
    pub(super) strays: Vec<String>,
}

/// What is done with a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// A rollout begins.
    Start,
    /// Its rollout is under way: follow that.
    Attach(RolloutSeen),
    /// There is nothing to do.
    LiveAlready,
    /// Another rollout is under way, and that is the end of it.
    Refuse(RolloutSeen),
    /// Another rollout is aborted first.
    Supersede(RolloutSeen),
    /// Another rollout has to be over first.
    Queue(RolloutSeen),
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Live,
    RolledBack,
    Aborted,
}

/// What is seen of the rollout that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It goes on.
    UnderWay(RolloutSeen),
    Over(Ended, RolloutSeen),
    /// Another one has its place: it ended while nobody looked.
    Gone,
}

/// Why a route is none of this model's: its servers load another one, or what is live is another one's and no pool runs this one. `loads` is what its config
/// says that they load.
pub(super) fn other_model(route: &Value, model: &str, loads: Option<&str>) -> Option<String> {
    let pools = route["pools"].as_object().into_iter().flatten();
    let mut models = pools.filter_map(|(_, pool)| model_of(pool["version"].as_str()?));
    if loads == Some(model) || models.any(|one| one == model) {
        return None;
    }
    if let Some(loads) = loads {
        return Some(format!("its servers load the model {loads}"));
    }
    let live = Scene::of(route).live;
    model_of(&live).map(|_| format!("{live} is live, and no pool runs a version of {model}"))
}

/// `search` of `search:12`; other versions are called as people like.
fn model_of(version: &str) -> Option<&str> {
    let (model, number) = version.rsplit_once(':')?;
    read_version(number).map(|_| model)
}

/// Whether `version` is a later one of the candidate's model.
pub(super) fn is_newer(version: &str, candidate: &str) -> bool {
    let read = |text: &str| text.rsplit_once(':').and_then(|(model, number)| Some((model.to_owned(), read_version(number)?)));
    match (read(version), read(candidate)) {
        (Some((model, number)), Some((own, own_number))) => model == own && number > own_number,
        _ => false,
    }
}

fn strays_of((name, pool): (&String, &Value)) -> Vec<String> {
    let version = plain(&pool["version"]);
    let strays = pool["strays"].as_array().into_iter().flatten();
    strays.map(|stray| format!("pool {name}: {}", stray_line(&version, stray))).collect()
}

impl RolloutSeen {
    /// `null` is none.
    pub(super) fn of(rollout: &Value) -> Option<RolloutSeen> {
        rollout.is_object().then(|| RolloutSeen {
            id: plain(&rollout["id"]),
            candidate: plain(&rollout["candidate"]),
            sha256: rollout["sha256"].as_str().map(str::to_owned),
            phase: plain(&rollout["phase"]),
            is_active: rollout["is_active"] == true,
            summary: plain(&rollout["summary"]),
            why: rollout["why"].as_str().unwrap_or_default().to_owned(),
            waits: rollout["blocked"].as_str().or(rollout["waits_for"].as_str()).map(str::to_owned),
            copies: super::rollout::copies(&rollout["copies"]),
            since_ms: rollout["since_ms"].as_u64().unwrap_or(0),
        })
    }

    /// The state in words, without its candidate and without what an operator did with it: `canary step 1 of 2 (10 %)`.
    pub(super) fn state(&self) -> &str {
        let what = self.summary.strip_prefix(&self.candidate).unwrap_or(&self.summary).trim_start();
        what.split(',').next().unwrap_or(what)
    }
}

impl Scene {
    /// From `GET /api/v1/routes/{route}`.
    pub(super) fn of(route: &Value) -> Scene {
        let live = route["live"].as_str().unwrap_or_default();
        let strays = route["pools"].as_object().into_iter().flatten().flat_map(strays_of).collect();
        Scene { live: plain(&route["pools"][live]["version"]), rollout: RolloutSeen::of(&route["rollout"]), strays }
    }

    /// What is live, and the candidate of a rollout that is under way.
    pub(super) fn in_use(&self) -> Vec<&str> {
        let candidate = self.rollout.iter().filter(|rollout| rollout.is_active).map(|rollout| rollout.candidate.as_str());
        std::iter::once(self.live.as_str()).chain(candidate).collect()
    }

    /// What is to be done with this candidate.
    pub(super) fn next(&self, candidate: &str, if_busy: IfBusy) -> Next {
        match &self.rollout {
            Some(rollout) if rollout.is_active && rollout.candidate == candidate => Next::Attach(rollout.clone()),
            Some(rollout) if rollout.is_active => match if_busy {
                IfBusy::Refuse => Next::Refuse(rollout.clone()),
                IfBusy::Supersede => Next::Supersede(rollout.clone()),
                IfBusy::Queue => Next::Queue(rollout.clone()),
            },
            _ if self.live == candidate => Next::LiveAlready,
            _ => Next::Start,
        }
    }

    /// Why a candidate that waited for its turn has none: a newer version went live since `before` was, when it was first wanted.
    pub(super) fn overtaken(&self, candidate: &str, before: &str) -> Option<String> {
        let live = &self.live;
        (live != before && is_newer(live, candidate)).then(|| {
            format!("{candidate} is not begun: {live}, which is newer, went live while it was waited for; to deploy {candidate} over it, run it again")
        })
    }

    /// Why what is under way, or live, by this candidate's name is something else: its rollout was begun with another artefact.
    pub(super) fn of_another_artefact(&self, candidate: &str, sha256: Option<&str>) -> Option<String> {
        let rollout = self.rollout.as_ref().filter(|rollout| rollout.candidate == candidate)?;
        let (has, meant) = (rollout.sha256.as_deref()?, sha256?);
        let counts = rollout.is_active || self.live == candidate;
        (counts && has != meant).then(|| {
            format!(
                "{candidate} of the rollout that is at {} is artefact {has}, and not {meant}, which is meant here: the registry of the command is another \
                 one than that of whoever began it",
                rollout.state()
            )
        })
    }

    /// Whether this candidate is live because its rollout is done.
    pub(super) fn is_done(&self, candidate: &str) -> bool {
        self.live == candidate && self.rollout.as_ref().is_some_and(|last| last.phase == "done" && last.candidate == candidate)
    }

    /// What has become of a rollout.
    pub(super) fn seen(&self, id: &str, until: Until) -> Seen {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.id == id) else { return Seen::Gone };
        match rollout.phase.as_str() {
            "done" => Seen::Over(Ended::Live, rollout.clone()),
            "baking" if until == Until::Live => Seen::Over(Ended::Live, rollout.clone()),
            "rolled_back" => Seen::Over(Ended::RolledBack, rollout.clone()),
            "aborted" => Seen::Over(Ended::Aborted, rollout.clone()),
            _ => Seen::UnderWay(rollout.clone()),
        }
    }
}

impl Ended {
    /// From the last word that a ledger has of a rollout: an entry's `grounds`.
    pub(super) fn of_event(event: &str, until: Until) -> Option<Ended> {
        match event {
            "done" => Some(Ended::Live),
            "switched" if until == Until::Live => Some(Ended::Live),
            "rolled_back" => Some(Ended::RolledBack),
            "aborted" => Some(Ended::Aborted),
            _ => None,
        }
    }

    /// As the JSON has it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Ended::Live => "live",
            Ended::RolledBack => "rolled_back",
            Ended::Aborted => "aborted",
        }
    }
}

/// What a report has to be of: SHA-256 of the artefact, of the live model's where there is one to compare with, and of the judged queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) sha256: &'a str,
    pub(super) live: Option<&'a str>,
    pub(super) judged: Option<&'a str>,
    pub(super) criteria: &'a Criteria,
}

impl Asked<'_> {
    /// Whether this report answers it. Where there is nothing to compare with now, one that compared with something says more.
    pub(super) fn is_answered_by(&self, report: &Report) -> bool {
        let sha256 = |compared: &Option<crate::validation::Compared>| compared.as_ref().map(|compared| compared.sha256.clone());
        report.sha256 == self.sha256
            && report.criteria == *self.criteria
            && sha256(&report.judged).as_deref() == self.judged
            && (self.live.is_none() || sha256(&report.live).as_deref() == self.live)
    }
}

/// What of a sentence stays the same while its numbers run: two sentences of one kind are one news.
pub(super) fn kind(said: &str) -> String {
    said.chars().filter(|letter| !letter.is_ascii_digit() && *letter != '.').collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scene(live: &str, candidate: &str, phase: &str) -> Scene {
        let is_active = matches!(phase, "loading" | "pending" | "canary" | "baking");
        Scene::of(&json!({
            "live": "blue", "pools": { "blue": { "version": live } },
            "rollout": { "id": "ab", "candidate": candidate, "phase": phase, "is_active": is_active, "summary": format!("{candidate} {phase}, paused"),
                "why": "so", "blocked": null, "waits_for": "hold", "since_ms": 5 },
        }))
    }

    #[test]
    fn what_is_done_with_a_candidate() {
        let next = |scene: &Scene, if_busy| match scene.next("search:2", if_busy) {
            Next::Start => "start",
            Next::Attach(_) => "attach",
            Next::LiveAlready => "live",
            Next::Refuse(_) => "refuse",
            Next::Supersede(_) => "supersede",
            Next::Queue(_) => "queue",
        };
        let nobody = Scene { live: "search:1".to_owned(), rollout: None, strays: Vec::new() };
        for (scene, refuse, supersede, queue) in [
            (nobody, "start", "start", "start"),
            (scene("search:1", "search:2", "canary"), "attach", "attach", "attach"),
            (scene("search:1", "search:2", "loading"), "attach", "attach", "attach"),
            (scene("search:2", "search:2", "baking"), "attach", "attach", "attach"),
            (scene("search:2", "search:2", "done"), "live", "live", "live"),
            (scene("search:2", "search:1", "done"), "live", "live", "live"),
            (scene("search:2", "search:3", "rolled_back"), "live", "live", "live"),
            (scene("search:2", "search:3", "canary"), "refuse", "supersede", "queue"),
            (scene("search:1", "search:2", "rolled_back"), "start", "start", "start"),
            (scene("search:1", "search:2", "aborted"), "start", "start", "start"),
            (scene("search:3", "search:2", "done"), "start", "start", "start"),
            (scene("search:1", "search:3", "canary"), "refuse", "supersede", "queue"),
        ] {
            let told = [IfBusy::Refuse, IfBusy::Supersede, IfBusy::Queue].map(|if_busy| next(&scene, if_busy));
            assert_eq!(told, [refuse, supersede, queue], "{scene:?}");
        }
    }

    #[test]
    fn a_newer_version_that_went_live_takes_the_turn_of_an_older_one() {
        let overtaken = |live: &str, before: &str| scene(live, "search:9", "aborted").overtaken("search:4", before);
        let told = overtaken("search:6", "search:1").unwrap();
        assert!(told.starts_with("search:4 is not begun: search:6, which is newer, went live while it was waited for"), "{told}");
        // It was live already, an older one went live, or nothing did; and versions of other models have no order.
        for (live, before) in
            [("search:6", "search:6"), ("search:3", "search:1"), ("search:1", "search:1"), ("shop:6", "shop:1"), ("v6", "v1")]
        {
            assert_eq!(overtaken(live, before), None, "{live} {before}");
        }
        assert!(is_newer("search:10", "search:9") && !is_newer("search:9", "search:9") && !is_newer("search:09", "search:1"));
    }

    #[test]
    fn a_rollout_of_another_artefact_is_none_of_this_one() {
        let with = |live: &str, phase: &str| {
            let mut scene = scene(live, "search:2", phase);
            scene.rollout.as_mut().unwrap().sha256 = Some("aa".to_owned());
            scene
        };
        for (live, phase) in [("search:1", "canary"), ("search:2", "done")] {
            let scene = with(live, phase);
            let told = scene.of_another_artefact("search:2", Some("bb")).unwrap();
            assert!(told.starts_with(&format!("search:2 of the rollout that is at {phase} is artefact aa, and not bb")), "{told}");
            assert_eq!((scene.of_another_artefact("search:2", Some("aa")), scene.of_another_artefact("search:2", None)), (None, None));
            assert_eq!(scene.of_another_artefact("search:3", Some("bb")), None);
        }
        assert_eq!(with("search:1", "aborted").of_another_artefact("search:2", Some("bb")), None, "the router looks at the next one");
        assert_eq!(scene("search:1", "search:2", "canary").of_another_artefact("search:2", Some("bb")), None, "nobody said which");
    }

    #[test]
    fn a_route_of_another_model_is_seen() {
        let route =
            |blue: &str, canary: &str| json!({ "live": "blue", "pools": { "blue": { "version": blue }, "canary": { "version": canary } } });
        let search = route("search:1", "search:2");
        assert_eq!(other_model(&search, "search", None), None);
        assert_eq!(other_model(&search, "shop", None), Some("search:1 is live, and no pool runs a version of shop".to_owned()));
        assert_eq!(other_model(&search, "shop", Some("search")), Some("its servers load the model search".to_owned()));
        // Its servers will load it, somebody loaded it, or versions are called as people like.
        assert_eq!(other_model(&search, "shop", Some("shop")), None);
        assert_eq!(other_model(&route("search:1", "shop:3"), "shop", Some("search")), None);
        assert_eq!(other_model(&route("v41", "v42"), "shop", None), None);
        assert_eq!(scene("search:1", "search:2", "canary").in_use(), ["search:1", "search:2"]);
        assert_eq!(scene("search:1", "search:2", "done").in_use(), ["search:1"]);
    }

    #[test]
    fn what_has_become_of_a_rollout() {
        let seen = |phase: &str, until| match scene("search:1", "search:2", phase).seen("ab", until) {
            Seen::UnderWay(_) => "under way",
            Seen::Over(ended, _) => ended.label(),
            Seen::Gone => "gone",
        };
        for (phase, live, done) in [
            ("loading", "under way", "under way"),
            ("canary", "under way", "under way"),
            ("baking", "live", "under way"),
            ("done", "live", "live"),
            ("rolled_back", "rolled_back", "rolled_back"),
            ("aborted", "aborted", "aborted"),
        ] {
            assert_eq!((seen(phase, Until::Live), seen(phase, Until::Done)), (live, done), "{phase}");
        }
        assert_eq!(scene("search:1", "search:2", "canary").seen("cd", Until::Done), Seen::Gone);
        let under_way = scene("search:1", "search:2", "canary").rollout.unwrap();
        assert_eq!((under_way.state(), under_way.waits.as_deref(), under_way.since_ms), ("canary", Some("hold"), 5));
        assert!(scene("search:2", "search:2", "done").is_done("search:2"));
        assert!(!scene("search:2", "search:2", "baking").is_done("search:2"));
        assert_eq!((Ended::of_event("switched", Until::Live), Ended::of_event("switched", Until::Done)), (Some(Ended::Live), None));
    }

    #[test]
    fn a_report_counts_for_what_it_was_made_of() {
        let report: Report = serde_json::from_value(json!({
            "form": 1, "passed": true, "name": "search:2", "sha256": "aa", "bytes": 3, "format": "onnx",
            "live": { "name": "search:1", "sha256": "bb" }, "judged": { "name": "judged.jsonl", "sha256": "cc" },
            "checks": [], "criteria": Criteria::default(), "who": "ann", "at_ms": 1, "took_ms": 1, "by": "switchback",
        }))
        .unwrap();
        let criteria = Criteria::default();
        let asked = Asked { sha256: "aa", live: Some("bb"), judged: Some("cc"), criteria: &criteria };
        assert!(asked.is_answered_by(&report));
        assert!(Asked { live: None, ..asked }.is_answered_by(&report), "there is none to compare with now");
        let stricter = Criteria { margin: 0.001, ..Criteria::default() };
        for other in [
            Asked { sha256: "ab", ..asked },
            Asked { live: Some("dd"), ..asked },
            Asked { judged: None, ..asked },
            Asked { judged: Some("dd"), ..asked },
            Asked { criteria: &stricter, ..asked },
        ] {
            assert!(!other.is_answered_by(&report), "{other:?}");
        }
    }

    #[test]
    fn running_numbers_are_no_news() {
        assert_eq!(kind("hold: 12 of 500 requests; harm -0.2 of 4.6"), kind("hold: 499 of 500 requests; harm -1.2 of 4.6"));
        assert_ne!(kind("hold: 12 of 500"), kind("it bakes: 12 of 500 s"));
    }
}
