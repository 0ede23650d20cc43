//! How a deployment's rollout begins: what is in its way is looked at, ended, or waited for.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Failure;
use super::admin_client::AdminClient;
use super::deploy_decide::{IfBusy, Next, RolloutSeen, Scene, is_newer};
use super::deploy_told::Told;
use super::flag::plain;
use super::rollout::start_body;
use super::validating::named;
use crate::registry::Version;

/// How often the route is looked at.
pub(super) const EVERY: Duration = Duration::from_millis(500);
/// Between two steps that the router takes.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The longest pause after a router was away.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Before a rollout is under way, a router that is away ends the command after this.
const AWAY_FOR: Duration = Duration::from_secs(30);
/// So often somebody else may be first.
const TRIES: u32 = 20;

/// A candidate, on a route.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) route: String,
    /// `search:12`
    pub(super) candidate: String,
    /// SHA-256 of its artefact, where that is known.
    pub(super) sha256: Option<String>,
    /// The version that was live when the candidate was compared with it.
    pub(super) live: String,
    pub(super) steps: Option<Vec<String>>,
    /// It becomes live as soon as the servers have it.
    pub(super) at_once: bool,
    pub(super) why: String,
    pub(super) if_busy: IfBusy,
    pub(super) deadline: Instant,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Begun {
    /// Its rollout is under way.
    UnderWay(Box<RolloutSeen>),
    LiveAlready,
    /// None: another version than the one that it was compared with is live now.
    LiveChanged,
}

/// The router, for whoever is patient.
#[derive(Debug)]
pub(super) struct Patient {
    pub(super) client: AdminClient,
    /// `/api/v1/routes/search`
    pub(super) path: String,
}

impl Patient {
    pub(super) fn new(client: AdminClient, route: &str) -> Patient {
        Patient { client, path: format!("/api/v1/routes/{route}") }
    }

    /// The route. A router that is away is tried again, less and less often, until the deadline.
    ///
    /// # Errors
    /// It was away until then, or it refuses.
    pub(super) async fn route(&self, deadline: Instant, told: &Told) -> Result<Value, Failure> {
        self.get("", deadline, told).await
    }

    /// What is below the route, likewise.
    ///
    /// # Errors
    /// As [`Patient::route`].
    pub(super) async fn get(&self, below: &str, deadline: Instant, told: &Told) -> Result<Value, Failure> {
        let (path, mut pause, mut is_away) = (format!("{}{below}", self.path), EVERY, false);
        loop {
            match self.client.get(&path).await {
                Err(failure) if failure.is_unreachable() && Instant::now() < deadline => {
                    if !is_away {
                        told.line("away", &format!("{}; it is tried again", failure.message()));
                    }
                    is_away = true;
                    sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Ok(found) => {
                    if is_away {
                        told.line("back", "the router answers again");
                    }
                    return Ok(found);
                }
                answer => return answer,
            }
        }
    }

    /// What the router says of a rollout that would begin with this version, whose validation is another matter; without one, of any that would. Why its
    /// registry cannot be asked, where it cannot.
    ///
    /// # Errors
    /// None would begin, or the router is away.
    pub(super) async fn check(&self, version: Option<&Version>, deadline: Instant, told: &Told) -> Result<Option<String>, Failure> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("unvalidated", "true");
        if let Some(version) = version {
            query.append_pair("candidate", &named(version)).append_pair("sha256", &version.manifest.sha256);
        }
        let found = self.get(&format!("/rollout/check?{}", query.finish()), deadline.min(Instant::now() + AWAY_FOR), told).await?;
        Ok(found["why"].as_str().map(str::to_owned))
    }

    /// The route, before a rollout is under way: nobody waits for hours for a router that is not there.
    ///
    /// # Errors
    /// As [`Patient::route`].
    pub(super) async fn first(&self, deadline: Instant, told: &Told) -> Result<Value, Failure> {
        self.route(deadline.min(Instant::now() + AWAY_FOR), told).await
    }
}

impl Order {
    /// Begins the candidate's rollout, or finds it under way. Whatever is done twice is seen the second time.
    ///
    /// # Errors
    /// Another rollout is under way and stays, or the router refuses, or is away.
    pub(super) async fn begin(&self, patient: &Patient, told: &mut Told) -> Result<Begun, Failure> {
        let (mut pause, mut give_up) = (AT_ONCE, None);
        for _ in 0..TRIES {
            let scene = Scene::of(&patient.first(self.deadline, told).await?);
            match self.take(&scene, patient, told).await {
                Ok(Some(begun)) => return Ok(begun),
                Ok(None) => {}
                // An answer was lost, or the store is away: what became of it is seen.
                Err(failure) if failure.is_unreachable() => {
                    let give_up = *give_up.get_or_insert_with(|| self.deadline.min(Instant::now() + AWAY_FOR));
                    if Instant::now() >= give_up {
                        return Err(failure);
                    }
                    told.line("away", &format!("{}; it is tried again", failure.message()));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure),
            }
            self.in_time(|| "nothing was begun".to_owned())?;
            sleep(pause.min(self.deadline.saturating_duration_since(Instant::now()))).await;
        }
        Err(Failure::refused(format!("{}: others were first, {TRIES} times", self.route)))
    }

