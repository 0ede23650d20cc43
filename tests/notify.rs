//! The promise: others are told of each event once for the whole fleet, whoever tells it; again only after a try that was not answered; and nobody waits for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::{Act, Load, Router, Scripted, eventually};

const SOON: Duration = Duration::from_secs(60);
const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
const ROUTE: &str = "rollout = { steps = [\"10\", \"50\"], holdback_percent = \"20\", bake = \"2s\" }\nrollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 250 } }";
/// Of a whole rollout.
const EVENTS: [&str; 4] = ["rollout-started", "step-began", "promoted", "rollout-done"];

fn target(name: &str, receiver: &Scripted, more: &str) -> String {
    format!("[[notify]]\nname = {name:?}\nurl = \"{}/hook\"\nretry_base = \"50ms\"\nretry_cap = \"200ms\"\n{more}\n", receiver.url())
}

fn header<'s>(request: &'s str, name: &str) -> &'s str {
    let lines = || request.lines().take_while(|line| !line.is_empty());
    let line = lines().find_map(|line| line.split_once(": ").filter(|(field, _)| field.eq_ignore_ascii_case(name)));
    line.map_or_else(|| panic!("no {name}: {request}"), |(_, value)| value)
}

fn body(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// How often each id came, in the order of their first time.
fn ids(requests: &[String]) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for request in requests {
        *ids.entry(header(request, "webhook-id").to_owned()).or_insert(0) += 1;
    }
    ids
}

fn start(router: &Router) {
    let (code, said, error) = router.run(&["rollout", "start", "search", "--why", "tonight's model"]);
    assert_eq!(code, 0, "{said}{error}");
}

/// One of the targets does not answer the first try of all, one never answers anything.
#[test]
fn each_event_is_told_once_and_again_only_after_silence() {
    let fleet = Fleet::start();
    let once = Scripted::start(|_| Act::Answer);
    let flaky = Scripted::start(|number| if number % 3 == 0 { Act::Close } else { Act::Answer });
    let slack = Scripted::start(|_| Act::Answer);
    let silent = Scripted::start(|_| Act::Close);
    let top = [
        QUICK.to_owned(),
        target("once", &once, ""),
        target("flaky", &flaky, "format = \"cloudevents-binary\""),
        target("slack", &slack, "format = \"slack\"\nevents = [\"promoted\"]"),
        target("silent", &silent, ""),
    ];
    let routers = fleet.routers(&fleet.redis.url(), &top.join("\n"), ROUTE);
    let loads = routers.each_ref().map(|router| Load::new(router.traffic, 150).start());
    start(&routers[0]);
    eventually("it is done, and told", SOON, || (once.seen().len() == 4 && flaky.seen().len() >= 6).then_some(()));
    let told: Vec<Value> = once.seen().iter().map(|request| body(request)).collect();
    let events: Vec<&str> = told.iter().map(|told| told["data"]["event"].as_str().unwrap()).collect();
    assert_eq!(events, EVENTS, "in their order");
    for told in &told {
        assert_eq!(
            (&told["specversion"], &told["source"], &told["subject"]),
            (&"1.0".into(), &"/switchback/routes/search".into(), &"v2".into())
        );
        assert_eq!(told["data"]["control"], "v1");
    }
    let advanced = &told[1]["data"];
    assert!(advanced["why"].as_str().unwrap().starts_with("advance: "), "{advanced:#}");
    assert!(
        advanced["evidence"]["metrics"].is_array() && advanced["policy"].as_str().unwrap().starts_with("rollback-guardrail@"),
        "{advanced:#}"
    );
    assert_eq!((&advanced["step"], &advanced["percent"]), (&2.into(), &50.0.into()));
    // The same ids at another target; those tries that were answered are never repeated.
    let flaky = flaky.seen();
    let (ours, theirs) = (ids(&once.seen()), ids(&flaky));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    assert!(ours.values().all(|times| *times == 1), "{ours:?}");
    assert_eq!(flaky.len(), 6, "two tries were not answered, and came again");
    assert_eq!(header(&flaky[1], "ce-type"), "dev.switchback.rollout.started");
    let slack: Vec<Value> = slack.seen().iter().map(|request| body(request)).collect();
    assert!(slack.len() == 1 && slack[0]["text"].as_str().unwrap().contains("v2"), "{slack:#?}");
    let done: f64 =
        routers.iter().map(|router| router.metric("switchback_notifications_total", &["target=\"once\"", "outcome=\"done\""])).sum();
    assert_eq!(done, 4.0);
    let unanswered: f64 = routers
        .iter()
        .map(|router| router.metric("switchback_notification_tries_total", &["target=\"silent\"", "answered=\"false\""]))
        .sum();
    assert!(unanswered > 3.0, "and nobody waited for it: {unanswered}");
    loads.into_iter().for_each(|load| drop(load.stop()));
}

/// The router that tells is killed while its target is silent; the other goes on where it was.
#[test]
fn whoever_tells_may_die() {
    let fleet = Fleet::start();
    static IS_BACK: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let receiver = Scripted::start(|_| if IS_BACK.load(std::sync::atomic::Ordering::SeqCst) { Act::Answer } else { Act::Close });
    let top = format!("{QUICK}\n{}", target("once", &receiver, "events = [\"flags-changed\"]"));
    let mut routers = fleet.routers(&fleet.redis.url(), &top, ROUTE);
    let holder = |field: &str| fleet.redis.cli(&["HGET", "{switchback:search}:notify:once", field]).unwrap().trim().to_owned();
    eventually("somebody is to tell", SOON, || (!holder("told").is_empty()).then_some(()));
    routers[0].set_flags(&["flag.banner=on"]);
    eventually("it is tried", SOON, || (receiver.seen().len() > 1).then_some(()));
    let teller = usize::from(holder("holder") == "other");
    routers[teller].kill();
    routers[1 - teller].set_flags(&["flag.banner=off"]);
    IS_BACK.store(true, std::sync::atomic::Ordering::SeqCst);
    let before = ids(&receiver.seen()).len();
    assert_eq!(before, 1, "in their order");
    eventually("both are told", SOON, || (ids(&receiver.seen()).len() == 2).then_some(()));
    let told = |epoch: &str| holder("told") == epoch;
    eventually("and noted", SOON, || told("3").then_some(()));
    let last = receiver.seen();
    assert_eq!(body(last.last().unwrap())["data"]["epoch"], 3);
}

#[test]
fn a_target_that_makes_no_sense_is_named_before_anything_starts() {
    let fleet = Fleet::start();
    let receiver = Scripted::start(|_| Act::Answer);
    let top = target("once", &receiver, "secret_file = \"/nowhere/secret\"");
    let (code, log) = fleet.setup("").top(&top).redis(&fleet.redis.url()).fails();
    assert!(code == 64 && log.contains("notify.once.secret_file") && log.contains("/nowhere/secret"), "{log}");
}
