//! One notice to one target: sent until it is taken, refused, or too old.
//!
//! Not pure: it sends, waits and logs. What follows a try is decided by [`super::retry`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::clock::{Clock, SystemClock};
use super::post::{Answer, PostError, Poster};
use super::retry::{self, Next, Tried};
use super::sign::{SecretError, Signer, webhook_id};
use super::{Notice, Rendered, render};
use crate::config::Notify;
use crate::tls::TlsError;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A target whose files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The authorities of TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl TargetError {
    /// The config key that leads to what is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            TargetError::Secret(error) => error.key(),
            TargetError::Tls(error) => error.key(),
        }
    }
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// It was taken: a status from 200 to 299.
    Done {
        /// The answer's status.
        status: u16,
        /// How many tries it took.
        tries: u32,
    },
    /// It was refused by an answer that will not change: it is not sent again.
    Refused {
        /// The answer's status.
        status: u16,
        /// How many tries it took.
        tries: u32,
    },
    /// It was not taken in all of its time or tries.
    GaveUp {
        /// How many.
        tries: u32,
        /// What became of the last one.
        why: String,
    },
    /// The target has said that it is gone (410): it gets nothing until the config is read again.
    Off,
    /// This target is not told of such an event, or of this route, or its format has no word for it.
    Unwanted,
}

/// What a target came to since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were sent, or tried to be.
    pub tries: u64,
    /// Of these, those without an answer.
    pub unanswered: u64,
    /// Notices that were taken.
    pub done: u64,
    /// Notices that were refused, with 410 too.
    pub refused: u64,
    /// Notices that were given up.
    pub gave_up: u64,
}

#[derive(Debug, Default)]
struct Counts {
    tries: AtomicU64,
    unanswered: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    gave_up: AtomicU64,
}

/// A target that is ready: its secrets and authorities were read.
#[derive(Debug)]
pub struct Delivery<C = SystemClock> {
    target: Notify,
    login: Option<HeaderValue>,
    signer: Signer,
    poster: Poster,
    clock: C,
    is_off: AtomicBool,
    counts: Counts,
}

impl Delivery {
    /// Reads the files that the target names: at start, and at each reload.
    ///
    /// # Errors
    /// [`TargetError`], naming the key and the file.
    pub fn open(target: &Notify) -> Result<Delivery, TargetError> {
        Delivery::with_clock(target, SystemClock)
    }
}

impl<C: Clock> Delivery<C> {
    pub(super) fn with_clock(target: &Notify, clock: C) -> Result<Delivery<C>, TargetError> {
        let key = |name: &str| format!("notify.{}.{name}", target.name);
        let secrets = if target.secret_files.len() > 1 { "secret_files" } else { "secret_file" };
        let signer = Signer::open(&key(secrets), &target.secret_files)?;
        let poster = Poster::open(&key("ca_file"), target.url.is_tls(), target.ca_file.as_deref())?;
        let login = target.url.login().and_then(|login| HeaderValue::try_from(format!("Basic {}", BASE64.encode(login))).ok());
        let login = login.map(|mut login| {
            login.set_sensitive(true);
            login
        });
        let (is_off, counts) = (AtomicBool::new(false), Counts::default());
        Ok(Delivery { target: target.clone(), login, signer, poster, clock, is_off, counts })
    }

    /// What it was opened with.
    #[must_use]
    pub fn target(&self) -> &Notify {
        &self.target
    }

    /// Whether this target is told of such a notice.
    #[must_use]
    pub fn wants(&self, notice: &Notice) -> bool {
        let is_its_route = self.target.routes.as_ref().is_none_or(|routes| routes.contains(&notice.route));
        is_its_route && self.target.events.contains(&notice.event)
    }

