//! `switchback flag watch`: one line for each change of flags: when, which route and epoch, who, and what.
//!
//! An event says that something is new; what was changed and by whom is in the ledger, so that changes in quick succession are told one by
//! one. An edit by hand in Redis is obeyed a moment before a router gives it an epoch: it is told once, when it has one.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::admin_client::{AdminArgs, AdminClient};
use super::events::Events;
use super::failure::complain;
use super::flag::{checked, plain};
use super::{Failure, print};

/// An edit by hand that has no epoch after this gets none: the router may not write, or the store is away.
const ADOPTED_WITHIN: Duration = Duration::from_secs(1);
/// So many changes are asked for at once: as many as a ledger may be asked for.
const MOST: usize = 1_000;

/// Print flags as they are, and then a line for each change that this router applies: time, route, epoch, who, what, until interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback flag watch\n  switchback flag watch search --json

2026-08-01T09:30:00.125Z search epoch 13, ann: live: blue -> green (v42 is good)

With --json each line is an event of GET /api/v1/events: the flags in force whenever they, or what is wrong with them, are others.")]
pub(super) struct Watch {
    /// One route [default: all].
    route: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What was told of a route.
struct Told {
    flags: Value,
    epoch: u64,
    /// The flags when `epoch` was told: what is obeyed without an epoch differs from these.
    at_epoch: Value,
}

impl Watch {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.admin.client()?;
        let path = match &self.route {
            Some(route) => format!("/api/v1/events?route={}", checked(route)?),
            None => "/api/v1/events".to_owned(),
        };
        let mut told = BTreeMap::new();
        let mut events = client.stream(&path).await.map(Events::new)?;
        loop {
            let is_waiting = told.values().any(|told: &Told| told.flags != told.at_epoch);
            let wait = if is_waiting { ADOPTED_WITHIN } else { Duration::MAX };
            let text = match tokio::time::timeout(wait, events.next()).await {
                Err(_) => told.values_mut().map(not_adopted).collect(),
                Ok(Some(data)) if self.json => format!("{data}\n"),
                Ok(Some(data)) => news(&client, &data, &mut told).await,
                Ok(None) => {
                    // The router restarted, or a proxy closed the stream: the first events of the next one say what was missed.
                    complain("switchback: the stream ended; connecting again");
                    events = reconnect(&client, &path).await;
                    String::new()
                }
            };
            if !text.is_empty() {
                print(&text)?;
            }
        }
    }
}

async fn reconnect(client: &AdminClient, path: &str) -> Events<hyper::body::Incoming> {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Ok(body) = client.stream(path).await {
            return Events::new(body);
        }
    }
}

/// The lines of one event; none when all of it was told.
async fn news(client: &AdminClient, data: &str, told: &mut BTreeMap<String, Told>) -> String {
    let flags: Value = serde_json::from_str(data).unwrap_or_default();
    let name = flags["name"].as_str().unwrap_or("?").to_owned();
    let epoch = flags["applied_epoch"].as_u64().unwrap_or(0);
    let Some(last) = told.get_mut(&name).filter(|last| last.epoch <= epoch) else {
        let text = format!("{} {name} epoch {epoch}: {}\n{}", now(), as_it_is(&flags), faults(&Value::Null, &flags));
        told.insert(name, Told { at_epoch: flags.clone(), flags, epoch });
        return text;
    };
    let mut text = String::new();
    if epoch > last.epoch {
        let path = format!("/api/v1/routes/{name}/history?limit={}", (epoch - last.epoch).min(MOST as u64));
        let history = client.get(&path).await.unwrap_or_default();
        text = entries(&name, &history, last.epoch);
        if text.is_empty() {
            text = format!("{} {name} epoch {epoch}: {}\n", now(), differences(&last.at_epoch, &flags));
        }
        let newest = history["entries"].as_array().into_iter().flatten().filter_map(|entry| entry["epoch"].as_u64()).max();
        last.epoch = epoch.max(newest.unwrap_or(0));
        last.at_epoch = flags.clone();
    } else if epoch == last.epoch && !is_same_traffic(&last.at_epoch, &flags) {
        // Told when it has an epoch.
    } else {
        last.at_epoch = flags.clone();
    }
    text.push_str(&faults(&last.flags, &flags));
    last.flags = flags;
    text
}

/// A change that is obeyed and got no epoch in time.
fn not_adopted(told: &mut Told) -> String {
    if told.flags == told.at_epoch {
        return String::new();
    }
    let (name, what) = (plain(&told.flags["name"]), differences(&told.at_epoch, &told.flags));
    told.at_epoch = told.flags.clone();
    format!("{} {name} epoch {}, obeyed and not recorded: {what}\n", now(), told.epoch)
}

/// The ledger's entries after an epoch, oldest first.
fn entries(name: &str, history: &Value, after: u64) -> String {
    let entries = history["entries"].as_array().into_iter().flatten();
    let line = |entry: &Value| {
        let field = |change: &Value| format!("{}: {} -> {}", plain(&change["field"]), shown(&change["old"]), shown(&change["new"]));
        // A share that was not there is 0: a flip writes that down, and it changes nothing.
        let is_change = |change: &&Value| !(change["old"].is_null() && change["new"] == "0");
        let what: Vec<String> = entry["what"].as_array().into_iter().flatten().filter(is_change).map(field).collect();
        let what = if what.is_empty() { "no field is another".to_owned() } else { what.join(", ") };
        let why = entry["why"].as_str().filter(|why| !why.is_empty()).map_or_else(String::new, |why| format!(" ({why})"));
        format!("{} {name} epoch {}, {}: {what}{why}\n", at(entry["time_ms"].as_i64()), entry["epoch"], plain(&entry["who"]))
    };
    let mut lines: Vec<String> = entries.filter(|entry| entry["epoch"].as_u64().is_some_and(|epoch| epoch > after)).map(line).collect();
    lines.reverse();
    lines.concat()
}

