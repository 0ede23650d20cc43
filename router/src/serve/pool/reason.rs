//! Why an endpoint is out, in a few words for people: written where it goes out, and where an attempt fails; no query that is answered
//! comes by here.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use tokio::time::Instant;

use super::super::http1::{FIELDS, HEAD_BYTES};
use crate::quality::Broken;

/// So many characters are kept: a certificate's error names every name that it is for.
const MOST: usize = 200;

/// Where an answer is not in the pool's protocol.
pub(crate) const PROTOCOL_HINT: &str = "it is not what the pool's `protocol` and the endpoint's scheme say, or broken";

/// Why a response is not passed on.
pub(crate) fn unreadable(broken: Broken) -> String {
    match broken {
        Broken::Parse => PROTOCOL_HINT.to_owned(),
        Broken::Fields => format!("its head has more than {FIELDS} fields"),
        Broken::HeadSize => format!("its head is too large: at most {} KiB and {FIELDS} fields are read", HEAD_BYTES >> 10),
        other => other.label().to_owned(),
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No connection, in the words of whoever tried.
    Connect(String),
    /// The connection broke before a response, or within one.
    Closed,
    Broken(Broken),
    Timeout,
    Status(StatusCode),
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Connect(cause) if cause.starts_with("TLS") => f.write_str(cause),
            Fault::Connect(cause) => write!(f, "connect: {cause}"),
            Fault::Closed => f.write_str("it closed the connection before the end of its response"),
            Fault::Broken(reason) => write!(f, "its response cannot be read: {}", unreadable(*reason)),
            Fault::Timeout => f.write_str("no response in time"),
            Fault::Status(status) => write!(f, "answered {}", status.as_u16()),
        }
    }
}

/// What is known of an endpoint's failures.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of the last health check that failed, until one passes.
    health: Option<String>,
    ejection: Option<String>,
    last: Option<(Fault, Instant)>,
}

impl Reasons {
    /// An attempt failed. A worker does not wait: where another one writes at this moment, that one's is as good.
    pub(super) fn attempt_failed(&self, fault: Fault, now: Instant) {
        if let Ok(mut known) = self.known.try_lock() {
            known.last = Some((fault, now));
        }
    }

    /// The last failed attempt, and when it was.
    pub(super) fn last_failure(&self) -> Option<(String, Instant)> {
        self.known().last.as_ref().map(|(fault, at)| (short(&fault.to_string()), *at))
    }

    /// What the health check that was just made says; `None` when it passed.
    pub(super) fn checked(&self, error: Option<&str>) {
        self.known().health = error.map(short);
    }

    pub(super) fn health(&self) -> Option<String> {
        self.known().health.clone()
    }

    /// It is ejected for this; what the last attempt met is told with it.
    pub(super) fn ejected(&self, why: &str) {
        let mut known = self.known();
        let last = known.last.as_ref().map_or_else(String::new, |(fault, _)| format!(", last: {fault}"));
        known.ejection = Some(short(&format!("{why}{last}")));
    }

    pub(super) fn ejection(&self) -> Option<String> {
        self.known().ejection.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On one line, and no longer than people read. Some of it is a backend's own.
fn short(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut kept: String = text.chars().take(MOST).map(plain).collect();
    if text.chars().nth(MOST).is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// Why there is no connection, without the system's numbers.
pub(super) fn no_connection(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset => "reset".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Why there is no TLS, in words that say what to look at.
pub(crate) fn no_tls(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => "TLS: it does not speak TLS there".to_owned(),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) if other.to_string() == "CaUsedAsEndEntity" => {
            "TLS: invalid peer certificate: it is an authority's (CA:TRUE), and not for a server".to_owned()
        }
        _ => format!("TLS: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let reasons = Reasons::default();
        reasons.checked(Some(&format!("a\r\nb\x1b[2J{}", "é".repeat(1_000))));
        let kept = reasons.health().unwrap();
        assert!(kept.starts_with("a  b [2Jé") && kept.ends_with("é…"), "{kept}");
        assert_eq!(kept.chars().count(), MOST);
        reasons.checked(None);
        assert_eq!(reasons.health(), None);
    }

    #[test]
    fn an_ejection_tells_what_the_last_attempt_met() {
        let (reasons, now) = (Reasons::default(), Instant::now());
        reasons.ejected("a probe failed");
        assert_eq!(reasons.ejection().as_deref(), Some("a probe failed"));
        for (fault, words) in [
            (Fault::Connect("refused".to_owned()), "connect: refused"),
            (Fault::Connect("TLS: bad certificate".to_owned()), "TLS: bad certificate"),
            (Fault::Status(StatusCode::SERVICE_UNAVAILABLE), "answered 503"),
            (Fault::Broken(Broken::Framing), "its response cannot be read: framing"),
            (Fault::Broken(Broken::Fields), "its response cannot be read: its head has more than 100 fields"),
        ] {
            reasons.attempt_failed(fault, now);
            reasons.ejected("5 failures in a row");
            assert_eq!(reasons.ejection(), Some(format!("5 failures in a row, last: {words}")));
            assert_eq!(reasons.last_failure(), Some((words.to_owned(), now)));
        }
    }
}
