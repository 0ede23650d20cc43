//! Follows a rollout to its end. It goes on by itself: whoever follows it may come and go.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::deploy_decide::{Ended, RolloutSeen, Scene, Seen, Until};
use super::deploy_start::{EVERY, Patient};
use super::deploy_told::{Account, Told};
use super::{Failure, evidence};

/// The newest entries of the ledger that are looked through for a rollout that another one followed.
const ENTRIES: usize = 1_000;

/// The state of a rollout whose candidate gets copies of queries.
const MIRRORING: &str = "mirroring";

/// Between two looks whether the router obeys what is written, and how many.
const OBEYS: Duration = Duration::from_millis(50);
const OBEYS_TRIES: u32 = 100;

/// Which rollout is followed, and how far.
#[derive(Debug)]
pub(super) struct Followed<'a> {
    pub(super) candidate: &'a str,
    pub(super) id: String,
    pub(super) until: Until,
    pub(super) deadline: Instant,
    /// The command that attaches again.
    pub(super) again: &'a str,
}

impl Followed<'_> {
    /// Tells of each change, and how it ended.
    ///
    /// # Errors
    /// The time is up, or the router was away until then.
    pub(super) async fn to_its_end(&self, patient: &Patient, told: &mut Told, account: &mut Account) -> Result<Ended, Failure> {
        told.spin();
        let mut obeys = OBEYS_TRIES;
        loop {
            let route = patient.route(self.deadline, told).await.map_err(|failure| failure.with_hint(&self.hint()))?;
            if route["rollout"]["id"] == self.id.as_str() && evidence::is_of(&route["evidence"], &route["rollout"]) {
                account.evidence = route["evidence"].clone();
            }
            let scene = Scene::of(&route);
            match scene.seen(&self.id, self.until) {
                // The router obeys its flags a moment after they are written; until then another one answers.
                Seen::Over(Ended::Live, _) if scene.live != self.candidate && obeys > 0 => {
                    obeys -= 1;
                    sleep(OBEYS).await;
                    continue;
                }
                Seen::UnderWay(rollout) => self.tell(&rollout, told, account),
                Seen::Over(ended, rollout) => {
                    account.note(&rollout);
                    // Until live: what bakes is still under way.
                    told.state("ended", &format!("{}: {}", rollout.summary, rollout.why));
                    return Ok(ended);
                }
                Seen::Gone => return self.as_the_ledger_has_it(patient, told, account).await,
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (candidate, state) = (self.candidate, account.state());
                return Err(Failure::timed_out(format!("{candidate} is still at {state} when the time is up")).with_hint(&self.hint()));
            }
            sleep(EVERY.min(left)).await;
        }
    }

    fn tell(&self, rollout: &RolloutSeen, told: &mut Told, account: &mut Account) {
        let has_mirrored = account.state() == MIRRORING;
        if account.note(rollout) {
            if let Some(copies) = rollout.copies.as_ref().filter(|_| has_mirrored) {
                told.line("copies", &format!("    copies: {copies}"));
            }
            told.state("phase", &format!("{} {}", self.candidate, rollout.state()));
        }
        if let Some(what) = &rollout.waits {
            told.waits(&format!("{} {}", self.candidate, rollout.state()), what);
        }
    }

    fn hint(&self) -> String {
        format!("the rollout goes on by itself; to attach again: {}", self.again)
    }

    /// Another rollout has its place: what the ledger says of its last transition is how it ended.
    async fn as_the_ledger_has_it(&self, patient: &Patient, told: &Told, account: &mut Account) -> Result<Ended, Failure> {
        let history = patient.get(&format!("/history?limit={ENTRIES}"), self.deadline, told).await?;
        let entries = history["entries"].as_array().into_iter().flatten();
        let mut of_this = entries.filter(|entry| entry["grounds"]["rollout"].as_str() == Some(self.id.as_str()));
        let (ended, why) = of_this
            .find_map(|entry| Some((Ended::of_event(entry["grounds"]["event"].as_str()?, self.until)?, why(entry))))
            .unwrap_or_else(|| (Ended::Aborted, "the record of the rollout is gone from the flags".to_owned()));
        account.why = Some(why);
        Ok(ended)
    }
}

fn why(entry: &Value) -> String {
    entry["why"].as_str().unwrap_or_default().to_owned()
}
