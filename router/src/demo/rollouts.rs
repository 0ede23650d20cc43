//! The second half of the demo: a good model goes live by itself, and a broken one is taken back.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::DemoError;
use super::record::Change;
use super::screen::{Tone, bar};
use super::script::{ASK_EVERY, CHANGE_WITHIN, Caught, FRAME, RECENT, Script};

const EVIDENCE: &str = "/api/v1/routes/search/evidence";
const HISTORY: &str = "/api/v1/routes/search/history?limit=1";
const ROLLOUT: &str = "/api/v1/routes/search/rollout";
/// The plan's first step, where the broken model ends.
const FIRST_PERCENT: u32 = 10;
/// The evidence is told when it has grown by so much.
const EVIDENCE_STEP: f64 = 0.3;
/// Characters of its bar.
const METER: usize = 10;
/// A broken model that nobody finds out would be a broken demo, and so would a good one that does not go live.
const WITHIN: Duration = Duration::from_secs(90);

/// What is gathered for the good model is told no more often.
const TELL_EVERY: Duration = Duration::from_millis(1_500);

/// Each state of v2's rollout: what it is called, and where the users are, by pool.
fn state_of(rollout: &Value) -> Option<(&'static str, [f64; 3])> {
    let step = rollout.get("step").and_then(Value::as_u64).unwrap_or(0);
    match (rollout.get("phase").and_then(Value::as_str)?, step) {
        ("canary", 0) => Some(("v2 at 10 %", [0.9, 0.0, 0.1])),
        ("canary", _) => Some(("v2 at 50 %", [0.5, 0.5, 0.0])),
        ("baking", _) => Some(("v2 baking", [0.1, 0.9, 0.0])),
        ("done", _) => Some(("v2 done", [0.0, 1.0, 0.0])),
        _ => None,
    }
}

fn text_of<'a>(seen: &'a Value, key: &str) -> &'a str {
    seen.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// When that was, by the clock of the steps, and a millisecond before: times of day are cut to whole ones.
fn just_before(unix_ms: u64) -> Option<Instant> {
    let age = crate::admin::now_unix_ms().saturating_sub(unix_ms);
    Instant::now().checked_sub(Duration::from_millis(age + 1))
}

