//! The second scenario: the job offers models that nobody should see, and judged queries to try them on; each is refused before any user sees it.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::DemoError;
use super::http::Client;
use super::job::Heard;
use super::offers::{Offer, offers};
use super::record::POOLS;
use super::screen::Tone;
use super::script::{FRAME, RECENT, Refused, Script};

/// A job that takes longer does not refuse.
const WITHIN: Duration = Duration::from_secs(60);
/// What the pools serve after the nights before, by [`POOLS`]: the canary still has the broken model, and no users.
const SERVED: [&str; 3] = ["1", "2", "3"];

impl Script<'_> {
    /// Offers one after the other.
    pub(super) async fn offer_bad_models(&mut self) -> Result<(), DemoError> {
        self.screen.chapter("Judged queries for the job: what is wrong with a model is seen before any user sees it");
        self.screen.event(Tone::Change, "cron", "$ deploy_model.sh --route search --model search --judged=judged.jsonl ...");
        for offer in offers() {
            let refused = self.offer(&offer).await?;
            let said = format!("{}, {}: refused by {}: {}", refused.file, refused.version, refused.check, refused.why);
            self.screen.event(Tone::Good, refused.name, &said);
            self.shown.refused.push(refused);
        }
        self.see_what_is_served().await?;
        self.watch(RECENT).await;
        Ok(())
    }

    /// The job with one of them: it has to end with 2, for the right reason.
    async fn offer(&mut self, offer: &Offer) -> Result<Refused, DemoError> {
        let (mut job, began, mut log) = (self.cast.start_job(offer.file, &offer.bytes, true)?, Instant::now(), Vec::new());
        loop {
            match job.hear(FRAME).await {
                Heard::Line(line) => log.push(line),
                Heard::Nothing => {}
                Heard::End => break,
            }
            self.screen_frame();
            if began.elapsed() > WITHIN {
                return Err(DemoError::Change(format!("the job with {} did not end within {WITHIN:?}", offer.file)));
            }
        }
        let (code, took) = (job.code().await, began.elapsed());
        let found = version(&log).zip(reason(&log, offer.check)).filter(|_| code == Some(2));
        let Some((version, why)) = found else {
            let said = log.join("\n");
            return Err(DemoError::Change(format!("{} was not refused by {}: exit code {code:?}\n{said}", offer.file, offer.check)));
        };
        Ok(Refused { name: offer.name, file: offer.file, version, check: offer.check, why, offered: began, took })
    }

    /// Nothing of what was refused may be on a server.
    async fn see_what_is_served(&mut self) -> Result<(), DemoError> {
        let served = self.served().await?;
        if !served.iter().zip(SERVED).all(|(served, expected)| served == &[expected]) {
            return Err(DemoError::Change(format!("after models were refused the pools serve {served:?}, and not {SERVED:?}")));
        }
        let said: Vec<String> = POOLS.iter().zip(SERVED).map(|(pool, version)| format!("{pool} search:{version}")).collect();
        self.screen.event(Tone::Good, "nothing loaded", &format!("the rankers serve what they did before: {}", said.join(", ")));
        Ok(())
    }

    /// The versions that each pool serves.
    async fn served(&self) -> Result<Vec<Vec<String>>, DemoError> {
        let mut served = Vec::new();
        for ranker in self.cast.rankers {
            let (ready, headers) = (Bytes::from_static(b"{\"ready\": true}"), [("content-type", "application/json")]);
            let answer = Client::new(ranker).send(Method::POST, "/v2/repository/index", &headers, ready).await;
            let answer = answer.map_err(|error| DemoError::Change(super::chain(&error)))?;
            let index: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let versions = index.as_array().into_iter().flatten().filter_map(|one| one.get("version")?.as_str());
            served.push(versions.map(str::to_owned).collect());
        }
        Ok(served)
    }
}

/// The version that the job's file is.
fn version(log: &[String]) -> Option<String> {
    let line = log.iter().find(|line| line.contains(" is pushed, ") || line.contains(" is this file already"))?;
    line.split(' ').next().map(str::to_owned)
}

/// What the report says of a check that refused: `  scores     REFUSED   query "...": ...`
fn reason(log: &[String], check: &str) -> Option<String> {
    let said = |line: &String| {
        let (name, said) = line.split_once(" REFUSED ")?;
        (name.trim() == check).then(|| said.trim().to_owned())
    };
    log.iter().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_the_check_that_refused() {
        let log = [
            "search:4 is pushed, SHA-256 93ac",
            "  format   passed    IR 4",
            "  scores   REFUSED   query \"a\": no number",
            "REFUSED by 1 of 5 checks, in 131 ms",
        ];
        let log = log.map(str::to_owned);
        assert_eq!(version(&log).as_deref(), Some("search:4"));
        assert_eq!(reason(&log, "scores").as_deref(), Some("query \"a\": no number"));
        assert_eq!(reason(&log, "format"), None);
    }
}
