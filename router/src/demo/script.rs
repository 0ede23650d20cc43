//! What happens, and when: a ramp by flag, plugins swapped under load, a flip and a flip back; then [the nightly job](super::rollouts), and
//! [what it is refused](super::refusals).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::cast::Cast;
use super::http::Client;
use super::record::{Change, POOLS, Step};
use super::screen::{Screen, Tone};
use super::users::{SharedRecord, lock};
use super::{DemoError, plugin};

/// The living line is redrawn this often.
pub(super) const FRAME: Duration = Duration::from_millis(120);
/// What it shows is the last so long.
pub(super) const RECENT: Duration = Duration::from_secs(1);
/// How often the router is asked whether a plugin is in force.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// A change that takes longer will not come.
const CHANGE_WITHIN: Duration = Duration::from_secs(15);
/// The ramp, in percent.
const RAMP: [u32; 4] = [1, 5, 25, 50];
pub(super) const ROUTE: &str = "/api/v1/routes/search";
const FLAGS: &str = "/api/v1/routes/search/flags";
const POLICY: &str = "split-weighted";

/// How long each step is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    steady: Duration,
    step: Duration,
    plugin: Duration,
    flip: Duration,
}

impl Pace {
    /// About a minute in all.
    pub(super) fn usual() -> Pace {
        let seconds = Duration::from_secs;
        Pace { steady: seconds(4), step: seconds(6), plugin: seconds(4), flip: seconds(8) }
    }

    /// About a quarter of that.
    pub(super) fn fast() -> Pace {
        let ms = Duration::from_millis;
        Pace { steady: ms(1_000), step: ms(1_200), plugin: ms(900), flip: ms(1_500) }
    }
}

/// What was shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// How long each plugin took from the folder to being in force.
    pub(super) plugin_swaps: Vec<Duration>,
    pub(super) promoted: Option<Promoted>,
    pub(super) caught: Option<Caught>,
    /// In the order in which they were offered.
    pub(super) refused: Vec<Refused>,
}

/// How a good model went live.
#[derive(Debug, Clone)]
pub(super) struct Promoted {
    pub(super) version: &'static str,
    /// From its first share until nothing was compared any more.
    pub(super) took: Duration,
}

/// How a model was refused before any user saw it.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// What is wrong with it.
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    pub(super) version: String,
    /// The check that refused it, and what that says.
    pub(super) check: &'static str,
    pub(super) why: String,
    pub(super) offered: Instant,
    /// The whole job.
    pub(super) took: Duration,
}

/// How a broken model was rolled back.
#[derive(Debug, Clone)]
pub(super) struct Caught {
    pub(super) version: &'static str,
    /// From its first share to the verdict.
    pub(super) seconds: f64,
    /// From the verdict to the flags that take it out of traffic.
    pub(super) rollback_seconds: f64,
    pub(super) judged_unix_ms: u64,
    pub(super) log_harm: f64,
    pub(super) threshold_log: f64,
    pub(super) summary: String,
}

/// The demo while it plays.
pub(super) struct Script<'a> {
    pub(super) cast: &'a mut Cast,
    pub(super) screen: &'a mut Screen,
    pub(super) record: SharedRecord,
    pub(super) shown: Shown,
    pace: Pace,
    admin: Client,
}