    /// One step towards it; `None` where it is to be looked at again.
    async fn take(&self, scene: &Scene, patient: &Patient, told: &mut Told) -> Result<Option<Begun>, Failure> {
        if let Some(why) = scene.of_another_artefact(&self.candidate, self.sha256.as_deref()) {
            return Err(Failure::refused(why));
        }
        match scene.next(&self.candidate, self.if_busy) {
            Next::LiveAlready => Ok(Some(Begun::LiveAlready)),
            Next::Attach(rollout) => {
                told.line("attached", &format!("the rollout of {} is under way already: {}", self.candidate, rollout.state()));
                if self.steps.is_some() {
                    told.line("warning", "warning: it goes on with the steps that it began with");
                }
                Ok(Some(Begun::UnderWay(Box::new(rollout))))
            }
            Next::Refuse(rollout) => Err(self.busy(&rollout)),
            Next::Queue(rollout) => self.wait_for(&rollout, patient, told).await.map(|()| None),
            Next::Supersede(rollout) => self.supersede(&rollout, patient, told).await.map(|()| None),
            Next::Start if scene.live != self.live => Ok(Some(Begun::LiveChanged)),
            Next::Start => {
                for stray in &scene.strays {
                    told.line("warning", &format!("warning: {stray}"));
                }
                self.start(patient, told).await
            }
        }
    }

    async fn start(&self, patient: &Patient, told: &Told) -> Result<Option<Begun>, Failure> {
        let body = start_body((Some(&self.candidate), self.sha256.as_deref()), self.steps.as_deref(), self.at_once, &self.why);
        match patient.client.post(&format!("{}/rollout", patient.path), &body).await {
            Ok(rollout) => {
                let begun = RolloutSeen::of(&rollout).ok_or_else(|| Failure::unreachable("the router answered with no rollout"))?;
                told.line("started", &began(&begun, &rollout));
                Ok(Some(Begun::UnderWay(Box::new(begun))))
            }
            Err(failure) if failure.is_refused() => {
                // Somebody else may have been first: then what they began is what is in the way.
                let again = Scene::of(&patient.first(self.deadline, told).await?);
                if again.next(&self.candidate, self.if_busy) == Next::Start { Err(failure) } else { Ok(None) }
            }
            Err(failure) => Err(failure),
        }
    }

    /// What is in the way, as an end.
    pub(super) fn busy(&self, rollout: &RolloutSeen) -> Failure {
        let hint = "--if-busy=queue waits until it is over, --if-busy=supersede aborts it";
        Failure::refused(format!("another rollout is under way on {}: {}; {hint}", self.route, rollout.summary))
    }

    fn in_time(&self, what: impl FnOnce() -> String) -> Result<(), Failure> {
        if Instant::now() < self.deadline {
            Ok(())
        } else {
            Err(Failure::timed_out(format!("{} when the time was up; run it again to go on", what())))
        }
    }

    async fn wait_for(&self, other: &RolloutSeen, patient: &Patient, told: &mut Told) -> Result<(), Failure> {
        let newer = match is_newer(&other.candidate, &self.candidate) {
            true => format!("; that is a newer version, and once it is live {} is not begun", self.candidate),
            false => String::new(),
        };
        told.state("queued", &format!("waits until another rollout is over: {}{newer}", other.summary));
        told.spin();
        loop {
            let scene = Scene::of(&patient.route(self.deadline, told).await?);
            let Some(rollout) = scene.rollout.filter(|rollout| rollout.is_active && rollout.id == other.id) else { return Ok(()) };
            told.waits(&rollout.summary, &rollout.summary);
            self.in_time(|| format!("another rollout was still under way on {}: {}", self.route, rollout.summary))?;
            sleep(EVERY).await;
        }
    }

    async fn supersede(&self, other: &RolloutSeen, patient: &Patient, told: &mut Told) -> Result<(), Failure> {
        let more = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let why = format!("superseded by {}{more}", self.candidate);
        match patient.client.post(&format!("{}/rollout/abort", patient.path), &json!({ "why": why })).await {
            Ok(_) => {
                told.line("superseded", &format!("another rollout was aborted: {}", other.summary));
                Ok(())
            }
            // It may have ended meanwhile.
            Err(failure) if failure.is_refused() => {
                let scene = Scene::of(&patient.first(self.deadline, told).await?);
                let is_there = scene.rollout.is_some_and(|rollout| rollout.is_active && rollout.id == other.id);
                if is_there { Err(failure) } else { Ok(()) }
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What came of an order to begin. Where a colour still has the version it is live with the answer, and nothing is under way.
fn began(begun: &RolloutSeen, answer: &Value) -> String {
    match begun.phase == "done" {
        true => format!("{} is live on {}, epoch {}", begun.candidate, plain(&answer["to"]), plain(&answer["epoch"])),
        false => format!("the rollout of {} began: {}", begun.candidate, begun.state()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_at_once_is_no_rollout_that_began() {
        let mut answer = json!({ "id": "ab", "candidate": "search:1", "to": "blue", "phase": "done", "is_active": false, "summary": "search:1 done", "epoch": 12 });
        let told = |answer: &Value| began(&RolloutSeen::of(answer).unwrap(), answer);
        assert_eq!(told(&answer), "search:1 is live on blue, epoch 12");
        (answer["phase"], answer["is_active"], answer["summary"]) =
            ("loading".into(), true.into(), "search:1 loading, promoted to the end".into());
        assert_eq!(told(&answer), "the rollout of search:1 began: loading");
    }
}