/// Fields of the flags themselves.
fn fields(flags: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let is_about = |field: &str| matches!(field, "name" | "epoch" | "applied_epoch" | "seal" | "faults");
    flags.as_object().into_iter().flatten().filter(move |(field, _)| !is_about(field))
}

fn is_same_traffic(old: &Value, new: &Value) -> bool {
    fields(old).eq(fields(new))
}

/// Every field that is not at nothing; the candidate's pool only while something goes there.
fn as_it_is(flags: &Value) -> String {
    let has_candidate = flags["canary_percent"] != json!(0.0) || flags["mirror_percent"] != json!(0.0);
    let is_said = |value: &Value| !value.is_null() && *value != json!(0.0) && *value != json!(false) && *value != json!({});
    let words: Vec<String> = fields(flags)
        .filter(|(field, value)| is_said(value) && (has_candidate || *field != "candidate_pool"))
        .map(|(field, value)| format!("{field} {}", plain(value)))
        .collect();
    words.join(", ")
}

/// A value; an empty one is not to be mistaken for none.
fn shown(value: &Value) -> String {
    if value == "" { "\"\"".to_owned() } else { plain(value) }
}

fn differences(old: &Value, new: &Value) -> String {
    let changed = fields(new).filter(|(field, value)| old[field.as_str()] != **value);
    let words: Vec<String> =
        changed.map(|(field, value)| format!("{field}: {} -> {}", shown(&old[field.as_str()]), shown(value))).collect();
    if words.is_empty() { "nothing that the data path sees".to_owned() } else { words.join(", ") }
}

/// Lines for fields that are newly not obeyed, and for those that are in order again.
fn faults(old: &Value, new: &Value) -> String {
    let list = |flags: &Value| flags["faults"].as_array().cloned().unwrap_or_default();
    let (old, name) = (list(old), plain(&new["name"]));
    let new = list(new);
    let begins = new.iter().filter(|fault| !old.contains(fault)).map(|fault| {
        let (field, value, allowed) = (plain(&fault["field"]), plain(&fault["value"]), plain(&fault["allowed"]));
        format!("{} {name} not obeyed: {field} = {value}: must be {allowed}\n", now())
    });
    let is_there = |field: &Value| new.iter().any(|fault| fault["field"] == *field);
    let ends = old.iter().filter(|fault| !is_there(&fault["field"]));
    begins.chain(ends.map(|fault| format!("{} {name} in order again: {}\n", now(), plain(&fault["field"])))).collect()
}

fn now() -> String {
    stamp(OffsetDateTime::now_utc())
}

/// Of milliseconds since 1970.
fn at(unix_ms: Option<i64>) -> String {
    let time = unix_ms.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
    time.map_or_else(|| "?".to_owned(), stamp)
}

fn stamp(time: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time.format(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_since_the_last_epoch_is_a_line_oldest_first() {
        let history = json!({ "entries": [
            { "epoch": 3, "time_ms": 1_000, "who": "ann", "why": "v42", "what": [
                { "field": "canary_percent", "old": "5", "new": "0" }, { "field": "holdback_percent", "old": null, "new": "0" }, { "field": "live", "old": "blue", "new": "green" }
            ] },
            { "epoch": 2, "time_ms": 900, "who": "external", "why": "external edit", "what": [{ "field": "pin", "old": null, "new": "blue" }, { "field": "flag.a", "old": null, "new": "" }] },
            { "epoch": 1, "time_ms": 800, "who": "bob", "why": "", "what": [] }
        ] });
        let expected = "1970-01-01T00:00:00.900Z search epoch 2, external: pin: - -> blue, flag.a: - -> \"\" (external edit)\n\
                        1970-01-01T00:00:01.000Z search epoch 3, ann: canary_percent: 5 -> 0, live: blue -> green (v42)\n";
        assert_eq!(entries("search", &history, 1), expected);
        assert_eq!(entries("search", &history, 3), "");
    }

    #[test]
    fn flags_are_told_without_what_is_at_nothing() {
        let flags = json!({
            "name": "search", "live": "blue", "candidate_pool": "green", "pin": null, "canary_percent": 5.0, "mirror_percent": 0.0,
            "freeze": false, "flags": {},
            "epoch": 1, "faults": []
        });
        assert_eq!(as_it_is(&flags), "live blue, candidate_pool green, canary_percent 5.0");
        let mut other = flags.clone();
        other["pin"] = json!("blue");
        assert_eq!(differences(&flags, &other), "pin: - -> blue");
        other["canary_percent"] = json!(0.0);
        assert_eq!(as_it_is(&other), "live blue, pin blue");
        assert!(is_same_traffic(&flags, &flags) && !is_same_traffic(&flags, &other));
    }
}
