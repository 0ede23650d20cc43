//! What `switchback status` says of the evidence on a candidate.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use serde_json::Value;

use super::flag::plain;
use super::table::table;

/// Without a candidate, the history only where it says something.
const HISTORY_FROM: f64 = 3.0;
/// Evidence that is older than this says how old it is.
const STALE_SECONDS: u64 = 10;
/// Characters of a bar that is full.
const BAR: usize = 20;

/// A comparison begins with a window, in whole seconds, and a rollout in between.
const WINDOW_MS: u64 = 2_000;

/// What is known, for a route's rollout, as the admin API has both: what was found of the one before is not said of this one. Everything where there was no rollout.
pub(super) fn lines_of(board: &Value, rollout: &Value, now_unix_ms: u64) -> String {
    if is_since(board, rollout) {
        return lines(board, now_unix_ms);
    }
    let mut board = board.clone();
    board["evidence"] = Value::Null;
    lines(&board, now_unix_ms)
}

/// Whether the evidence on this board is of this rollout: of its candidate, and no older.
pub(super) fn is_of(board: &Value, rollout: &Value) -> bool {
    let candidate = &board["evidence"]["candidate"]["version"];
    candidate.is_string() && *candidate == rollout["candidate"] && is_since(board, rollout)
}

/// Whether the comparison began when the rollout did, or later. The same version may have been under test before.
fn is_since(board: &Value, rollout: &Value) -> bool {
    let began_ms = board["evidence"]["began_unix_seconds"].as_u64().map(|began| began.saturating_mul(1_000));
    let started_ms = rollout["started_ms"].as_u64().unwrap_or(0);
    began_ms.is_none_or(|began_ms| began_ms.saturating_add(WINDOW_MS) > started_ms)
}

/// Nothing where nothing is known.
pub(super) fn lines(board: &Value, now_unix_ms: u64) -> String {
    let mut text = String::new();
    let evidence = &board["evidence"];
    if evidence.is_object() {
        text.push_str(&headline(evidence, board["observe_only"] == true));
        text.push_str(&table(&rows(evidence)));
        text.push_str(&age(evidence, now_unix_ms));
        if let Some(failure) = evidence["last_failure"].as_str() {
            text.push_str(&format!("  the rollback policy failed on {} window(s), last: {failure}\n", plain(&evidence["failures"])));
        }
    }
    if let Some(log_harm) = board["history"]["log_harm"].as_f64().filter(|log_harm| *log_harm >= HISTORY_FROM) {
        let history = &board["history"];
        let (version, ago) = (plain(&history["version"]), plain(&history["seconds_ago"]));
        text.push_str(&format!("  {version} is worse than it was {ago} s ago: evidence {log_harm:.1}; nothing acts on this\n"));
    }
    if let Some(why) = board["away"].as_str() {
        text.push_str(&format!("  nothing is judged: {why}\n"));
    }
    text
}

/// `evidence against v42 (control v41): 3.2 of 4.6 [#############       ] hold: ...`
fn headline(evidence: &Value, is_observed_only: bool) -> String {
    let (candidate, control) = (name(&evidence["candidate"]), name(&evidence["control"]));
    let strength = match (evidence["log_harm"].as_f64(), evidence["threshold_log"].as_f64()) {
        (Some(log_harm), Some(threshold)) => format!(": {log_harm:.1} of {threshold:.1} {}", bar(log_harm / threshold)),
        (Some(log_harm), None) => format!(": {log_harm:.1}"),
        (None, _) => String::new(),
    };
    let only = if is_observed_only { " (observe_only)" } else { "" };
    let verdict = evidence["verdict"].as_str().unwrap_or("no window yet").replace('_', " ");
    let summary = evidence["summary"].as_str().unwrap_or_default();
    let because = if summary.is_empty() || summary.starts_with(&verdict) { summary.to_owned() } else { format!("{verdict}: {summary}") };
    let said = if because.is_empty() { verdict } else { because };
    let what = if evidence["is_over"] == true { "last evidence, on a candidate that is over: against" } else { "evidence against" };
    format!("  {what} {candidate} (control {control}){strength}\n  {said}{only}\n")
}

/// When the last window was judged, where that is not just now.
fn age(evidence: &Value, now_unix_ms: u64) -> String {
    let judged = evidence["judged_unix_ms"].as_u64().unwrap_or(now_unix_ms);
    let seconds = now_unix_ms.saturating_sub(judged) / 1_000;
    if seconds < STALE_SECONDS { String::new() } else { format!("  last judged {} ago by {}\n", span(seconds), plain(&evidence["judge"])) }
}

/// `90 s`, `12 min`, `3 h`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn name(role: &Value) -> String {
    let pools: Vec<String> = role["pools"].as_array().into_iter().flatten().map(plain).collect();
    match (plain(&role["version"]).as_str(), pools.is_empty()) {
        ("unknown", false) => pools.join(", "),
        (version, _) => version.to_owned(),
    }
}

/// How far it is to the threshold.
fn bar(part: f64) -> String {
    // Between none and all of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let full = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), " ".repeat(BAR - full.min(BAR)))
}

