//! What must be true after a run, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use switchback_tests::Router;

use crate::eyes::{Seen, look};
use crate::plan::{Kind, Plan};
use crate::scene::{BAKE, DWELL, Edit, Scene};

const SOON: Duration = Duration::from_secs(30);

/// An entry of the ledger, as Redis has it.
type Entry = Value;

/// Everything that is wrong.
pub(crate) fn violations(scene: &Scene, took: Duration) -> Vec<String> {
    let mut found = Vec::new();
    let entries = settled(scene, &mut found);
    let events = events(&entries);
    found.extend(wrong_order(&events, scene.plan.is_good));
    if took < Duration::from_secs(60) && events.contains(&"stalled") {
        found.push(format!("it is said to be stalled after {took:?}"));
    }
    let epochs: Vec<u64> = entries.iter().map(epoch).collect();
    if !epochs.windows(2).all(|pair| pair[0] < pair[1]) {
        found.push(format!("epochs of the ledger do not grow: {epochs:?}"));
    }
    found.extend(scene.edits.iter().filter_map(|edit| lost_edit(edit, &entries)));
    if let Some(note) = scene.edits.iter().rfind(|edit| edit.field == "flag.note") {
        let stands = scene.fleet.redis.cli(&["HGET", "{switchback:search}:flags", "flag.note"]).unwrap_or_default();
        if stands != note.value {
            found.push(format!("the bare edit {note:?} does not stand: {stands:?}"));
        }
    }
    found.extend(scene.routers().flat_map(|router| wrong_end(router, &scene.plan, &scene.edits)));
    found.extend(wrong_notices(scene, &entries));
    let (code, said, error) = scene.any_router().run(&["ledger", "verify", "search", "--json"]);
    let is_from_the_beginning = serde_json::from_str::<Value>(&said).is_ok_and(|said| said["is_from_the_beginning"] == true);
    if code != 0 || !is_from_the_beginning {
        found.push(format!("the ledger does not verify: {said}{error}"));
    }
    found
}

/// Waits until edits are adopted and everything is told.
fn settled(scene: &Scene, found: &mut Vec<String>) -> Vec<Entry> {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let entries = ledger(scene);
        let are_adopted = scene.edits.iter().all(|edit| entries.iter().any(|entry| sets(entry, edit)));
        let told: BTreeSet<u64> = scene.receiver.seen().iter().filter_map(|request| notice(request)).map(|(.., epoch)| epoch).collect();
        let due: BTreeSet<u64> = entries.iter().filter(|entry| event(entry).is_some()).map(epoch).collect();
        if are_adopted && told == due {
            return entries;
        }
        if std::time::Instant::now() > deadline {
            found.push(format!("not settled within {SOON:?}: told {told:?}, due {due:?}, edits {:?}", scene.edits));
            return entries;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn ledger(scene: &Scene) -> Vec<Entry> {
    let text = scene.fleet.redis.cli(&["--raw", "XRANGE", "{switchback:search}:ledger", "-", "+"]).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn epoch(entry: &Entry) -> u64 {
    entry["epoch"].as_u64().unwrap_or(0)
}

/// The transition that an entry is, if it is one.
fn event(entry: &Entry) -> Option<&str> {
    entry["grounds"]["event"].as_str()
}

fn events(entries: &[Entry]) -> Vec<&str> {
    entries.iter().filter_map(event).collect()
}

/// What the state machine of docs/ROLLOUTS.md does not allow.
fn wrong_order(events: &[&str], is_good: bool) -> Option<String> {
    let is_main = |event: &&&str| ["started", "step_began", "switched", "done", "rolled_back", "aborted"].contains(*event);
    let main: Vec<&str> = events.iter().filter(is_main).copied().collect();
    let whole = ["started", "step_began", "switched", "done"];
    let is_right = if is_good {
        main == whole
    } else {
        main.split_last()
            .is_some_and(|(last, before)| *last == "rolled_back" && !before.is_empty() && before.len() < 4 && whole.starts_with(before))
    };
    let mut is_paused = false;
    let in_turn = events.iter().all(|event| match *event {
        "paused" => !std::mem::replace(&mut is_paused, true),
        "resumed" => std::mem::replace(&mut is_paused, false),
        "breaker_tripped" => !is_good,
        "stalled" => true,
        _ => is_main(&event),
    });
    (!is_right || !in_turn).then(|| format!("the ledger's transitions are {events:?}"))
}

fn sets(entry: &Entry, edit: &Edit) -> bool {
    entry["kind"] == "external-edit" && value_of(entry, edit.field) == Some(edit.value.as_str())
}

/// What an entry sets a field to.
fn value_of<'e>(entry: &'e Entry, field: &str) -> Option<&'e str> {
    let changes = entry["what"].as_array()?;
    changes.iter().find(|change| change["field"] == field).and_then(|change| change["new"].as_str())
}

fn changes(entry: &Entry, field: &str) -> bool {
    entry["what"].as_array().is_some_and(|changes| changes.iter().any(|change| change["field"] == field))
}

/// An edit is in the ledger, once, and its value is changed by an operator's word, a rollback, or another edit alone.
fn lost_edit(edit: &Edit, entries: &[Entry]) -> Option<String> {
    let places: Vec<usize> = (0..entries.len()).filter(|at| sets(&entries[*at], edit)).collect();
    let [at] = places[..] else { return Some(format!("the bare edit {edit:?} is in the ledger {} times", places.len())) };
    let next = entries[at + 1..].iter().find(|entry| changes(entry, edit.field))?;
    let may = next["kind"] == "external-edit" || matches!(event(next), Some("resumed" | "rolled_back"));
    (!may).then(|| format!("the bare edit {edit:?} was overwritten by {next}"))
}

fn wrong_end(router: &Router, plan: &Plan, edits: &[Edit]) -> Option<String> {
    let route = look(router.admin)?;
    let live = if plan.is_good { "green" } else { "blue" };
    let has_edit = edits.iter().any(|edit| edit.field != "flag.note");
    let nobody = |field: &str| route[field].as_f64() == Some(0.0);
    let is_right = route["live"] == live && (has_edit || (nobody("canary_percent") && nobody("holdback_percent")));
    (!is_right).then(|| {
        format!("it ended with live {}, canary {} %, holdback {} %", route["live"], route["canary_percent"], route["holdback_percent"])
    })
}

/// Id, body and epoch of a notice.
fn notice(request: &str) -> Option<(&str, &str, u64)> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let id = head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("webhook-id")))?.1;
    let told: Value = serde_json::from_str(body).ok()?;
    Some((id, body, told["data"]["epoch"].as_u64()?))
}

