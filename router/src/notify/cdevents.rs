//! Notices as CDEvents, carried as CloudEvents in binary mode. Pure.
//!
//! CDEvents has words for what runs where, and none for a step, a pause, a breaker or an experiment: those events are not sent. A route is what CDEvents calls
//! a service; `search` is all of it, and `search/v3` the instance of it that runs one model version.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Notice;
use super::cloudevents::{Attributes, in_headers, source};
use super::render::{Rendered, stamp};
use crate::config::NoticeEvent;

/// Of the specification.
const SPEC: &str = "0.5.1";
/// What a package URL leaves as it is.
const IN_PURL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What became of whom.
struct Said<'a> {
    kind: &'static str,
    /// The model version of the instance that it is about; `None` for the route as a whole.
    instance: Option<&'a str>,
    /// The model version that runs there now, where the schema of this type asks for it.
    artifact: Option<&'a str>,
}

/// `None` for an event that CDEvents has no word for.
pub(super) fn render(notice: &Notice, environment: &str) -> Option<Rendered> {
    let Said { kind, instance, artifact } = said(notice)?;
    let (source, time) = (source(notice, environment), stamp(notice.time_ms));
    let subject = instance.map_or_else(|| notice.route.clone(), |version| format!("{}/{version}", notice.route));
    let mut content = json!({ "environment": { "id": environment, "source": format!("/{environment}") } });
    if let (Some(version), Some(fields)) = (artifact, content.as_object_mut()) {
        fields.insert("artifactId".to_owned(), Value::String(purl(&notice.route, version)));
    }
    let event = json!({
        "context": { "specversion": SPEC, "id": notice.id, "source": source, "type": kind, "timestamp": time },
        "subject": { "id": subject, "source": source, "content": content },
        "customData": notice.data(),
        "customDataContentType": "application/json",
    });
    Some(in_headers(&Attributes { id: &notice.id, source, kind, subject: Some(&subject), time }, &event))
}

fn said(notice: &Notice) -> Option<Said<'_>> {
    let candidate = notice.candidate.as_deref().filter(|version| !version.is_empty());
    let control = notice.control.as_deref().filter(|version| !version.is_empty());
    match notice.event {
        NoticeEvent::RolloutStarted => {
            let instance = candidate?;
            Some(Said { kind: "dev.cdevents.service.deployed.0.3.0", instance: Some(instance), artifact: Some(instance) })
        }
        // From the first step on there are users on it.
        NoticeEvent::StepBegan if notice.step == Some(1) => {
            Some(Said { kind: "dev.cdevents.service.published.0.3.0", instance: Some(candidate?), artifact: None })
        }
        NoticeEvent::Promoted => Some(Said { kind: "dev.cdevents.service.upgraded.0.3.0", instance: None, artifact: Some(candidate?) }),
        NoticeEvent::RolledBack => Some(Said { kind: "dev.cdevents.service.rolledback.0.3.0", instance: None, artifact: Some(control?) }),
        // Not where somebody ended it by hand, and the candidate kept its users.
        NoticeEvent::Aborted if notice.percent.is_none_or(|percent| percent == 0.0) => {
            Some(Said { kind: "dev.cdevents.service.removed.0.3.0", instance: Some(candidate?), artifact: None })
        }
        NoticeEvent::StepBegan
        | NoticeEvent::Aborted
        | NoticeEvent::RolloutDone
        | NoticeEvent::Paused
        | NoticeEvent::Resumed
        | NoticeEvent::Stalled
        | NoticeEvent::ApprovalNeeded
        | NoticeEvent::BreakerTripped
        | NoticeEvent::ExperimentStarted
        | NoticeEvent::ExperimentStopped
        | NoticeEvent::FlagsChanged => None,
    }
}

/// `pkg:generic/search@v3`.
fn purl(route: &str, version: &str) -> String {
    format!("pkg:generic/{}@{}", utf8_percent_encode(route, IN_PURL), utf8_percent_encode(version, IN_PURL))
}

#[cfg(test)]
mod tests {
    use super::super::notice::tests::{notice, rolled_back};
    use super::*;

    fn body(notice: &Notice) -> Value {
        serde_json::from_slice(&render(notice, "production").unwrap().body).unwrap()
    }

    #[test]
    fn a_rollback_is_a_rolled_back_route_at_the_version_of_control() {
        let rendered = render(&rolled_back(), "production").unwrap();
        let header = |name: &str| rendered.headers[name].to_str().unwrap();
        assert_eq!(header("ce-type"), "dev.cdevents.service.rolledback.0.3.0");
        assert_eq!(header("ce-id"), "search-r7-rolled-back");
        assert_eq!(header("ce-subject"), "search");
        assert_eq!(header("ce-source"), "/production/routes/search");
        assert_eq!(header("ce-time"), "2026-09-21T14:13:20.250Z");
        assert_eq!(header("content-type"), "application/json");
        let expected = json!({
            "context": {
                "specversion": "0.5.1", "id": "search-r7-rolled-back", "source": "/production/routes/search",
                "type": "dev.cdevents.service.rolledback.0.3.0", "timestamp": "2026-09-21T14:13:20.250Z",
            },
            "subject": {
                "id": "search", "source": "/production/routes/search",
                "content": { "environment": { "id": "production", "source": "/production" }, "artifactId": "pkg:generic/search@v1" },
            },
            "customData": rolled_back().data(),
            "customDataContentType": "application/json",
        });
        assert_eq!(body(&rolled_back()), expected);
    }

    #[test]
    fn each_event_has_its_word_or_none() {
        let first = Notice { step: Some(1), ..notice(NoticeEvent::StepBegan) };
        let cases = [
            (notice(NoticeEvent::RolloutStarted), Some(("deployed", "search/v3", Some("pkg:generic/search@v3")))),
            (first, Some(("published", "search/v3", None))),
            (notice(NoticeEvent::StepBegan), None),
            (notice(NoticeEvent::Promoted), Some(("upgraded", "search", Some("pkg:generic/search@v3")))),
            (notice(NoticeEvent::RolloutDone), None),
            (Notice { percent: Some(0.0), ..notice(NoticeEvent::Aborted) }, Some(("removed", "search/v3", None))),
            (Notice { percent: Some(25.0), ..notice(NoticeEvent::Aborted) }, None),
            (notice(NoticeEvent::Paused), None),
            (notice(NoticeEvent::BreakerTripped), None),
            (notice(NoticeEvent::FlagsChanged), None),
            (Notice { control: None, ..rolled_back() }, None),
        ];
        for (notice, expected) in cases {
            let Some((word, subject, artifact)) = expected else {
                assert_eq!(render(&notice, "production"), None, "{:?}", notice.event);
                continue;
            };
            let body = body(&notice);
            assert_eq!(body["context"]["type"], format!("dev.cdevents.service.{word}.0.3.0"));
            assert_eq!(body["subject"]["id"], subject);
            assert_eq!(body["subject"]["content"].get("artifactId").and_then(Value::as_str), artifact, "{word}");
        }
    }

    #[test]
    fn a_version_is_encoded_in_its_package_url() {
        assert_eq!(purl("search", "2026/09 @1"), "pkg:generic/search@2026%2F09%20%401");
    }
}