impl Script<'_> {
    /// v2 ramps on evidence until it is live.
    pub(super) async fn roll_out(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("By itself: a better model goes live, step by step, on evidence");
        let began = Instant::now();
        let mut seen = self.ask(Method::POST, ROLLOUT, Bytes::from(json!({ "why": "tonight's model" }).to_string())).await?;
        loop {
            let Some((label, configured)) = state_of(&seen) else {
                let (summary, why) = (text_of(&seen, "summary"), text_of(&seen, "why"));
                return Err(DemoError::Change(format!("a good model did not go live: {summary}: {why}")));
            };
            let since = seen.get("since_ms").and_then(Value::as_u64).unwrap_or(0);
            self.wait_until_obeyed().await?;
            self.note(label, Change::Rollout, configured, just_before(since).unwrap_or(began));
            if label == "v2 done" {
                self.promoted = Some(began.elapsed());
                let text = format!(
                    "live for everybody, {:.1} s after its first share, and nobody's hand was on it",
                    began.elapsed().as_secs_f64()
                );
                self.screen.event(Tone::Good, label, &text);
                self.watch(RECENT).await;
                return Ok(());
            }
            let text = match label {
                "v2 at 10 %" => "switchback rollout start search: a tenth of the users get it, by their hashed id".to_owned(),
                "v2 baking" => format!("live = green, a tenth stays on v1 to compare with: {}", text_of(&seen, "why")),
                _ => text_of(&seen, "why").to_owned(),
            };
            self.screen.event(Tone::Change, label, &text);
            seen = self.wait_for_next(seen, began).await?;
        }
    }

    /// Until the rollout is in another state; tells what it waits for.
    async fn wait_for_next(&mut self, mut seen: Value, began: Instant) -> Result<Value, DemoError> {
        let before = text_of(&seen, "summary").to_owned();
        let (mut told, mut told_at) = (String::new(), Instant::now());
        while text_of(&seen, "summary") == before {
            self.watch(FRAME).await;
            seen = self.ask(Method::GET, ROLLOUT, Bytes::new()).await?;
            let waits = text_of(&seen, "waits_for");
            if began.elapsed() > WITHIN {
                return Err(DemoError::Change(format!("a good model did not go live within {WITHIN:?}: {before}; it waits: {waits}")));
            }
            let evidence = waits.strip_prefix("hold: ").filter(|evidence| *evidence != told && told_at.elapsed() >= TELL_EVERY);
            if let Some(evidence) = evidence {
                (told, told_at) = (evidence.to_owned(), Instant::now());
                self.screen.event(Tone::Quiet, "evidence", &told);
            }
        }
        Ok(seen)
    }

    /// A model that ranks upside down gets a share; the evidence grows until the policy says so, and the router takes it out of traffic by itself.
    pub(super) async fn catch_broken_model(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("By itself: a broken model is found out, and taken back");
        self.cast.break_canary().await?;
        let replaced = Instant::now();
        self.ask(Method::POST, "/api/v1/reload", Bytes::new()).await?;
        self.note("v3 on canary", Change::Model, [0.0, 1.0, 0.0], replaced);
        self.screen.event(
            Tone::Change,
            "v3 on canary",
            "a broken training job: it ranks upside down, and answers as fast as ever, always with a 200",
        );
        self.watch(self.pace.plugin()).await;
        let share = f64::from(FIRST_PERCENT) / 100.0;
        let label = format!("v3 at {FIRST_PERCENT} %");
        let written = Instant::now();
        self.ask(Method::POST, ROLLOUT, Bytes::from(json!({ "why": "the next night's model" }).to_string())).await?;
        self.wait_until_obeyed().await?;
        self.note(&label, Change::Ramp, [0.0, 1.0 - share, share], written);
        self.screen.event(Tone::Change, &label, "the next rollout begins; what users click comes back as events, by token");
        let began = Instant::now();
        let found = self.watch_evidence(began).await?;
        let took = began.elapsed();
        self.screen.event(Tone::Good, "verdict", &format!("{:.1} s after its first share: {}", took.as_secs_f64(), found.summary));
        let rollback_seconds = self.watch_rollback(found.judged_unix_ms).await?;
        let text = format!("canary_percent = 0, {}, and nobody's hand was on it", after_the_verdict(rollback_seconds));
        self.screen.event(Tone::Good, "rolled back", &text);
        self.caught = Some(Caught { seconds: took.as_secs_f64(), rollback_seconds, ..found });
        self.watch(RECENT).await;
        Ok(())
    }

    /// Tells how the evidence grows, until the verdict is to roll back.
    async fn watch_evidence(&mut self, began: Instant) -> Result<Caught, DemoError> {
        let mut told = 0.0;
        loop {
            self.watch(FRAME).await;
            let board = self.ask(Method::GET, EVIDENCE, Bytes::new()).await?;
            let evidence = board.get("evidence").filter(|evidence| evidence.pointer("/candidate/version") == Some(&json!("v3")));
            let number = |key: &str| evidence.and_then(|evidence| evidence.get(key)?.as_f64());
            if let (Some(evidence), Some(log_harm), Some(threshold_log)) = (evidence, number("log_harm"), number("threshold_log")) {
                let verdict = evidence.get("verdict").and_then(Value::as_str).unwrap_or_default();
                let summary = evidence.get("summary").and_then(Value::as_str).unwrap_or_default();
                if log_harm >= told + EVIDENCE_STEP || verdict == "roll_back" {
                    told = log_harm;
                    self.screen.event(Tone::Quiet, "evidence", &evidence_line(evidence, log_harm, threshold_log));
                }
                if verdict == "roll_back" {
                    let judged_unix_ms = evidence.get("judged_unix_ms").and_then(Value::as_u64).unwrap_or(0);
                    let summary = summary.to_owned();
                    return Ok(Caught { seconds: 0.0, rollback_seconds: 0.0, judged_unix_ms, log_harm, threshold_log, summary });
                }
            }
            if began.elapsed() > WITHIN {
                return Err(DemoError::Change(format!("a broken model was not found out within {WITHIN:?}")));
            }
        }
    }

    /// Waits for the router to write the flags itself, and answers how long after the verdict that was.
    async fn watch_rollback(&mut self, judged_unix_ms: u64) -> Result<f64, DemoError> {
        let asked = Instant::now();
        loop {
            let history = self.ask(Method::GET, HISTORY, Bytes::new()).await?;
            let newest = history.pointer("/entries/0").filter(|entry| entry.get("kind") == Some(&json!("rollback")));
            if let Some(time_ms) = newest.and_then(|entry| entry.get("time_ms")?.as_u64()) {
                self.wait_until_obeyed().await?;
                self.note("v3 rolled back", Change::Flip, [0.0, 1.0, 0.0], just_before(time_ms).unwrap_or(asked));
                return Ok(time_ms.saturating_sub(judged_unix_ms) as f64 / 1e3);
            }
            if asked.elapsed() > CHANGE_WITHIN {
                return Err(DemoError::Change(format!("a broken model was found out, and not rolled back within {CHANGE_WITHIN:?}")));
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// Times of day are cut to milliseconds.
pub(super) fn after_the_verdict(seconds: f64) -> String {
    if seconds < 0.001 { "within 1 ms of the verdict".to_owned() } else { format!("{:.0} ms after the verdict", seconds * 1e3) }
}

/// `█████░░░░░ 2.3 of 4.6: 41.2 % of v3's answers are clicked, and 83.3 % of v2's`
fn evidence_line(evidence: &Value, log_harm: f64, threshold_log: f64) -> String {
    let clicks = evidence
        .get("metrics")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|metric| metric.get("metric") == Some(&json!("clicks")));
    let mean = |role: &str| clicks.and_then(|clicks| clicks.get(role)?.get("mean")?.as_f64()).map(|mean| mean * 100.0);
    let (full, rest) = bar((log_harm / threshold_log).clamp(0.0, 1.0), METER);
    let grown = format!("{full}{rest} {log_harm:.1} of {threshold_log:.1}");
    let (Some(candidate), Some(control)) = (mean("candidate"), mean("control")) else { return grown };
    format!("{grown}: {candidate:.1} % of v3's answers are clicked, and {control:.1} % of v2's")
}
