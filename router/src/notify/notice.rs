//! One event of a rollout, as everybody is told of it. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::NoticeEvent;

/// What happened, to whom, why, and the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same for one event in the whole fleet, and for no other event.
    pub id: String,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: u64,
    /// What happened.
    pub event: NoticeEvent,
    /// The route.
    pub route: String,
    /// The rollout, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// The experiment, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// The model version under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The model version that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Which step, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The candidate's share of the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Of the route's flags.
    pub epoch: u64,
    /// The bearer's name, or a router's id.
    pub who: String,
    /// A sentence, with the numbers that it rests on.
    pub why: String,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// The rollback policy that judged, as `name@digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

impl Notice {
    /// What a program reads of it, beside what its envelope says: all but id and time.
    pub(super) fn data(&self) -> Value {
        // A struct of strings and numbers is always an object.
        let mut data = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = data.as_object_mut() {
            fields.shift_remove("id");
            fields.shift_remove("time_ms");
        }
        data
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A rollback with everything that a notice can say.
    pub(in crate::notify) fn rolled_back() -> Notice {
        Notice {
            id: "search-r7-rolled-back".to_owned(),
            time_ms: 1_790_000_000_250,
            event: NoticeEvent::RolledBack,
            route: "search".to_owned(),
            rollout: Some("r7".to_owned()),
            experiment: None,
            candidate: Some("v3".to_owned()),
            control: Some("v1".to_owned()),
            step: Some(2),
            percent: Some(10.0),
            epoch: 41,
            who: "router-1".to_owned(),
            why: "clicks: candidate 36.0 % of 150, control 75.5 % of 1610".to_owned(),
            evidence: Some(json!({ "log_harm": 6.8 })),
            policy: Some("rollback-guardrail@8f31153d".to_owned()),
        }
    }

    /// The same of another event.
    pub(in crate::notify) fn notice(event: NoticeEvent) -> Notice {
        Notice { event, ..rolled_back() }
    }

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let notice = rolled_back();
        let text = serde_json::to_string(&notice).unwrap();
        assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), notice);
        let bare = r#"{"id":"a","time_ms":1,"event":"flags-changed","route":"search","epoch":2,"who":"ann","why":""}"#;
        let read: Notice = serde_json::from_str(bare).unwrap();
        assert_eq!((read.candidate.as_ref(), serde_json::to_string(&read).unwrap()), (None, bare.to_owned()));
    }

    #[test]
    fn its_data_is_what_the_envelope_does_not_say() {
        let data = rolled_back().data();
        let keys: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
        let expected =
            ["event", "route", "rollout", "candidate", "control", "step", "percent", "epoch", "who", "why", "evidence", "policy"];
        assert_eq!(keys, expected);
    }
}
