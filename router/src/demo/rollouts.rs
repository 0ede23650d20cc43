//! The nightly job: it deploys a better model, which goes live by itself, and then a broken one, which is taken back.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::DemoError;
use super::cast::{BROKEN, RANKER_V2};
use super::job::{Heard, Job};
use super::record::Change;
use super::screen::{Tone, bar};
use super::script::{Caught, FRAME, Promoted, RECENT, ROUTE, Script};

/// As the job calls what last night's training made.
const FILE: &str = "ranker.onnx";
/// The evidence is told when it has grown by so much.
const EVIDENCE_STEP: f64 = 0.3;
/// Characters of its bar.
const METER: usize = 10;
/// A broken model that nobody finds out would be a broken demo, and so would a good one that does not go live.
const WITHIN: Duration = Duration::from_secs(120);
/// What is waited for is told no more often.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// What the rollout's waiting is called.
const WAITS: &str = "evidence";
/// Characters of a digest.
const SHORT: usize = 12;

/// A job under way, and what became of its rollout.
pub(super) struct Night {
    job: Job,
    /// What is live before it, and the version that is to be.
    live: &'static str,
    candidate: &'static str,
    /// The state that was seen last: what it is called in the table.
    state: String,
    /// When the candidate got its first share, by the clock of the steps and by that of the day.
    first_share: Option<(Instant, u64)>,
    /// When its state was reached.
    since: Option<Instant>,
    /// How much evidence was told.
    told: f64,
    told_at: Instant,
    found: Option<Caught>,
}