impl<'a> Script<'a> {
    pub(super) fn new(cast: &'a mut Cast, screen: &'a mut Screen, record: SharedRecord, pace: Pace) -> Script<'a> {
        Script { admin: Client::new(cast.admin), cast, screen, record, pace, shown: Shown::default() }
    }

    /// Plays it all.
    ///
    /// # Errors
    /// When the router refuses a change, or one does not come into force.
    pub(super) async fn play(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("By hand: flags, plugins, flips");
        let now = Instant::now();
        self.note("steady on blue", Change::Start, [1.0, 0.0, 0.0], now);
        self.watch(self.pace.steady).await;
        for percent in RAMP {
            self.ramp(percent).await?;
            if percent == 25 {
                self.swap_plugin().await?;
                self.offer_broken_plugin().await?;
            }
        }
        self.flip("green", "flip to green", [0.0, 1.0, 0.0]).await?;
        self.flip("blue", "flip back to blue", [1.0, 0.0, 0.0]).await?;
        self.deploy_good_model().await?;
        self.deploy_broken_model().await?;
        self.offer_bad_models().await
    }

    async fn ramp(&mut self, percent: u32) -> Result<(), DemoError> {
        let share = f64::from(percent) / 100.0;
        let mut set = json!({ "canary_percent": percent });
        if percent == RAMP[0] {
            set.as_object_mut().map(|set| set.insert("salt".to_owned(), json!(salt())));
        }
        let label = format!("canary {percent} %");
        let took = self.change(&label, Change::Ramp, &set, [1.0 - share, 0.0, share]).await?;
        let adds = if percent == RAMP[0] { "; from here on a growing canary only adds users" } else { "" };
        let text = format!("canary_percent = {percent}, obeyed {} later{adds}", show(took));
        self.screen.event(Tone::Change, &label, &text);
        self.watch(self.pace.step).await;
        Ok(())
    }

    async fn flip(&mut self, live: &str, label: &str, configured: [f64; 3]) -> Result<(), DemoError> {
        let set = json!({ "live": live, "canary_percent": 0 });
        let took = self.change(label, Change::Flip, &set, configured).await?;
        let step = lock(&self.record).steps.len().saturating_sub(1);
        self.watch(RECENT.min(self.pace.flip)).await;
        let last = lock(&self.record).last_answer_of_old_pool(step).unwrap_or_default();
        let last = if last.is_zero() {
            "no answer of the old pool came after the write".to_owned()
        } else {
            format!("the last answer of the old pool came {} after the write", show(last))
        };
        self.screen.event(Tone::Good, label, &format!("live = {live}, one pointer, obeyed {} later; {last}", show(took)));
        self.watch(self.pace.flip.saturating_sub(RECENT)).await;
        Ok(())
    }

    /// Puts another build of the split policy into the watched folder and waits until it routes.
    async fn swap_plugin(&mut self) -> Result<(), DemoError> {
        let component = plugin::another_build();
        let (digest, before) = (hex::encode(Sha256::digest(&component)), self.digest_in_force().await?);
        let (written, sent_before) = (Instant::now(), lock(&self.record).sent);
        self.place_plugin(&component)?;
        while self.digest_in_force().await? != digest {
            if written.elapsed() > CHANGE_WITHIN {
                return Err(DemoError::Change("the new plugin did not come into force".to_owned()));
            }
            self.screen_frame();
            sleep(ASK_EVERY).await;
        }
        let took = written.elapsed();
        self.shown.plugin_swaps.push(took);
        let configured = lock(&self.record).steps.last().map_or([1.0, 0.0, 0.0], |step| step.configured);
        self.note("plugin swapped", Change::Plugin, configured, written);
        let meanwhile = lock(&self.record).sent - sent_before;
        let text = format!(
            "{POLICY} {} -> {}, compiled and admitted beside the old one, in force {} after its file arrived; {meanwhile} queries meanwhile",
            short(&before),
            short(&digest),
            show(took)
        );
        self.screen.event(Tone::Good, "plugin", &text);
        self.watch(self.pace.plugin).await;
        Ok(())
    }

    /// Puts half a plugin into the folder: the one in force must stay.
    async fn offer_broken_plugin(&mut self) -> Result<(), DemoError> {
        let (before, mut component) = (self.digest_in_force().await?, plugin::another_build());
        component.truncate(component.len() / 2);
        let offered = Instant::now();
        self.place_plugin(&component)?;
        let reason = loop {
            let policy = self.policy().await?;
            if let Some(reason) = policy.pointer("/refusals/0/reason").and_then(Value::as_str) {
                break reason.to_owned();
            }
            if offered.elapsed() > CHANGE_WITHIN {
                return Err(DemoError::Change("the router said nothing about a broken plugin".to_owned()));
            }
            self.screen_frame();
            sleep(ASK_EVERY).await;
        };
        let stays = self.digest_in_force().await?;
        if stays != before {
            return Err(DemoError::Change(format!("a broken plugin displaced the one in force: {before} -> {stays}")));
        }
        self.screen.event(Tone::Change, "bad plugin", &format!("refused, and {} goes on: {}", short(&before), cut(&reason)));
        self.watch(self.pace.plugin).await;
        Ok(())
    }

    /// By rename, so that it is whole at once.
    fn place_plugin(&self, component: &[u8]) -> Result<(), DemoError> {
        let folder = self.cast.plugins();
        let (arriving, in_place) = (folder.join(".arriving"), folder.join(format!("{POLICY}.wasm")));
        std::fs::write(&arriving, component).and_then(|()| std::fs::rename(arriving, in_place)).map_err(DemoError::Folder)
    }

    /// Writes flags through the admin API; how long that took, until the router obeyed.
    async fn change(&mut self, label: &str, change: Change, set: &Value, configured: [f64; 3]) -> Result<Duration, DemoError> {
        let written = Instant::now();
        let body = json!({ "set": set, "why": format!("demo: {label}") });
        let epoch = self.ask(Method::PATCH, FLAGS, Bytes::from(body.to_string())).await?.get("epoch").and_then(Value::as_u64);
        let applied = self.ask(Method::GET, ROUTE, Bytes::new()).await?.get("applied_epoch").and_then(Value::as_u64);
        if epoch.is_none() || applied < epoch {
            return Err(DemoError::Change(format!("{label}: the router applied epoch {applied:?}, not {epoch:?}")));
        }
        self.note(label, change, configured, written);
        Ok(written.elapsed())
    }

    /// A flag that the router wrote itself is in the store before it is obeyed.
    pub(super) async fn wait_until_obeyed(&mut self) -> Result<(), DemoError> {
        let asked = Instant::now();
        loop {
            let route = self.ask(Method::GET, ROUTE, Bytes::new()).await?;
            let epoch = |key: &str| route.get(key).and_then(Value::as_u64);
            if epoch("applied_epoch").is_some() && epoch("applied_epoch") >= epoch("epoch") {
                return Ok(());
            }
            if asked.elapsed() > CHANGE_WITHIN {
                return Err(DemoError::Change(format!("the router wrote epoch {:?} and does not obey it", epoch("epoch"))));
            }
            sleep(ASK_EVERY).await;
        }
    }

    pub(super) fn note(&mut self, label: &str, change: Change, configured: [f64; 3], written: Instant) {
        let step = Step { label: label.to_owned(), change, written, applied: Instant::now(), configured };
        lock(&self.record).steps.push(step);
    }

    async fn policy(&mut self) -> Result<Value, DemoError> {
        let route = self.ask(Method::GET, ROUTE, Bytes::new()).await?;
        Ok(route.pointer("/policies/0").cloned().unwrap_or_default())
    }

    async fn digest_in_force(&mut self) -> Result<String, DemoError> {
        let policy = self.policy().await?;
        Ok(policy.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    pub(super) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Value, DemoError> {
        let bearer = format!("Bearer {}", self.cast.token);
        let answer = self.admin.send(method, path, &[("authorization", &bearer)], body).await;
        let answer = answer.map_err(|error| DemoError::Change(super::chain(&error)))?;
        if !answer.status.is_success() {
            let said = String::from_utf8_lossy(&answer.body);
            return Err(DemoError::Change(format!("{path}: the router answered {}: {said}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| DemoError::Change(format!("{path}: no JSON: {error}")))
    }

    /// Lets it run for a while, with the living line.
    pub(super) async fn watch(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.screen_frame();
            sleep(FRAME.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    pub(super) fn screen_frame(&mut self) {
        for news in self.cast.receiver.news() {
            self.screen.event(Tone::Quiet, "notified", &news);
        }
        let record = Arc::clone(&self.record);
        let record = lock(&record);
        let (rate, shares) = record.recent(Instant::now(), RECENT);
        let text = format!("{rate:.0}/s, {} failed", record.failed);
        self.screen.status(&POOLS, shares, &text);
    }
}

/// 128 random bits: who is in the canary can be neither guessed nor aimed at.
fn salt() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

fn short(digest: &str) -> &str {
    digest.get(..8).unwrap_or("native")
}

fn show(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// The beginning of a long reason: the API has the whole.
fn cut(reason: &str) -> String {
    const MOST: usize = 110;
    match reason.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", reason.get(..end).unwrap_or(reason)),
        None => reason.to_owned(),
    }
}
