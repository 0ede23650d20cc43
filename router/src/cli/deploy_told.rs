//! What a deployment tells: a line for each thing that happens on stderr, and at its end one object.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::deploy_decide::{RolloutSeen, kind};
use super::failure::complain;
use crate::validation::Report;

/// Numbers that run are told again after this, where there is no terminal to show them on.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Tells what happens as it happens, on stderr: lines for people, or an object a line.
pub(super) struct Told {
    is_json: bool,
    bar: ProgressBar,
    /// What was last said to be waited for, and when.
    waits: Option<(String, Instant)>,
}

impl Told {
    pub(super) fn new(is_json: bool) -> Told {
        Told { is_json, bar: ProgressBar::hidden(), waits: None }
    }

    /// From here on, a terminal shows what is waited for.
    pub(super) fn spin(&mut self) {
        if self.is_json {
            return;
        }
        self.bar.finish_and_clear();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = bar;
    }

    /// Something happened.
    pub(super) fn line(&self, event: &str, said: &str) {
        let line = match self.is_json {
            true => json!({ "at_ms": crate::admin::now_unix_ms(), "event": event, "said": said.trim_start() }).to_string(),
            false => super::plain(said).into_owned(),
        };
        self.bar.suspend(|| complain(&line));
    }

    /// A new state: what was waited for before is no matter.
    pub(super) fn state(&mut self, event: &str, said: &str) {
        self.waits = None;
        self.bar.set_message(super::plain(said).into_owned());
        self.line(event, said);
    }

    /// What is waited for. On a terminal it is always there to be seen; elsewhere it is told when it is another thing, or after a while.
    pub(super) fn waits(&mut self, state: &str, what: &str) {
        self.bar.set_message(super::plain(&format!("{state}: {what}")).into_owned());
        let is_known = |(said, at): &(String, Instant)| kind(said) == kind(what) && (said == what || at.elapsed() < AGAIN_AFTER);
        if !self.waits.as_ref().is_some_and(is_known) {
            self.waits = Some((what.to_owned(), Instant::now()));
            self.line("waits", &format!("    waits: {what}"));
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What there is to say at the end.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) route: String,
    pub(super) model: String,
    pub(super) version: Option<u64>,
    pub(super) rollout: Option<String>,
    /// `live`, `refused`, `rolled_back`, `aborted`, `running`; `None` where it did not come so far.
    pub(super) outcome: Option<&'static str>,
    pub(super) why: Option<String>,
    /// As the admin API has it.
    pub(super) evidence: Value,
    /// What its validation found.
    pub(super) report: Option<Report>,
    /// Of a dry run: what would be done.
    pub(super) would: Vec<String>,
    phases: Vec<(String, u64)>,
    /// When the last phase ended.
    ended_ms: Option<u64>,
}

impl Account {
    /// Of a model for a route, before anything is done.
    pub(super) fn of(route: &str, model: &str) -> Account {
        Account { route: route.to_owned(), model: model.to_owned(), ..Account::default() }
    }

    /// Notes where a rollout is; whether that is news.
    pub(super) fn note(&mut self, rollout: &RolloutSeen) -> bool {
        self.why = Some(rollout.why.clone()).filter(|why| !why.is_empty());
        if !rollout.is_active {
            self.ended_ms = self.ended_ms.or(Some(rollout.since_ms));
            return false;
        }
        let is_news = self.phases.last().is_none_or(|(state, _)| state != rollout.state());
        if is_news {
            self.phases.push((rollout.state().to_owned(), rollout.since_ms));
        }
        is_news
    }

    /// Where the rollout was last seen.
    pub(super) fn state(&self) -> &str {
        self.phases.last().map_or("its beginning", |(state, _)| state)
    }

    /// Each phase, and the seconds that it took; the last one has taken them until now if it is not over.
    pub(super) fn phases(&self, now_ms: u64) -> Vec<(String, f64)> {
        let ends = self.phases.iter().skip(1).map(|(_, since_ms)| *since_ms).chain([self.ended_ms.unwrap_or(now_ms)]);
        self.phases
            .iter()
            .zip(ends)
            .map(|((state, since_ms), end_ms)| (state.clone(), Duration::from_millis(end_ms.saturating_sub(*since_ms)).as_secs_f64()))
            .collect()
    }

    /// `canary step 1 of 2 (10 %) 4 s, baking 3 s`
    pub(super) fn phases_in_words(&self, now_ms: u64) -> String {
        let words = self.phases(now_ms).into_iter().map(|(state, seconds)| format!("{state} {seconds:.0} s"));
        words.collect::<Vec<_>>().join(", ")
    }

    /// For machines.
    pub(super) fn object(&self, now_ms: u64) -> Value {
        let phase = |(state, seconds): (String, f64)| json!({ "phase": state, "seconds": seconds });
        let mut object = json!({
            "route": self.route, "model": self.model, "version": self.version, "rollout": self.rollout, "outcome": self.outcome,
            "why": self.why, "evidence": self.evidence, "phases": self.phases(now_ms).into_iter().map(phase).collect::<Vec<_>>(),
            "report": self.report,
        });
        if let (Some(object), false) = (object.as_object_mut(), self.would.is_empty()) {
            object.insert("would".to_owned(), json!(self.would));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: &str, since_ms: u64) -> RolloutSeen {
        RolloutSeen {
            id: "ab".to_owned(),
            candidate: "search:2".to_owned(),
            sha256: None,
            phase: String::new(),
            is_active: !matches!(state, "done" | "rolled back"),
            summary: format!("search:2 {state}"),
            why: "so".to_owned(),
            waits: None,
            copies: None,
            since_ms,
        }
    }

    #[test]
    fn each_phase_takes_until_the_next_one() {
        let mut account = Account::default();
        let news: Vec<bool> = [at("canary step 1 of 1 (10 %)", 1_000), at("canary step 1 of 1 (10 %), paused", 1_000), at("baking", 5_000)]
            .iter()
            .map(|rollout| account.note(rollout))
            .collect();
        assert_eq!(news, [true, false, true]);
        assert_eq!(account.phases_in_words(6_000), "canary step 1 of 1 (10 %) 4 s, baking 1 s");
        assert!(!account.note(&at("done", 8_000)));
        assert_eq!(account.phases_in_words(60_000), "canary step 1 of 1 (10 %) 4 s, baking 3 s");
        let object = account.object(60_000);
        assert_eq!(object["phases"][1], json!({ "phase": "baking", "seconds": 3.0 }));
        assert_eq!((&object["why"], &object["version"], object.get("would")), (&json!("so"), &Value::Null, None));
    }
}