    /// Whether the target has said that it is gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.is_off.load(Relaxed)
    }

    /// What it came to so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let Counts { tries, unanswered, done, refused, gave_up } = &self.counts;
        Totals {
            tries: tries.load(Relaxed),
            unanswered: unanswered.load(Relaxed),
            done: done.load(Relaxed),
            refused: refused.load(Relaxed),
            gave_up: gave_up.load(Relaxed),
        }
    }

    /// Sends a notice, and again for as long as that makes sense: for up to `retry_for` after the event.
    pub async fn deliver(&self, notice: &Notice) -> Delivered {
        let rendered = render(self.target.format, notice, &self.target.environment);
        let Some(rendered) = rendered.filter(|_| self.wants(notice)) else { return Delivered::Unwanted };
        let mut tries = 0;
        loop {
            if self.is_off() {
                return Delivered::Off;
            }
            tries += 1;
            let answer = self.send(notice, &rendered).await;
            let now = self.clock.unix_ms();
            let age = Duration::from_millis(now.saturating_sub(notice.time_ms));
            match retry::next(&self.target, tries, age, tried(&answer, now), self.clock.fraction()) {
                Next::Again(wait) => {
                    if tries == 1 {
                        let (target, why) = (&self.target.name, why(&answer));
                        tracing::warn!(target_name = target, id = notice.id, why, "a notice was not taken; it is tried again");
                    }
                    self.clock.sleep(wait).await;
                }
                end => return self.end(notice, end, &answer, tries),
            }
        }
    }

    /// One try. The signature is of this moment: a receiver refuses old ones.
    async fn send(&self, notice: &Notice, rendered: &Rendered) -> Result<Answer, PostError> {
        let id = webhook_id(&notice.id);
        let unix_seconds = self.clock.unix_ms() / 1_000;
        let mut headers = rendered.headers.clone();
        headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
        insert(&mut headers, SIGNATURE, self.signer.signature(&id, unix_seconds, &rendered.body));
        insert(&mut headers, ID, Some(id));
        if let Some(login) = &self.login {
            headers.insert(AUTHORIZATION, login.clone());
        }
        let answer = self.poster.post(self.target.url.uri(), headers, rendered.body.clone(), self.target.timeout).await;
        self.counts.tries.fetch_add(1, Relaxed);
        self.counts.unanswered.fetch_add(u64::from(answer.is_err()), Relaxed);
        answer
    }

    fn end(&self, notice: &Notice, end: Next, answer: &Result<Answer, PostError>, tries: u32) -> Delivered {
        let (target, id, why) = (&self.target.name, &notice.id, why(answer));
        let status = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        match end {
            Next::Done => {
                self.counts.done.fetch_add(1, Relaxed);
                tracing::info!(target_name = target, id, event = notice.event.name(), tries, "a notice was taken");
                Delivered::Done { status, tries }
            }
            Next::Refused => {
                self.counts.refused.fetch_add(1, Relaxed);
                tracing::error!(target_name = target, id, event = notice.event.name(), why, "a notice was refused; it is not sent again");
                Delivered::Refused { status, tries }
            }
            Next::Gone => {
                self.counts.refused.fetch_add(1, Relaxed);
                self.is_off.store(true, Relaxed);
                tracing::error!(target_name = target, id, "the target is gone (410); it gets nothing until the config is read again");
                Delivered::Off
            }
            Next::Again(_) | Next::GiveUp => {
                self.counts.gave_up.fetch_add(1, Relaxed);
                tracing::error!(target_name = target, id, event = notice.event.name(), tries, why, "a notice was given up");
                Delivered::GaveUp { tries, why }
            }
        }
    }
}

fn tried(answer: &Result<Answer, PostError>, now_unix_ms: u64) -> Tried {
    let Ok(answer) = answer else { return Tried::Unanswered };
    let retry_after = answer.retry_after.as_deref().and_then(|value| retry::retry_after(value, now_unix_ms));
    Tried::Answered { status: answer.status.as_u16(), retry_after }
}

fn why(answer: &Result<Answer, PostError>) -> String {
    match answer {
        Ok(answer) => format!("it answered {}", answer.status),
        Err(error) => error.to_string(),
    }
}