/// A rollout's state: what it is called, what it does to users, and where they are, by pool.
fn state_of(rollout: &Value, (live, candidate): (&str, &str)) -> Option<(String, Change, [f64; 3])> {
    let step = rollout.get("step").and_then(Value::as_u64).unwrap_or(0);
    let was_blue = live == "search:1";
    let (what, change, shares) = match (text_of(rollout, "phase"), step) {
        ("canary", 0) if was_blue => ("at 10 %", Change::Rollout, [0.9, 0.0, 0.1]),
        ("canary", 0) => ("at 10 %", Change::Ramp, [0.0, 0.9, 0.1]),
        ("canary", _) => ("at 50 %", Change::Rollout, [0.5, 0.5, 0.0]),
        ("baking", _) => ("baking", Change::Rollout, [0.1, 0.9, 0.0]),
        ("done", _) => ("done", Change::Rollout, [0.0, 1.0, 0.0]),
        ("rolled_back", _) => ("rolled back", Change::Flip, [0.0, 1.0, 0.0]),
        _ => return None,
    };
    Some((format!("{candidate} {what}"), change, shares))
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
    pub(super) async fn deploy_good_model(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("The nightly job: a better model goes live, step by step, on evidence");
        let mut night = self.begin_night(RANKER_V2, ("search:1", "search:2"))?;
        let code = self.follow_to_its_end(&mut night).await?;
        let took = night.first_share.zip(night.since).map(|((began, _), ended)| ended - began);
        match (code, took) {
            (Some(0), Some(took)) if night.state.ends_with("done") => {
                self.shown.promoted = Some(Promoted { version: night.candidate, took });
                let text = "it is live for everybody, and nobody's hand was on it";
                self.screen.event(Tone::Good, "exit code 0", text);
                self.watch(RECENT).await;
                Ok(())
            }
            _ => Err(DemoError::Change(format!("a good model did not go live: {}, exit code {code:?}", night.state))),
        }
    }

    /// A model that ranks upside down gets a share; the evidence grows until the policy says so, and the router takes it out of traffic by itself.
    pub(super) async fn deploy_broken_model(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("The next night: a broken model is found out by what users click, and taken back");
        self.screen.event(
            Tone::Quiet,
            "broken training",
            "it ranks upside down, as fast as ever, always with a 200. This job has no judged queries, as many have none: nothing but users shows it",
        );
        let mut night = self.begin_night(BROKEN, ("search:2", "search:3"))?;
        let code = self.follow_to_its_end(&mut night).await?;
        match (code, night.found) {
            (Some(2), Some(found)) if night.state.ends_with("rolled back") => {
                self.shown.caught = Some(found);
                self.screen.event(Tone::Good, "exit code 2", "users have the model before it, and nobody's hand was on it");
                self.watch(RECENT).await;
                Ok(())
            }
            _ => Err(DemoError::Change(format!("a broken model was not rolled back: {}, exit code {code:?}", night.state))),
        }
    }

    fn begin_night(&mut self, model: &[u8], (live, candidate): (&'static str, &'static str)) -> Result<Night, DemoError> {
        let text = format!("$ deploy_model.sh --route search --model search {FILE}");
        self.screen.event(Tone::Change, "cron", &text);
        let job = self.cast.start_job(FILE, model, false)?;
        Ok(Night {
            job,
            live,
            candidate,
            state: String::new(),
            first_share: None,
            since: None,
            told: 0.0,
            told_at: Instant::now(),
            found: None,
        })
    }

    /// Tells what the job says, and where its rollout is. Its exit code.
    async fn follow_to_its_end(&mut self, night: &mut Night) -> Result<Option<i32>, DemoError> {
        let began = Instant::now();
        loop {
            let heard = night.job.hear(FRAME).await;
            self.screen_frame();
            self.look_at(night).await?;
            match heard {
                Heard::Line(line) => self.tell(&line, night),
                Heard::Nothing => {}
                Heard::End => return Ok(night.job.code().await),
            }
            if began.elapsed() > WITHIN {
                return Err(DemoError::Change(format!("the nightly job did not end within {WITHIN:?}: {}", night.state)));
            }
        }
    }

    /// A line of the job's log.
    fn tell(&mut self, line: &str, night: &mut Night) {
        if night.found.is_some() && line.starts_with("  ") {
            return self.screen.row(line);
        }
        let Some((label, tone, text)) = entry(line, night.candidate, night.found.is_some()) else { return };
        if label == WAITS {
            // The bars tell it too.
            if night.told > 0.0 || night.told_at.elapsed() < TELL_EVERY {
                return;
            }
            night.told_at = Instant::now();
        }
        self.screen.event(tone, &label, &text);
    }

    /// Notes where users are, when that is news, and what is known of the candidate.
    async fn look_at(&mut self, night: &mut Night) -> Result<(), DemoError> {
        let route = self.ask(Method::GET, ROUTE, Bytes::new()).await?;
        if let Some(evidence) =
            route.pointer("/evidence/evidence").filter(|of| of.pointer("/candidate/version") == Some(&night.candidate.into()))
        {
            self.weigh(evidence, night);
        }
        let Some(rollout) = route.get("rollout").filter(|rollout| text_of(rollout, "candidate") == night.candidate) else { return Ok(()) };
        let Some((state, change, shares)) = state_of(rollout, (night.live, night.candidate)).filter(|(state, ..)| *state != night.state)
        else {
            return Ok(());
        };
        let since_ms = rollout.get("since_ms").and_then(Value::as_u64).unwrap_or(0);
        let since = just_before(since_ms).unwrap_or_else(Instant::now);
        night.first_share.get_or_insert((since, since_ms));
        if change == Change::Flip {
            // Rolled back: the verdict was there before.
            let Some(found) = &mut night.found else { return Ok(()) };
            found.rollback_seconds = since_ms.saturating_sub(found.judged_unix_ms) as f64 / 1e3;
            let text = format!("canary_percent = 0, {}", after_the_verdict(found.rollback_seconds));
            self.screen.event(Tone::Good, "rolled back", &text);
        }
        self.wait_until_obeyed().await?;
        self.note(&state, change, shares, since);
        (night.state, night.since) = (state, Some(since));
        Ok(())
    }

    /// Tells how the evidence against the broken model grows, and notes the verdict.
    fn weigh(&mut self, evidence: &Value, night: &mut Night) {
        let number = |key: &str| evidence.get(key).and_then(Value::as_f64);
        let (Some(log_harm), Some(threshold_log), Some((_, first_ms))) = (number("log_harm"), number("threshold_log"), night.first_share)
        else {
            return;
        };
        let is_over = text_of(evidence, "verdict") == "roll_back";
        if night.found.is_some() || !is_over && log_harm < night.told + EVIDENCE_STEP {
            return;
        }
        night.told = log_harm;
        let line = evidence_line(evidence, (log_harm, threshold_log), (night.live, night.candidate));
        self.screen.event(Tone::Quiet, "evidence", &line);
        if is_over {
            let judged_unix_ms = evidence.get("judged_unix_ms").and_then(Value::as_u64).unwrap_or(0);
            let seconds = judged_unix_ms.saturating_sub(first_ms) as f64 / 1e3;
            self.screen.event(Tone::Good, "verdict", &format!("roll back, {seconds:.1} s after its first share"));
            let (version, summary) = (night.candidate, text_of(evidence, "summary").to_owned());
            night.found = Some(Caught { version, seconds, rollback_seconds: 0.0, judged_unix_ms, log_harm, threshold_log, summary });
        }
    }
}

