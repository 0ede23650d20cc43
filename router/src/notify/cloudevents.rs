//! Notices as CloudEvents 1.0, in both content modes of the HTTP binding. Pure.

use serde_json::{Value, json};

use super::Notice;
use super::render::{Rendered, stamp};
use crate::config::NoticeEvent;

/// The attributes of a CloudEvent, but for `specversion` and `datacontenttype`, which never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes<'a> {
    pub(super) id: &'a str,
    pub(super) source: String,
    pub(super) kind: &'a str,
    /// Never empty, as the specification wants it.
    pub(super) subject: Option<&'a str>,
    pub(super) time: String,
}

/// All of it in the body.
pub(super) fn structured(notice: &Notice, environment: &str) -> Rendered {
    let Attributes { id, source, kind, subject, time } = attributes(notice, environment);
    let mut event = json!({ "specversion": "1.0", "id": id, "source": source, "type": kind });
    if let Some(fields) = event.as_object_mut() {
        fields.extend(subject.map(|subject| ("subject".to_owned(), json!(subject))));
        fields.insert("time".to_owned(), json!(time));
        fields.insert("datacontenttype".to_owned(), json!("application/json"));
        fields.insert("data".to_owned(), notice.data());
    }
    Rendered::new("application/cloudevents+json", &event)
}

/// Attributes in headers, the data in the body.
pub(super) fn binary(notice: &Notice, environment: &str) -> Rendered {
    in_headers(&attributes(notice, environment), &notice.data())
}

/// Any data with these attributes in headers.
pub(super) fn in_headers(attributes: &Attributes<'_>, data: &Value) -> Rendered {
    let rendered = Rendered::new("application/json", data)
        .with("ce-specversion", "1.0")
        .with("ce-id", attributes.id)
        .with("ce-source", &attributes.source)
        .with("ce-type", attributes.kind)
        .with("ce-time", &attributes.time);
    match attributes.subject {
        Some(subject) => rendered.with("ce-subject", subject),
        None => rendered,
    }
}

/// `/switchback/routes/search`: with the id, it names an event among those of all fleets.
pub(super) fn source(notice: &Notice, environment: &str) -> String {
    format!("/{environment}/routes/{}", notice.route)
}

fn attributes<'a>(notice: &'a Notice, environment: &str) -> Attributes<'a> {
    Attributes {
        id: &notice.id,
        source: source(notice, environment),
        kind: kind(notice.event),
        subject: notice.candidate.as_deref().filter(|candidate| !candidate.is_empty()),
        time: stamp(notice.time_ms),
    }
}

fn kind(event: NoticeEvent) -> &'static str {
    match event {
        NoticeEvent::RolloutStarted => "dev.switchback.rollout.started",
        NoticeEvent::StepBegan => "dev.switchback.rollout.step_began",
        NoticeEvent::Promoted => "dev.switchback.rollout.promoted",
        NoticeEvent::RolloutDone => "dev.switchback.rollout.done",
        NoticeEvent::RolledBack => "dev.switchback.rollout.rolled_back",
        NoticeEvent::Aborted => "dev.switchback.rollout.aborted",
        NoticeEvent::Paused => "dev.switchback.rollout.paused",
        NoticeEvent::Resumed => "dev.switchback.rollout.resumed",
        NoticeEvent::Stalled => "dev.switchback.rollout.stalled",
        NoticeEvent::ApprovalNeeded => "dev.switchback.rollout.approval_needed",
        NoticeEvent::BreakerTripped => "dev.switchback.breaker.tripped",
        NoticeEvent::ExperimentStarted => "dev.switchback.experiment.started",
        NoticeEvent::ExperimentStopped => "dev.switchback.experiment.stopped",
        NoticeEvent::FlagsChanged => "dev.switchback.flags.changed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::notice::tests::{notice, rolled_back};
    use super::*;

    #[test]
    fn the_structured_mode_has_all_of_it_in_the_body() {
        let rendered = structured(&rolled_back(), "switchback");
        assert_eq!(rendered.headers.len(), 1);
        assert_eq!(rendered.headers["content-type"], "application/cloudevents+json");
        let body: Value = serde_json::from_slice(&rendered.body).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "search-r7-rolled-back",
            "source": "/switchback/routes/search",
            "type": "dev.switchback.rollout.rolled_back",
            "subject": "v3",
            "time": "2026-09-21T14:13:20.250Z",
            "datacontenttype": "application/json",
            "data": {
                "event": "rolled-back", "route": "search", "rollout": "r7", "candidate": "v3", "control": "v1", "step": 2, "percent": 10.0,
                "epoch": 41, "who": "router-1", "why": "clicks: candidate 36.0 % of 150, control 75.5 % of 1610",
                "evidence": { "log_harm": 6.8 }, "policy": "rollback-guardrail@8f31153d",
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_binary_mode_has_attributes_in_headers_and_data_in_the_body() {
        let rendered = binary(&rolled_back(), "staging");
        let header = |name: &str| rendered.headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-id"), "search-r7-rolled-back");
        assert_eq!(header("ce-source"), "/staging/routes/search");
        assert_eq!(header("ce-type"), "dev.switchback.rollout.rolled_back");
        assert_eq!(header("ce-subject"), "v3");
        assert_eq!(header("ce-time"), "2026-09-21T14:13:20.250Z");
        assert!(!rendered.headers.contains_key("ce-datacontenttype"));
        let body: Value = serde_json::from_slice(&rendered.body).unwrap();
        assert_eq!(body, rolled_back().data());
    }

    #[test]
    fn what_has_no_candidate_has_no_subject() {
        for candidate in [None, Some(String::new())] {
            let notice = Notice { candidate, ..notice(NoticeEvent::FlagsChanged) };
            assert!(!binary(&notice, "switchback").headers.contains_key("ce-subject"));
            let body: Value = serde_json::from_slice(&structured(&notice, "switchback").body).unwrap();
            assert!(body.get("subject").is_none());
        }
    }

    #[test]
    fn each_event_has_a_type_of_its_own() {
        let kinds: HashSet<&str> = NoticeEvent::ALL.into_iter().map(kind).collect();
        assert_eq!(kinds.len(), NoticeEvent::ALL.len());
    }
}