/// What was encoded is always fit for a header.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::config::{NoticeEvent, NotifyFormat};
    use crate::notify::notice::tests::{notice, rolled_back};
    use crate::notify::receiver::{Receiver, TestClock, answer, target};

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// The notice happened just now.
    fn delivery(receiver: &Receiver, change: impl FnOnce(&mut Notify)) -> Delivery<TestClock> {
        let mut target = target(&receiver.url("/hook"));
        change(&mut target);
        Delivery::with_clock(&target, TestClock::at(rolled_back().time_ms)).unwrap()
    }

    fn seconds(delivery: &Delivery<TestClock>) -> Vec<u64> {
        delivery.clock.waits().iter().map(Duration::as_secs).collect()
    }

    #[tokio::test]
    async fn a_notice_that_is_taken_is_sent_once() {
        let receiver = Receiver::start(vec![answer("204 No Content", "", "")]).await;
        let delivery = delivery(&receiver, |_| {});
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Done { status: 204, tries: 1 });
        let request = receiver.requests().remove(0);
        assert_eq!(request.header("webhook-id"), Some("search-r7-rolled-back"));
        assert_eq!(request.header("webhook-timestamp"), Some("1790000000"));
        assert_eq!(request.header("webhook-signature"), None);
        assert_eq!(request.header("content-type"), Some("application/cloudevents+json"));
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!((body["id"].as_str(), seconds(&delivery)), (Some("search-r7-rolled-back"), vec![]));
        assert_eq!(delivery.totals(), Totals { tries: 1, done: 1, ..Totals::default() });
    }

    #[tokio::test]
    async fn it_is_sent_again_with_the_same_id_and_a_signature_of_its_own_until_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let secret: PathBuf = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let answers = vec![
            answer("503 Service Unavailable", "", ""),
            answer("429 Too Many Requests", "retry-after: 90\r\n", ""),
            answer("200 OK", "", ""),
        ];
        let receiver = Receiver::start(answers).await;
        let delivery = delivery(&receiver, |target| target.secret_files = vec![secret.clone()]);
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Done { status: 200, tries: 3 });
        assert_eq!(seconds(&delivery), [1, 90]);
        let requests = receiver.requests();
        let signer = Signer::open("k", &[secret]).unwrap();
        for (request, timestamp) in requests.iter().zip([1_790_000_000, 1_790_000_001, 1_790_000_091]) {
            assert_eq!(request.header("webhook-id"), Some("search-r7-rolled-back"));
            assert_eq!(request.header("webhook-timestamp"), Some(timestamp.to_string().as_str()));
            let expected = signer.signature("search-r7-rolled-back", timestamp, request.body.as_bytes());
            assert_eq!(request.header("webhook-signature"), expected.as_deref());
        }
        assert_eq!((requests.len(), requests[0].body == requests[2].body), (3, true));
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        for (status, code) in [("400 Bad Request", 400), ("404 Not Found", 404), ("302 Found", 302)] {
            let receiver = Receiver::start(vec![answer(status, "location: /\r\n", "")]).await;
            let delivery = delivery(&receiver, |_| {});
            assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Refused { status: code, tries: 1 });
            assert_eq!((receiver.requests().len(), delivery.totals().refused), (1, 1));
        }
    }

    #[tokio::test]
    async fn a_target_that_is_gone_gets_nothing_more() {
        let receiver = Receiver::start(vec![answer("410 Gone", "", "")]).await;
        let delivery = delivery(&receiver, |_| {});
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Off);
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Off);
        assert_eq!((receiver.requests().len(), delivery.is_off()), (1, true));
    }

    #[tokio::test]
    async fn nobody_there_is_tried_again_until_it_is_given_up_by_age() {
        let receiver = Receiver::nobody().await;
        let delivery = delivery(&receiver, |target| target.retry_for = Duration::from_secs(60));
        let Delivered::GaveUp { tries, why } = delivery.deliver(&rolled_back()).await else { panic!("it was not given up") };
        assert_eq!((tries, seconds(&delivery)), (6, vec![1, 2, 4, 8, 16]));
        assert!(why.contains("refused") && !why.contains("hook"), "{why}");
        assert_eq!(delivery.totals(), Totals { tries: 6, unanswered: 6, gave_up: 1, ..Totals::default() });
    }

    #[tokio::test]
    async fn it_is_given_up_by_number_and_even_an_old_notice_is_tried_once() {
        let receiver = Receiver::start(vec![answer("500 Oh", "", ""), answer("500 Oh", "", ""), answer("500 Oh", "", "")]).await;
        let delivery = delivery(&receiver, |target| target.max_tries = 2);
        let why = "it answered 500 Internal Server Error".to_owned();
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::GaveUp { tries: 2, why: why.clone() });
        let old = Notice { time_ms: 1, ..rolled_back() };
        assert_eq!(delivery.deliver(&old).await, Delivered::GaveUp { tries: 1, why });
    }

    #[tokio::test]
    async fn silence_ends_a_try() {
        let receiver = Receiver::silent().await;
        let delivery = delivery(&receiver, |target| (target.timeout, target.max_tries) = (Duration::from_millis(20), 2));
        let why = "no answer within 20 ms".to_owned();
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::GaveUp { tries: 2, why });
    }

    #[tokio::test]
    async fn what_a_target_does_not_want_is_not_sent() {
        let receiver = Receiver::start(vec![]).await;
        let other = delivery(&receiver, |target| target.routes = Some(vec!["ads".to_owned()]));
        assert_eq!(other.deliver(&rolled_back()).await, Delivered::Unwanted);
        let quiet = delivery(&receiver, |_| {});
        assert_eq!(quiet.deliver(&notice(NoticeEvent::FlagsChanged)).await, Delivered::Unwanted);
        let cdevents = delivery(&receiver, |target| target.format = NotifyFormat::CdEvents);
        assert_eq!(cdevents.deliver(&notice(NoticeEvent::Paused)).await, Delivered::Unwanted);
        assert_eq!(receiver.requests().len(), 0);
    }

    #[tokio::test]
    async fn a_login_of_the_url_becomes_a_header() {
        let receiver = Receiver::start(vec![answer("200 OK", "", "")]).await;
        let url = receiver.url("/hook").replace("http://", "http://ann:s3cret@");
        let delivery = Delivery::with_clock(&target(&url), TestClock::at(rolled_back().time_ms)).unwrap();
        assert_eq!(delivery.deliver(&rolled_back()).await, Delivered::Done { status: 200, tries: 1 });
        let request = receiver.requests().remove(0);
        assert_eq!(request.header("authorization"), Some("Basic YW5uOnMzY3JldA=="));
        assert!(request.header("host").is_some_and(|host| !host.contains('@')));
        assert!(!format!("{delivery:?}").contains("s3cret"));
    }

    #[test]
    fn a_target_whose_files_are_missing_is_refused_with_its_key() {
        let mut target = target("https://127.0.0.1:1/");
        target.secret_files = vec![PathBuf::from("missing")];
        assert_eq!(Delivery::open(&target).unwrap_err().key(), "notify.ops.secret_file");
        target.secret_files.clear();
        target.ca_file = Some(PathBuf::from("missing"));
        assert_eq!(Delivery::open(&target).unwrap_err().key(), "notify.ops.ca_file");
    }
}
