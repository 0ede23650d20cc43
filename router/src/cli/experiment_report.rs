//! What people are shown of experiments: a list, and a report.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use serde_json::Value;

use super::flag::plain;
use super::table::table;

/// One line for each.
pub(super) fn listed(route: &str, all: &Value) -> String {
    let experiments = all["experiments"].as_array().cloned().unwrap_or_default();
    if experiments.is_empty() {
        return format!("{route}: there is no experiment; create one with: switchback experiment create {route} NAME ...\n");
    }
    let head = ["experiment", "state", "layer", "percent", "arms", "requests", "so far"].map(str::to_owned).to_vec();
    let rows = experiments.iter().map(|experiment| {
        let arms: Vec<String> = experiment["arms"].as_array().into_iter().flatten().map(|arm| plain(&arm["name"])).collect();
        let requests: u64 =
            experiment["evidence"]["arms"].as_array().into_iter().flatten().filter_map(|arm| arm["requests"].as_u64()).sum();
        let so_far = experiment["waits_for"].as_str().map_or_else(|| summary(experiment), str::to_owned);
        let percent = format!("{} %", plain(&experiment["percent"]));
        let [name, state, layer] = ["name", "state", "layer"].map(|key| plain(&experiment[key]));
        vec![name, state, layer, percent, arms.join(", "), requests.to_string(), so_far]
    });
    let left = plain(&all["left_for_rollouts_percent"]);
    format!("{route}: {left} % of the units are left for rollouts\n{}", table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

/// `big: more clicks; small: no difference is certain yet`
fn summary(experiment: &Value) -> String {
    let comparisons = experiment["evidence"]["comparisons"].as_array().cloned().unwrap_or_default();
    if comparisons.is_empty() {
        return "nothing was judged yet".to_owned();
    }
    let words: Vec<String> =
        comparisons.iter().map(|comparison| format!("{}: {}", plain(&comparison["arm"]), plain(&comparison["summary"]))).collect();
    words.join("; ")
}

/// Everything that is known of one.
pub(super) fn report(experiment: &Value) -> String {
    let [route, name, state, layer, percent] = ["route", "name", "state", "layer", "percent"].map(|key| plain(&experiment[key]));
    let mut text = format!("{route}: experiment {name}, {state}: {percent} % of layer {layer}\n");
    let why = plain(&experiment["why"]);
    if !why.is_empty() {
        text.push_str(&format!("    {why}\n"));
    }
    if let Some(waits_for) = experiment["waits_for"].as_str() {
        text.push_str(&format!("    {waits_for}\n"));
    }
    text.push_str(&format!("\n{}", arms(experiment)));
    let confidence = plain(&experiment["confidence_percent"]);
    for comparison in experiment["evidence"]["comparisons"].as_array().into_iter().flatten() {
        let [arm, control, summary] = ["arm", "control", "summary"].map(|key| plain(&comparison[key]));
        text.push_str(&format!("\n{arm} against {control}: {summary}\n{}", metrics(comparison, &confidence)));
    }
    let left_out = experiment["evidence"]["left_out_seconds"].as_u64().unwrap_or(0);
    if left_out > 0 {
        text.push_str(&format!("\n{left_out} seconds are left out: nobody kept them until they could be judged\n"));
    }
    text
}

fn arms(experiment: &Value) -> String {
    let head = ["arm", "answered by", "requests", "errors", "p99", "impressions", "clicks", "conversions", "quality"];
    let counted = experiment["evidence"]["arms"].as_array().cloned().unwrap_or_default();
    let rows = experiment["arms"].as_array().into_iter().flatten().enumerate().map(|(place, arm)| {
        let who = arm["pool"].as_str().map_or_else(|| format!("version {}", plain(&arm["version"])), |pool| format!("pool {pool}"));
        let of = counted.get(place).unwrap_or(&Value::Null);
        let count = |key: &str| of[key].as_u64().unwrap_or(0);
        let rate = |part: &str, whole: &str| match count(whole) {
            0 => "-".to_owned(),
            all => format!("{} ({:.2} %)", count(part), count(part) as f64 * 100.0 / all as f64),
        };
        let errors = match count("requests") {
            0 => "-".to_owned(),
            all => {
                let failed = count("errors") + count("timeouts");
                format!("{failed} ({:.2} %)", failed as f64 * 100.0 / all as f64)
            }
        };
        vec![
            plain(&arm["name"]),
            who,
            count("requests").to_string(),
            errors,
            of["latency_p99_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
            count("impressions").to_string(),
            rate("clicks", "impressions"),
            rate("conversions", "impressions"),
            of["quality"]["mean"].as_f64().map_or_else(|| "-".to_owned(), |mean| format!("{mean:.4}")),
        ]
    });
    table(&std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

/// Differences in percentage points (quality: as it is), with intervals that hold together and at every look.
fn metrics(comparison: &Value, confidence: &str) -> String {
    let with_difference =
        |metric: &&Value| !metric["difference"].is_null() && !metric["candidate"].is_null() && !metric["control"].is_null();
    let rows: Vec<Vec<String>> = comparison["metrics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(with_difference)
        .map(|metric| {
            let (name, is_latency, is_quality) = (plain(&metric["metric"]), metric["metric"] == "latency", metric["metric"] == "quality");
            let mean = |role: &str| {
                let mean = metric[role]["mean"].as_f64().unwrap_or(0.0);
                if is_latency {
                    format!("{mean:.1} ms")
                } else if is_quality {
                    format!("{mean:.4}")
                } else {
                    format!("{:.2} %", mean * 100.0)
                }
            };
            let [difference, low, high] = ["mean", "low", "high"].map(|key| metric["difference"][key].as_f64().unwrap_or(0.0));
            let points = |number: f64| if is_quality { format!("{number:+.4}") } else { format!("{:+.2}", number * 100.0) };
            let unit = if is_quality { "" } else { " pp" };
            let certain = match (low > 0.0, high < 0.0) {
                (true, _) => "higher",
                (_, true) => "lower",
                _ => "",
            };
            let shown = if is_latency { "slower than control's p99".to_owned() } else { name };
            let interval = format!("{} to {}{unit}", points(low), points(high));
            vec![shown, mean("control"), mean("candidate"), format!("{}{unit}", points(difference)), interval, certain.to_owned()]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["", "control", "arm", "difference", &format!("{confidence} % interval"), ""].map(str::to_owned).to_vec();
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn experiment() -> Value {
        let arm = |name: &str, clicks: u64| {
            json!({ "arm": name, "requests": 1000, "errors": 1, "timeouts": 1, "impressions": 998, "clicks": clicks, "conversions": 0, "quality": null,
                    "latency_p99_ms": 12.5 })
        };
        let metric = json!({ "metric": "clicks", "control": { "n": 998, "mean": 0.3 }, "candidate": { "n": 998, "mean": 0.36 },
                             "difference": { "mean": 0.06, "low": 0.011, "high": 0.109 } });
        json!({ "route": "search", "name": "big-model", "state": "running", "layer": "experiments", "percent": "20", "why": "ann: tonight", "waits_for": null,
                "confidence_percent": "95", "arms": [{ "name": "control", "pool": "live" }, { "name": "big", "version": "v7" }],
                "evidence": { "arms": [arm("control", 299), arm("big", 359)], "left_out_seconds": 3,
                              "comparisons": [{ "arm": "big", "control": "control", "summary": "more clicks", "metrics": [metric] }] } })
    }

    #[test]
    fn a_report_is_two_tables() {
        let text = report(&experiment());
        let expected = "\
search: experiment big-model, running: 20 % of layer experiments
    ann: tonight

  arm      answered by  requests  errors      p99      impressions  clicks         conversions  quality
  control  pool live    1000      2 (0.20 %)  12.5 ms  998          299 (29.96 %)  0 (0.00 %)   -
  big      version v7   1000      2 (0.20 %)  12.5 ms  998          359 (35.97 %)  0 (0.00 %)   -

big against control: more clicks
          control  arm      difference  95 % interval       \n  clicks  30.00 %  36.00 %  +6.00 pp    +1.10 to +10.90 pp  higher

3 seconds are left out: nobody kept them until they could be judged
"
        .replace("interval       \n", "interval\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let text = listed("search", &json!({ "left_for_rollouts_percent": "80", "experiments": [experiment()] }));
        assert_eq!(
            text,
            "search: 80 % of the units are left for rollouts\n  experiment  state    layer        percent  arms          requests  so far\n  \
             big-model   running  experiments  20 %     control, big  2000      big: more clicks\n"
        );
        assert!(listed("search", &json!({ "experiments": [] })).contains("switchback experiment create search"));
    }
}