fn rows(evidence: &Value) -> Vec<Vec<String>> {
    let head = ["metric", "candidate", "of", "control", "of", "difference (always-valid interval)", "evidence"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for metric in evidence["metrics"].as_array().into_iter().flatten() {
        let is_latency = metric["metric"] == "latency";
        let is_check = !metric["candidate"].is_object() && !metric["control"].is_object();
        let log_harm = metric["log_harm"].as_f64();
        if is_check && log_harm.is_none_or(|log_harm| log_harm <= 0.0) {
            continue;
        }
        let mean = |role: &Value| match role["mean"].as_f64() {
            Some(mean) if is_latency => format!("p99 {mean:.0} ms"),
            Some(mean) => format!("{mean:.4}"),
            None => "-".to_owned(),
        };
        let n = |role: &Value| role["n"].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
        let difference = &metric["difference"];
        let ends = [&difference["mean"], &difference["low"], &difference["high"]].map(Value::as_f64);
        let difference = match ends {
            [Some(mean), Some(low), Some(high)] if is_latency => {
                let [mean, low, high] = [mean, low, high].map(|share| share * 100.0);
                format!("{mean:+.2} % slow ({low:+.2} % to {high:+.2} %)")
            }
            [Some(mean), Some(low), Some(high)] if !is_check => format!("{mean:+.4} ({low:+.4} to {high:+.4})"),
            _ => "-".to_owned(),
        };
        let (candidate, control) = (&metric["candidate"], &metric["control"]);
        rows.push(vec![
            plain(&metric["metric"]),
            mean(candidate),
            n(candidate),
            mean(control),
            n(control),
            difference,
            log_harm.map_or_else(|| "-".to_owned(), |log_harm| format!("{log_harm:.1}")),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn evidence_is_a_table_under_one_sentence() {
        let board = json!({
            "observe_only": false, "away": null, "history": null,
            "evidence": {
                "candidate": { "version": "v42", "pools": ["canary"] }, "control": { "version": "v41", "pools": ["blue"] },
                "is_over": false, "verdict": "hold", "summary": "hold: 220 of 500 requests", "log_harm": 2.3, "threshold_log": 4.6,
                "judge": "edge-1", "judged_unix_ms": 1_700_000_000_000_u64, "failures": 1, "last_failure": "it trapped",
                "metrics": [
                    { "metric": "errors", "log_harm": 2.5, "difference": { "mean": 0.02, "low": -0.01, "high": 0.05 },
                      "candidate": { "n": 220, "mean": 0.03 }, "control": { "n": 1980, "mean": 0.01 } },
                    { "metric": "latency", "log_harm": -0.1, "difference": { "mean": 0.0, "low": -0.1, "high": 0.1 },
                      "candidate": { "n": 220, "mean": 41.5 }, "control": null },
                    { "metric": "sample-ratio", "log_harm": 0.0, "difference": { "mean": 0.0, "low": -1.0, "high": 1.0 }, "candidate": null, "control": null }
                ],
            },
        });
        let expected = "  evidence against v42 (control v41): 2.3 of 4.6 [##########          ]\n\
                        \x20 hold: 220 of 500 requests\n\
                        \x20 metric   candidate  of   control  of    difference (always-valid interval)   evidence\n\
                        \x20 errors   0.0300     220  0.0100   1980  +0.0200 (-0.0100 to +0.0500)         2.5\n\
                        \x20 latency  p99 42 ms  220  -        -     +0.00 % slow (-10.00 % to +10.00 %)  -0.1\n\
                        \x20 the rollback policy failed on 1 window(s), last: it trapped\n";
        assert_eq!(lines(&board, 1_700_000_009_000), expected);
        let mut over = board;
        over["evidence"]["is_over"] = true.into();
        let said = lines(&over, 1_700_000_400_000);
        assert!(said.starts_with("  last evidence, on a candidate that is over: against v42 (control v41): 2.3 of 4.6 "), "{said}");
        assert!(said.contains("\n  last judged 6 min ago by edge-1\n"), "{said}");
    }

    #[test]
    fn evidence_of_the_rollout_before_is_not_said_of_this_one() {
        let evidence =
            |began: u32| json!({ "evidence": { "candidate": { "version": "v42" }, "began_unix_seconds": began, "verdict": "hold" } });
        let rollout = |candidate: &str, started_ms: u64| json!({ "candidate": candidate, "started_ms": started_ms });
        let before = evidence(1_000);
        assert!(is_of(&before, &rollout("v42", 1_000_900)), "it began in the second in which the rollout did");
        assert!(!is_of(&before, &rollout("v43", 1_000_900)), "another candidate");
        assert!(!is_of(&before, &rollout("v42", 1_060_000)), "the same version once more");
        assert!(!is_of(&json!({ "evidence": null }), &json!({})));
        assert!(!lines_of(&before, &rollout("v42", 1_000_900), 0).is_empty() && !lines_of(&before, &Value::Null, 0).is_empty());
        assert_eq!(lines_of(&before, &rollout("v43", 1_060_000), 0), "");
        // A share by hand, after the last rollout was over.
        assert!(!lines_of(&evidence(1_100), &rollout("v41", 1_060_000), 0).is_empty());
        let mut away = before;
        away["away"] = "the store is away".into();
        assert_eq!(lines_of(&away, &rollout("v42", 1_060_000), 0), "  nothing is judged: the store is away\n");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(lines(&json!({ "evidence": null, "history": { "log_harm": 0.2 }, "away": null }), 0), "");
        let worse =
            lines(&json!({ "evidence": null, "history": { "log_harm": 5.0, "version": "v1", "seconds_ago": 300 }, "away": null }), 0);
        assert_eq!(worse, "  v1 is worse than it was 300 s ago: evidence 5.0; nothing acts on this\n");
    }
}
