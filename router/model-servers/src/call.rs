//! One HTTP request: with a time limit, its answer with a size limit, and what the status means.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use tokio::time::Instant;

use crate::answers::error_of;
use crate::fault::{Trouble, quoted};

/// The largest answer that is read: a thousand scores are 20 KB, an index of ten thousand versions 1 MB.
const ANSWER_BYTES: usize = 4 << 20;
/// Time limits are cut to this, so that no sum of them is too large for a clock.
const MOST: Duration = Duration::from_secs(30 * 86_400);

/// The shortest time from one question to the next.
const POLL: Duration = Duration::from_millis(10);

/// So long from here on.
pub(crate) fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(MOST)
}

/// What is left until then.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A time in a sentence.
pub(crate) fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        0..10 => format!("{:.2} ms", duration.as_secs_f64() * 1e3),
        10..10_000 => format!("{} ms", duration.as_millis()),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// Who sends the requests of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) client: &'a Client,
    /// Set when another endpoint failed: nothing more is to be begun. `None` when all is to be finished, as in undoing.
    pub(crate) stop: Option<&'a AtomicBool>,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// How errors name it: `POST /v2/repository/index`.
    pub(crate) what: String,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Caller<'_> {
    /// Fails when another endpoint failed.
    pub(crate) fn go_on(&self) -> Result<(), Trouble> {
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Trouble::away("stopped")),
            _ => Ok(()),
        }
    }

    /// Waits a little; false when the time is up.
    pub(crate) async fn pause(&self, every: Duration, deadline: Instant) -> Result<bool, Trouble> {
        self.go_on()?;
        let left = left(deadline);
        tokio::time::sleep(every.max(POLL).min(left)).await;
        Ok(!left.is_zero())
    }

    /// Sends it and reads the whole answer, whatever its status.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Answer, Trouble> {
        self.go_on()?;
        let mut request = self.client.request(call.method.clone(), call.url).timeout(call.timeout.min(MOST));
        if let Some(body) = &call.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let failed = |error: reqwest::Error| {
            let why = format!("{}: {}", call.what, chain(&error));
            match error.is_timeout() {
                true => Trouble::timeout(format!("{}: no answer within {}", call.what, shown(call.timeout))),
                false if error.is_builder() => Trouble::refused(why),
                false => Trouble::away(why),
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES {
                return Err(Trouble::refused(format!("{}: an answer of more than {} MiB", call.what, ANSWER_BYTES >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// Sends it; the body of a 2xx, or what any other status means.
    pub(crate) async fn ask(&self, call: &Call<'_>) -> Result<Vec<u8>, Trouble> {
        let answer = self.send(call).await?;
        if is_yes(answer.status) { Ok(answer.body) } else { Err(meaning(&call.what, &answer)) }
    }
}

pub(crate) fn is_yes(status: u16) -> bool {
    (200..300).contains(&status)
}

/// What a status that is no yes means.
///
/// A server that is busy, starting or broken (408, 429, 503; a 5xx that is not of the protocol) may answer otherwise later; whatever else is a no.
pub(crate) fn meaning(what: &str, answer: &Answer) -> Trouble {
    let said = error_of(&answer.body);
    let text = said.clone().unwrap_or_else(|| quoted(&String::from_utf8_lossy(answer.body.get(..2_048).unwrap_or(&answer.body))));
    let reason = StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let mut why = format!("{what}: {} {reason}", answer.status).trim_end().to_owned();
    if !text.is_empty() {
        let _ = write!(why, ": {text}");
    }
    match answer.status {
        300..400 => Trouble::refused(format!("{why} (redirects are not followed)")),
        408 | 504 => Trouble::timeout(why),
        429 | 503 => Trouble::away(why),
        500.. if said.is_none() => Trouble::away(why),
        _ => Trouble::refused(why),
    }
}

/// An error with what caused it, without the URL, which is said already.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        source = cause.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { quoted(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> (bool, bool) {
        let trouble = meaning("GET /x", &Answer { status, body: body.into() });
        assert!(trouble.why.starts_with(&format!("GET /x: {status}")), "{}", trouble.why);
        (trouble.is_away(), trouble.is_timeout)
    }

    #[test]
    fn a_status_means_no_or_later() {
        let protocol = r#"{"error": "no such model"}"#;
        assert_eq!(kind(400, protocol), (false, false));
        assert_eq!(kind(404, ""), (false, false));
        assert_eq!(kind(302, ""), (false, false));
        assert_eq!(kind(500, protocol), (false, false));
        assert_eq!(kind(500, "<html>"), (true, false));
        assert_eq!(kind(503, protocol), (true, false));
        assert_eq!(kind(429, protocol), (true, false));
        assert_eq!(kind(504, ""), (true, true));
    }

    #[test]
    fn what_is_said_is_quoted() {
        let said = |body: &str| meaning("GET /x", &Answer { status: 400, body: body.into() }).why;
        assert_eq!(said(r#"{"error": "no\nmodel"}"#), "GET /x: 400 Bad Request: no model");
        assert_eq!(said("<p>\u{7}no"), "GET /x: 400 Bad Request: <p> no");
        assert!(said(&"x".repeat(9_999)).len() < 460);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(shown(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(shown(Duration::from_millis(250)), "250 ms");
        assert_eq!(shown(Duration::from_secs(60)), "60.0 s");
        assert!(left(after(Duration::MAX)) > Duration::from_secs(86_400));
    }
}