/// One id for each transition, one content for each id; an id comes again only when a try was not answered, or when the one that told it, or the
/// store, may have died before that was noted.
fn wrong_notices(scene: &Scene, entries: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    let requests = scene.receiver.seen();
    let (mut bodies, mut ids) = (BTreeMap::<&str, BTreeSet<&str>>::new(), BTreeMap::<u64, BTreeSet<&str>>::new());
    for request in &requests {
        let Some((id, body, epoch)) = notice(request) else {
            found.push(format!("no notice: {request:?}"));
            continue;
        };
        bodies.entry(id).or_default().insert(body);
        ids.entry(epoch).or_default().insert(id);
    }
    found.extend(bodies.iter().filter(|(_, bodies)| bodies.len() > 1).map(|(id, bodies)| format!("{id} was told as {bodies:?}")));
    found.extend(ids.iter().filter(|(_, ids)| ids.len() > 1).map(|(epoch, ids)| format!("epoch {epoch} was told as {ids:?}")));
    let transitions = entries.iter().filter(|entry| event(entry).is_some()).count();
    if bodies.len() != transitions {
        found.push(format!("{transitions} transitions, and {} ids: {:?}", bodies.len(), bodies.keys()));
    }
    let is_deadly =
        |kind: Kind| matches!(kind, Kind::KillHolder | Kind::KillRouter | Kind::KillRedis | Kind::SleepHolder | Kind::StrangeClock);
    let deaths = scene.plan.faults.iter().filter(|fault| is_deadly(fault.kind)).count();
    let unanswered = if scene.plan.is_deaf { requests.len().div_ceil(3) } else { 0 };
    let repeats = requests.len().saturating_sub(bodies.len());
    if repeats > deaths + unanswered {
        found.push(format!("{repeats} notices came again after {unanswered} tries without an answer and {deaths} deaths"));
    }
    found
}

/// A step that took less than it has to: seen by the eyes, whatever clocks say.
pub(crate) fn hurried(seen: &Seen) -> Option<String> {
    let gap = |from: usize, to: usize| Some(seen.stages[to]?.duration_since(seen.stages[from]?));
    let least = [(0, 1, DWELL), (1, 2, DWELL), (2, 3, BAKE)];
    // The eyes look twenty times a second.
    let early = least.into_iter().find(|(from, to, least)| gap(*from, *to).is_some_and(|gap| gap < least.mul_f64(0.7)));
    early.map(|(from, to, least)| format!("from stage {from} to {to} in {:?}, and not in {least:?}", gap(from, to)))
}

/// What is there to be found is found.
#[test]
fn what_must_not_be_is_found() {
    let good = ["started", "step_began", "switched", "done"];
    assert_eq!(wrong_order(&good, true), None);
    assert_eq!(wrong_order(&["started", "paused", "resumed", "step_began", "switched", "done"], true), None);
    assert_eq!(wrong_order(&["started", "breaker_tripped", "rolled_back"], false), None);
    let twice = ["started", "step_began", "step_began", "switched", "done"];
    let bad: [(&[&str], bool); 7] = [
        (&twice, true),
        (&["started", "switched", "done"], true),
        (&["started", "step_began", "switched", "done", "done"], true),
        (&["started", "resumed", "step_began", "switched", "done"], true),
        (&good, false),
        (&["started", "rolled_back", "rolled_back"], false),
        (&["started", "breaker_tripped", "step_began", "switched", "done"], true),
    ];
    assert!(bad.iter().all(|(events, is_good)| wrong_order(events, *is_good).is_some()));
    let edit = Edit { field: "canary_percent", value: "12".to_owned() };
    let entry = |kind: &str, event: Option<&str>, new: &str| serde_json::json!({"kind": kind, "grounds": {"event": event}, "what": [{"field": "canary_percent", "old": "10", "new": new}]});
    let by_hand = entry("external-edit", None, "12");
    assert_eq!(lost_edit(&edit, &[by_hand.clone(), entry("rollout", Some("resumed"), "10")]), None);
    assert!(lost_edit(&edit, &[by_hand.clone(), entry("rollout", Some("step_began"), "50")]).is_some());
    assert!(lost_edit(&edit, &[]).is_some() && lost_edit(&edit, &[by_hand.clone(), by_hand]).is_some());
}