/// What a line of the job's log is called, and what is shown of it; nothing of what is said elsewhere. `is_found`: the candidate was found out.
fn entry(line: &str, candidate: &str, is_found: bool) -> Option<(String, Tone, String)> {
    if let Some(waits) = line.strip_prefix("    waits: ") {
        let waits = waits.strip_prefix("hold: ").unwrap_or(waits);
        return (!waits.ends_with("was judged yet")).then(|| (WAITS.to_owned(), Tone::Quiet, waits.to_owned()));
    }
    let state = line.strip_prefix(candidate).map_or(line, str::trim_start);
    let begins = |beginning: &str| state.starts_with(beginning);
    let is_said_elsewhere = ["deploying ", "search@", FILE, "done: "].into_iter().any(begins);
    if is_said_elsewhere || is_found && begins("switchback: ") {
        return None;
    }
    if begins("baking") {
        return Some((
            format!("{candidate} baking"),
            Tone::Change,
            "live = green, a tenth stays on the version before to compare with".to_owned(),
        ));
    }
    let (label, tone) = if begins("is pushed") {
        ("push".to_owned(), Tone::Change)
    } else if begins("passed") {
        ("validation".to_owned(), Tone::Good)
    } else if begins("the rollout of") {
        ("rollout".to_owned(), Tone::Change)
    } else if begins("canary step") {
        let share = state.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or(state, |(share, _)| share);
        (format!("{candidate} at {share}"), Tone::Change)
    } else if begins("is live on") {
        ("live".to_owned(), Tone::Good)
    } else {
        ("job".to_owned(), Tone::Quiet)
    };
    Some((label, tone, shortened(line)))
}

/// Digests are as long as a line.
fn shortened(line: &str) -> String {
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = line.split(' ').map(|word| if is_digest(word) { word.get(..SHORT).unwrap_or(word) } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Times of day are cut to milliseconds.
pub(super) fn after_the_verdict(seconds: f64) -> String {
    if seconds < 0.001 { "within 1 ms of the verdict".to_owned() } else { format!("{:.0} ms after the verdict", seconds * 1e3) }
}

/// `█████░░░░░ 2.3 of 4.6: 41.2 % of search:3's answers are clicked, 83.3 % of search:2's`
fn evidence_line(evidence: &Value, (log_harm, threshold_log): (f64, f64), (live, candidate): (&str, &str)) -> String {
    let clicks =
        evidence.get("metrics").and_then(Value::as_array).into_iter().flatten().find(|metric| text_of(metric, "metric") == "clicks");
    let mean = |role: &str| clicks.and_then(|clicks| clicks.get(role)?.get("mean")?.as_f64()).map(|mean| mean * 100.0);
    let (full, rest) = bar((log_harm / threshold_log).clamp(0.0, 1.0), METER);
    let grown = format!("{full}{rest} {log_harm:.1} of {threshold_log:.1}");
    let (Some(of_candidate), Some(of_live)) = (mean("candidate"), mean("control")) else { return grown };
    format!("{grown}: {of_candidate:.1} % of {candidate}'s answers are clicked, {of_live:.1} % of {live}'s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_lines_are_told_by_what_they_are() {
        let label = |line: &str| entry(line, "search:3", true).map(|(label, ..)| label);
        assert_eq!(label("search:3 canary step 1 of 2 (10 %)").as_deref(), Some("search:3 at 10 %"));
        assert_eq!(label("    waits: hold: 14 of 20 requests").as_deref(), Some(WAITS));
        assert_eq!(label("    waits: nothing was judged yet"), None);
        assert_eq!(label("search@champion points to version 3"), None);
        assert_eq!(label("switchback: search:3 was rolled back on search"), None);
        assert_eq!(label("search:3 rolled back: clicks").as_deref(), Some("job"));
        assert_eq!(shortened(&format!("search:3 is pushed, SHA-256 {}", "ab".repeat(32))), "search:3 is pushed, SHA-256 abababababab");
    }
}
