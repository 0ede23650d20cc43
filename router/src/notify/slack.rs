//! Notices for people: what Slack's incoming webhooks take, and Mattermost, Rocket.Chat and others with them. Pure.

use serde_json::{Value, json};

use super::Notice;
use super::render::Rendered;
use crate::config::NoticeEvent;

/// Slack refuses a message with a longer text in a section.
const SECTION: usize = 3_000;
/// Of one piece of the last line: more is no reading. Slack takes ten pieces; there are at most six.
const PIECE: usize = 150;

/// The headline and the reason, with all of it once more as plain text for notifications of the desktop.
pub(super) fn render(notice: &Notice) -> Rendered {
    let headline = headline(notice);
    let why = escape(&notice.why, SECTION);
    let text = if why.is_empty() { headline.clone() } else { format!("{headline}: {}", escape(&notice.why, SECTION - headline.len() - 2)) };
    let mut blocks = vec![section(&headline)];
    if !why.trim().is_empty() {
        blocks.push(section(&why));
    }
    blocks.push(json!({ "type": "context", "elements": pieces(notice) }));
    Rendered::new("application/json", &json!({ "text": text, "blocks": blocks }))
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

/// `verbatim`: nothing in it becomes a link or a mention.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// `*search*: rolled back, v3 against v1`.
fn headline(notice: &Notice) -> String {
    let happened = match notice.event {
        NoticeEvent::RolloutStarted => "a rollout has started",
        NoticeEvent::StepBegan => "a step has begun",
        NoticeEvent::Promoted => "a new model is live",
        NoticeEvent::RolloutDone => "the rollout is done",
        NoticeEvent::RolledBack => "rolled back",
        NoticeEvent::Aborted => "the rollout was aborted",
        NoticeEvent::Paused => "the rollout is paused",
        NoticeEvent::Resumed => "the rollout goes on",
        NoticeEvent::Stalled => "the rollout has stalled",
        NoticeEvent::ApprovalNeeded => "the rollout waits for approval",
        NoticeEvent::BreakerTripped => "a breaker has tripped",
        NoticeEvent::ExperimentStarted => "an experiment has started",
        NoticeEvent::ExperimentStopped => "an experiment was stopped",
        NoticeEvent::FlagsChanged => "flags were changed",
    };
    let versions = match (&notice.candidate, &notice.control) {
        (Some(candidate), Some(control)) => format!(", {} against {}", code(candidate), code(control)),
        (Some(candidate), None) => format!(", {}", code(candidate)),
        (None, _) => notice.experiment.as_ref().map(|name| format!(", {}", code(name))).unwrap_or_default(),
    };
    format!("*{}*: {happened}{versions}", escape(&notice.route, PIECE))
}

/// What is looked up rather than read.
fn pieces(notice: &Notice) -> Vec<Value> {
    let step = match (notice.step, notice.percent) {
        (Some(step), Some(percent)) => Some(format!("step {step}, {percent} %")),
        (Some(step), None) => Some(format!("step {step}")),
        (None, Some(percent)) => Some(format!("{percent} %")),
        (None, None) => None,
    };
    let pieces = [
        notice.rollout.as_ref().map(|rollout| format!("rollout {rollout}")),
        step,
        Some(format!("epoch {}", notice.epoch)),
        Some(format!("by {}", notice.who)),
        notice.policy.clone(),
        Some(notice.id.clone()),
    ];
    // Slack refuses a message with an empty text.
    pieces.into_iter().flatten().filter(|piece| !piece.is_empty()).map(|piece| mrkdwn(&escape(&piece, PIECE))).collect()
}

/// As it is, without what `*`, `_` and `~` mean.
fn code(version: &str) -> String {
    format!("`{}`", escape(&version.replace('`', "'"), PIECE))
}

/// With `&`, `<` and `>` as Slack wants them, and cut so that it has at most so many characters as Slack counts them.
fn escape(text: &str, most: usize) -> String {
    let mut escaped = String::new();
    let mut length = 0;
    for letter in text.chars() {
        let mut buffer = [0; 4];
        let shown = match letter {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            letter => letter.encode_utf8(&mut buffer),
        };
        length += shown.encode_utf16().count();
        // The last one is for the dots.
        if length >= most {
            escaped.push('\u{2026}');
            break;
        }
        escaped.push_str(shown);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::notice::tests::{notice, rolled_back};
    use super::*;

    fn body(notice: &Notice) -> Value {
        serde_json::from_slice(&render(notice).body).unwrap()
    }

    #[test]
    fn a_rollback_says_what_happened_and_why_and_where_to_look() {
        let expected = json!({
            "text": "*search*: rolled back, `v3` against `v1`: clicks: candidate 36.0 % of 150, control 75.5 % of 1610",
            "blocks": [
                { "type": "section", "text": mrkdwn("*search*: rolled back, `v3` against `v1`") },
                { "type": "section", "text": mrkdwn("clicks: candidate 36.0 % of 150, control 75.5 % of 1610") },
                { "type": "context", "elements": [
                    mrkdwn("rollout r7"), mrkdwn("step 2, 10 %"), mrkdwn("epoch 41"), mrkdwn("by router-1"),
                    mrkdwn("rollback-guardrail@8f31153d"), mrkdwn("search-r7-rolled-back"),
                ] },
            ],
        });
        assert_eq!(body(&rolled_back()), expected);
    }

    #[test]
    fn nobody_is_called_and_nothing_is_linked_by_what_a_notice_says() {
        let notice = Notice { why: "<!channel> a < b & c".to_owned(), who: "<@U1>".to_owned(), ..rolled_back() };
        let body = body(&notice);
        assert_eq!(body["blocks"][1]["text"]["text"], "&lt;!channel&gt; a &lt; b &amp; c");
        assert_eq!(body["blocks"][2]["elements"][3]["text"], "by &lt;@U1&gt;");
        assert!(!body.to_string().contains("<!channel>"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = Notice {
            rollout: None,
            candidate: None,
            step: None,
            percent: None,
            policy: None,
            why: String::new(),
            ..notice(NoticeEvent::FlagsChanged)
        };
        let body = body(&bare);
        assert_eq!((body["text"].as_str(), body["blocks"].as_array().unwrap().len()), (Some("*search*: flags were changed"), 2));
        assert_eq!(body["blocks"][1]["elements"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_cut_text_is_not_cut_inside_an_escape() {
        assert_eq!(escape("ab", 3), "ab");
        assert_eq!(escape("abc", 3), "ab\u{2026}");
        assert_eq!(escape("a&&", 8), "a&amp;\u{2026}");
    }

    proptest! {
        /// Whatever it says, Slack takes it.
        #[test]
        fn it_keeps_to_the_limits(why in "[a-z<>&\u{1f600} ]{0,4000}", version in "[`<>&a-z]{0,400}", index in 0..12_usize) {
            let notice = Notice { why, candidate: Some(version), ..notice(NoticeEvent::ALL[index]) };
            let body = body(&notice);
            let blocks = body["blocks"].as_array().unwrap();
            prop_assert!(blocks.len() <= 50);
            let characters = |value: &Value| value.as_str().unwrap().encode_utf16().count();
            prop_assert!((1..=3_000).contains(&characters(&body["text"])));
            for block in blocks {
                for text in block.get("text").into_iter().chain(block["elements"].as_array().into_iter().flatten()) {
                    prop_assert!((1..=3_000).contains(&characters(&text["text"])));
                    prop_assert!(!text["text"].as_str().unwrap().contains(['<', '>']));
                }
            }
            prop_assert!(blocks.iter().all(|block| block["elements"].as_array().is_none_or(|pieces| pieces.len() <= 10)));
        }
    }
}
