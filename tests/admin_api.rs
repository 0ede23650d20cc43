//! The admin listener of a real router: who may do what, changes with compare-and-set, readiness, metrics, events, the CLI that
//! is its client, and the description of it all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchback_tests::{Backend, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(10);

/// An answer of the admin listener.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str("host: 127.0.0.1\r\n");
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    let response = http::raw(address, &format!("{request}\r\n{body}")).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {path}: {response:?}"));
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

fn bearer(router: &Router) -> String {
    format!("Bearer {}", std::fs::read_to_string(router.data_dir.join("admin.token")).unwrap().trim())
}

fn change(router: &Router, headers: &[(&str, &str)], body: &Value) -> Answer {
    let token = bearer(router);
    let mut all = vec![("authorization", token.as_str())];
    all.extend(headers);
    ask(router.admin, "PATCH", "/api/v1/routes/search/flags", &all, &body.to_string())
}

fn colours(blue: &Backend, green: &Backend) -> Setup {
    Setup::default().pool("blue", &[blue]).pool("green", &[green])
}

fn two_colours() -> (Backend, Backend, Router) {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = colours(&blue, &green).start();
    (blue, green, router)
}

fn who_answers(router: &Router) -> String {
    http::get(router.traffic, "/").unwrap().1
}

#[test]
fn a_change_is_obeyed_recorded_and_versioned() {
    let (_blue, _green, router) = two_colours();
    assert_eq!(who_answers(&router), "blue");
    let before = router.route()["epoch"].as_u64().unwrap();
    let answer = change(&router, &[], &json!({ "set": { "live": "green", "freeze": true }, "why": "v42 is good" }));
    assert_eq!((answer.status, answer.json()["epoch"].as_u64()), (200, Some(before + 1)), "{}", answer.body);
    assert_eq!(answer.header("etag"), Some(format!("\"{}\"", before + 1).as_str()));
    eventually("traffic is on green", SOON, || (who_answers(&router) == "green").then_some(()));
    let route = router.route();
    assert_eq!((&route["live"], &route["freeze"], &route["applied_epoch"]), (&json!("green"), &json!(true), &json!(before + 1)));
    assert_eq!(route["pools"]["green"]["roles"], json!(["live"]));
    let history = ask(router.admin, "GET", "/api/v1/routes/search/history?limit=1", &[], "").json();
    let entry = &history["entries"][0];
    assert_eq!((&entry["who"], &entry["why"]), (&json!("local-operator"), &json!("v42 is good")));
    assert!(entry["what"].as_array().unwrap().contains(&json!({ "field": "live", "old": "blue", "new": "green" })), "{entry}");
}

#[test]
fn a_change_meant_for_another_epoch_is_refused() {
    let (_blue, _green, router) = two_colours();
    let flags = ask(router.admin, "GET", "/api/v1/routes/search/flags", &[], "");
    let read = flags.header("etag").unwrap().to_owned();
    assert_eq!(change(&router, &[("if-match", &read)], &json!({ "set": { "canary_percent": 0, "pin": "green" } })).status, 200);
    let late = change(&router, &[("if-match", &read)], &json!({ "set": { "pin": "blue" } }));
    assert_eq!(late.status, 412, "{}", late.body);
    assert_eq!(late.json()["found"].as_u64(), late.json()["expected"].as_u64().map(|epoch| epoch + 1));
    assert_eq!(router.route()["pin"], "green");
    assert_eq!(change(&router, &[("if-match", "*")], &json!({ "unset": ["pin"] })).status, 200);
    assert_eq!(router.route()["pin"], Value::Null);
}

#[test]
fn a_bad_change_is_refused_whole_and_says_why() {
    let (_blue, _green, router) = two_colours();
    let before = router.route();
    let cases = [
        (json!({ "set": { "freeze": "true", "live": "purple" } }), 422, "blue or green"),
        (json!({ "set": { "canary_percent": 101 } }), 422, "0 to 100"),
        (json!({ "set": { "lively": "green" } }), 422, "one of the fields"),
        (
            json!({ "set": { "canary_percent": 70, "candidate_pool": "green", "holdback_pool": "green", "holdback_percent": 40 } }),
            422,
            "leaves 30",
        ),
        (json!({ "set": { "epoch": 900 } }), 422, "left alone"),
        (json!({ "unset": ["live"] }), 422, "cannot be deleted"),
        (json!({}), 422, "at least one field"),
        (json!({ "set": { "pin": "blue" }, "unset": ["pin"] }), 400, "both in set and in unset"),
        (json!({ "set": { "pin": null } }), 400, "must be text"),
        (json!({ "live": "green" }), 400, "unknown field `live`"),
        (json!([1]), 400, "must be JSON like"),
        (json!({ "set": { "pin": "blue" }, "why": "one\ntwo" }), 400, "why: a line break after 3 characters: must be one line of text"),
    ];
    for (body, status, says) in cases {
        let answer = change(&router, &[], &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains(says), "{body}: {}", answer.body);
    }
    let faults = change(&router, &[], &json!({ "set": { "live": "purple" } })).json()["faults"].clone();
    assert_eq!((&faults[0]["field"], &faults[0]["value"]), (&json!("live"), &json!("purple")));
    assert_eq!(change(&router, &[("if-match", "12")], &json!({ "set": { "pin": "blue" } })).status, 400);
    let large = json!({ "set": { "live": "x".repeat(300 << 10) } });
    assert_eq!(change(&router, &[], &large).status, 413);
    let after = router.route();
    assert_eq!((&after["epoch"], &after["live"], &after["freeze"]), (&before["epoch"], &json!("blue"), &json!(false)));
}

/// As `initial` of the config is held to.
#[test]
fn a_share_needs_a_candidate_that_is_not_the_live_pool() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    for (set, says) in [
        (json!({ "canary_percent": 10 }), "this route has no pool canary"),
        (json!({ "canary_percent": 10, "candidate_pool": "blue" }), "the candidate's pool is the live one"),
        (json!({ "canary_percent": 10, "candidate_pool": "green" }), "a pool of this route"),
    ] {
        let answer = change(&router, &[], &json!({ "set": set }));
        assert_eq!(answer.status, 422, "{set}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains(says), "{set}: {}", answer.body);
    }
    let flags = ask(router.admin, "GET", "/api/v1/routes/search/flags", &[], "").json();
    assert_eq!(flags["fields"]["candidate_pool"], Value::Null, "nobody wrote it: {flags}");
    assert_eq!(change(&router, &[], &json!({ "set": { "canary_percent": 0 } })).status, 200);
}

#[test]
fn a_flip_to_a_pool_where_nobody_answers_is_made_and_warned_of() {
    let (blue, mut green) = (Backend::start("blue"), Backend::start("green"));
    let router = colours(&blue, &green).start();
    assert_eq!(change(&router, &[], &json!({ "set": { "freeze": true } })).json()["warnings"], json!([]));
    green.stop();
    let is_dead = || router.route()["pools"]["green"]["healthy"] == 0;
    eventually("green is known to be down", SOON, || is_dead().then_some(()));
    let (code, said, warned) = router.run(&["flag", "set", "search", "live=green"]);
    assert_eq!((code, said.starts_with("epoch ")), (0, true), "{said}");
    assert!(warned.contains("warning: pool green (live) has no healthy endpoint"), "{warned}");
}

#[test]
fn changing_needs_an_operator_also_where_reading_is_open() {
    let (_blue, _green, router) = two_colours();
    let body = json!({ "set": { "live": "green" } }).to_string();
    let path = "/api/v1/routes/search/flags";
    let anonymous = ask(router.admin, "PATCH", path, &[], &body);
    assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (401, Some("Bearer realm=\"switchback\"")));
    assert_eq!(ask(router.admin, "PATCH", path, &[("authorization", "Bearer 0123456789abcdef0123456789abcdef")], &body).status, 401);
    assert_eq!(router.route()["live"], "blue");
    let rebound = ask(router.admin, "GET", "/api/v1/routes", &[("host", "evil.example")], "");
    assert_eq!(rebound.status, 421, "a web page whose name was pointed at us reads nothing: {}", rebound.body);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(router.data_dir.join("admin.token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_viewer_reads_but_for_salts_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokens = String::new();
    for (name, role) in [("ann", "operator"), ("bob", "viewer")] {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("the-token-of-{name}\n")).unwrap();
        tokens.push_str(&format!("[[admin.token]]\nname = \"{name}\"\nrole = \"{role}\"\nfile = \"{}\"\n", file.display()));
    }
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let router = colours(&blue, &green).top(&tokens).start();
    let (ann, bob) = ([("authorization", "Bearer the-token-of-ann")], [("authorization", "Bearer the-token-of-bob")]);
    let path = "/api/v1/routes/search/flags";
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask(router.admin, "GET", open, &[], "").status, 200, "{open} needs no token");
    }
    for closed in ["/api/v1/routes", "/api/v1/routes/search", path, "/api/v1/policies", "/api/v1/events", "/api/v1/openapi.json"] {
        assert_eq!(ask(router.admin, "GET", closed, &[], "").status, 401, "{closed} needs one");
    }
    let salted =
        json!({ "set": { "salt": "pepper-0123456789", "experiments": { "layers": [{ "name": "a", "salt": "pepper-too" }] } } }).to_string();
    assert_eq!(ask(router.admin, "PATCH", path, &bob, &salted).status, 403);
    let done = ask(router.admin, "PATCH", path, &ann, &salted);
    assert_eq!(done.status, 200, "{}", done.body);
    let seen = ask(router.admin, "GET", path, &ann, "").json();
    assert_eq!(seen["fields"]["salt"], "pepper-0123456789");
    for read in ["/api/v1/routes", "/api/v1/routes/search", path, "/api/v1/routes/search/history", "/api/v1/policies"] {
        let answer = ask(router.admin, "GET", read, &bob, "");
        assert_eq!(answer.status, 200, "{read}");
        assert!(!answer.body.contains("pepper"), "{read} shows a salt to a viewer: {}", answer.body);
    }
    assert!(!ask(router.admin, "GET", "/metrics", &[], "").body.contains("pepper"));
    let history = ask(router.admin, "GET", "/api/v1/routes/search/history", &bob, "").json();
    assert_eq!(history["entries"][0]["who"], "ann");
    let role = |token: &[(&str, &str)]| ask(router.admin, "GET", "/api/v1/routes/search", token, "").json()["role"].clone();
    assert_eq!((role(&ann), role(&bob)), ("operator".into(), "viewer".into()));
    let roll_back = |token: &[(&str, &str)], body: &str| ask(router.admin, "POST", "/api/v1/routes/search/rollback", token, body).status;
    let dry = r#"{"dry_run": true}"#;
    assert_eq!((roll_back(&bob, ""), roll_back(&[], dry)), (403, 401));
    assert_eq!((roll_back(&bob, dry), roll_back(&ann, dry), roll_back(&ann, "")), (409, 409, 409), "there is nothing to roll back");
}

#[test]
fn a_router_is_ready_when_its_live_pool_is_and_stays_so() {
    let (mut blue, green) = (Backend::start("blue"), Backend::start("green"));
    blue.stop();
    let router = colours(&blue, &green).start_unready();
    let is_healthy = |router: &Router| router.route()["pools"]["blue"]["endpoints"][0]["is_healthy"] == true;
    eventually("blue is known to be down", SOON, || (!is_healthy(&router)).then_some(()));
    let (status, body) = http::get(router.admin, "/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("route search: pool blue has no healthy endpoint"), "{body}");
    assert_eq!(http::get(router.admin, "/healthz").unwrap(), (200, "ok\n".to_owned()));
    blue.restart();
    eventually("ready", SOON, || (http::get(router.admin, "/readyz").unwrap().0 == 200).then_some(()));
    blue.stop();
    eventually("blue is known to be down again", SOON, || (!is_healthy(&router)).then_some(()));
    let (status, body) = http::get(router.admin, "/readyz").unwrap();
    assert_eq!(status, 200, "a pool that dies later is dead for every router: {body}");
    assert!(body.contains("pool blue has no healthy endpoint"), "but it is said: {body}");
}

#[test]
fn the_257th_feature_flag_is_refused_with_the_reason_and_the_others_are_obeyed() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    let set: Vec<String> = (0..256).map(|number| format!("flag.f{number:03}=on")).collect();
    router.set_flags(&set.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, _, why) = router.run(&["flag", "set", "search", "flag.more=on", "flag.f007=off"]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("flag.more") && why.contains("at most 256 flags"), "{why}");
    let flags = || router.route()["flags"].as_object().unwrap().clone();
    assert!(flags().len() == 256 && flags()["f007"] == "on", "refused whole");
    router.set_flags(&["flag.f007=off", "freeze=true"]);
    assert_eq!(flags()["f007"], "off");
    let (code, _, why) = router.run(&["flag", "set", "search", "--unset", "flag.f008", "flag.more=on"]);
    assert_eq!((code, flags()["more"].as_str(), flags().contains_key("f008")), (0, Some("on"), false), "{why}");
}

/// Nobody asks `/readyz` until the pool is down: a balancer that comes late must not find a router that never was ready.
#[test]
fn a_router_becomes_ready_also_while_nobody_asks() {
    let blue = Backend::start("blue");
    let health = "health = { interval = \"20ms\", timeout = \"20ms\" }";
    let router = Setup::default().bare_pool_at("blue", blue.address, health).start_unready();
    // Many times what the checks may take to find it unhealthy.
    eventually("it was checked for long enough", SOON, || (blue.checks() >= 100).then_some(()));
    blue.feel(503);
    eventually("it is known to be down", SOON, || (router.route()["pools"]["blue"]["endpoints"][0]["is_healthy"] == false).then_some(()));
    let (status, body) = http::get(router.admin, "/readyz").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("pool blue has no healthy endpoint"), "{body}");
}

/// Families and samples of a page, held to the text format: every sample belongs to the family announced before it, none twice.
fn parse_metrics(page: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut families: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && families.insert(name.to_owned(), BTreeMap::new()).is_none(), "{line}");
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, is) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            assert!(matches!(is, "counter" | "gauge" | "histogram"), "{line}");
            assert_eq!(is == "counter", name.ends_with("_total"), "{line}");
            is.clone_into(&mut kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(families.get_mut(&family).unwrap().insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    families
}

#[test]
fn metrics_are_well_formed_and_count_what_happened() {
    let (_blue, _green, router) = two_colours();
    for _ in 0..20 {
        assert_eq!(who_answers(&router), "blue");
    }
    router.set_flags(&["live=green"]);
    eventually("a query on green", SOON, || (who_answers(&router) == "green").then_some(()));
    let answer = ask(router.admin, "GET", "/metrics", &[], "");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let families = parse_metrics(&answer.body);
    for name in ["switchback_requests_total", "switchback_request_duration_seconds", "switchback_policy_duration_seconds"] {
        assert!(families[name].keys().any(|series| series.contains("route=\"search\"")), "{name}");
    }
    assert!(families["switchback_flags_age_seconds"]["switchback_flags_age_seconds"] < 1.0);
    let blue = "route=\"search\",pool=\"blue\",version=\"unknown\"";
    let counted = families["switchback_requests_total"][&format!("switchback_requests_total{{{blue},code=\"2xx\"}}")];
    assert!(counted >= 20.0, "{counted}");
    let durations = &families["switchback_request_duration_seconds"];
    let bucket = |le: &str| durations[&format!("switchback_request_duration_seconds_bucket{{{blue},le=\"{le}\"}}")];
    assert!((bucket("+Inf") - counted).abs() < 0.5, "every answered attempt has a duration");
    assert!(bucket("0.0001") <= bucket("0.01") && bucket("0.01") <= bucket("10") && bucket("10") <= bucket("+Inf"));
    assert!(durations[&format!("switchback_request_duration_seconds_sum{{{blue}}}")] > 0.0);
    let live = |pool: &str| families["switchback_flags_live"][&format!("switchback_flags_live{{route=\"search\",pool=\"{pool}\"}}")];
    assert_eq!((live("blue") as u8, live("green") as u8), (0, 1));
    let epoch = families["switchback_flags_epoch"]["switchback_flags_epoch{route=\"search\"}"];
    assert_eq!(json!(epoch as u64), router.route()["applied_epoch"]);
    let memory = families["process_resident_memory_bytes"]["process_resident_memory_bytes"];
    assert!((1e6..1e9).contains(&memory), "{memory}");
}

#[test]
fn events_tell_the_state_and_then_each_change() {
    let (_blue, _green, router) = two_colours();
    let mut watching = router.cli().args(["flag", "watch", "search", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines =
        BufReader::new(watching.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let first = lines.next().unwrap();
    assert_eq!((&first["name"], &first["live"]), (&json!("search"), &json!("blue")));
    let changed = Instant::now();
    router.set_flags(&["live=green"]);
    let second = lines.next().unwrap();
    assert!(changed.elapsed() < SOON);
    assert_eq!(second["live"], "green");
    assert_eq!(second["applied_epoch"].as_u64(), first["applied_epoch"].as_u64().map(|epoch| epoch + 1));
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(ask(router.admin, "GET", "/api/v1/events?route=nothing", &[], "").status, 404);
}

#[test]
fn a_stream_of_events_does_not_hold_up_the_end() {
    let (_blue, _green, mut router) = two_colours();
    let mut stream = TcpStream::connect(router.admin).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut first = [0_u8; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let (status, took) = router.terminate();
    assert!(status.success() && took < SOON, "{status} after {took:?}");
}

#[test]
fn a_client_that_never_ends_its_head_is_cut_off() {
    let (_blue, _green, router) = two_colours();
    let mut stream = TcpStream::connect(router.admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert_eq!(http::get(router.admin, "/healthz").unwrap().0, 200);
}

#[test]
fn the_command_line_says_what_the_router_says() {
    let (_blue, _green, router) = two_colours();
    let run = |arguments: &[&str]| router.run(arguments);
    let (code, said, _) = run(&["flag", "set", "search", "holdback_pool=green", "holdback_percent=2.5", "--why", "keep some"]);
    assert_eq!((code, said.starts_with("epoch ")), (0, true), "{said}");
    assert_eq!(run(&["flag", "get", "search", "holdback_percent"]).1, "2.5\n");
    let (code, status, _) = run(&["status"]);
    assert_eq!(code, 0);
    assert!(status.contains("search: live blue, holdback 2.5 % on green, epoch"), "{status}");
    assert!(status.contains("blue   unknown  1/1      0          live\n"), "{status}");
    assert_eq!(serde_json::from_str::<Value>(&run(&["status", "--json"]).1).unwrap()["routes"][0]["name"], "search");
    assert_eq!(run(&["flag", "get", "search", "pin"]).0, 2, "a field that is not set");
    assert_eq!(run(&["flag", "set", "search", "live=purple"]).0, 2);
    let (code, _, said) = run(&["flag", "set", "search", "live=green", "--if-epoch", "1"]);
    assert_eq!((code, said.contains("not at 1")), (2, true), "{said}");
    let (code, _, said) = run(&["flag", "get", "nothing"]);
    assert_eq!((code, said.contains("the routes here are search")), (64, true), "{said}");
    let (code, _, said) = run(&["status", "--admin", "http://127.0.0.1:1"]);
    assert_eq!((code, said.contains("cannot be reached")), (69, true), "{said}");
    let (code, _, said) = run(&["status", "--admin", "https://127.0.0.1"]);
    assert_eq!((code, said.contains("must be like http://127.0.0.1:9090")), (64, true), "{said}");
}

/// Path and methods of each `.route(...)` of the program.
fn real_paths() -> BTreeMap<String, BTreeSet<String>> {
    let source = include_str!("../router/src/admin/mod.rs");
    let routes = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    let parse = |route: &str| {
        let (path, handlers) = route.split_once('"').unwrap();
        let methods = ["get", "put", "post", "patch", "delete"].into_iter().filter(|method| handlers.contains(&format!("{method}(")));
        (path.to_owned(), methods.map(str::to_owned).collect())
    };
    routes.map(parse).collect()
}

#[test]
fn the_description_has_the_paths_and_fields_that_there_are() {
    let (_blue, _green, router) = two_colours();
    let document = ask(router.admin, "GET", "/api/v1/openapi.json", &[], "").json();
    let methods = |path: &Value| path.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let described: BTreeMap<String, BTreeSet<String>> =
        document["paths"].as_object().unwrap().iter().map(|(path, value)| (path.clone(), methods(value))).collect();
    assert_eq!(described, real_paths());
    let arms = json!([{ "name": "a", "pool": "live" }, { "name": "b", "pool": "green" }]);
    let mine = json!({ "name": "mine", "percent": "5", "arms": arms }).to_string();
    let (_, created) = router.admin("POST", "/api/v1/routes/search/experiments", mine.as_bytes());
    let plugins = ask(router.admin, "GET", "/api/v1/policies", &[], "").json();
    let digest = plugins["plugins"][0]["digest"].as_str().unwrap();
    for (path, methods) in &described {
        let path = path.replace("{route}", "search").replace("{name}", "mine").replace("{digest}", digest);
        assert_eq!(ask(router.admin, "OPTIONS", &path, &[], "").status, 405, "OPTIONS {path}");
        if methods.contains("get") && !path.ends_with("/events") {
            assert_eq!(ask(router.admin, "GET", &path, &[], "").status, 200, "GET {path}");
        }
    }
    assert_eq!(ask(router.admin, "GET", "/api/v2/routes", &[], "").status, 404);
    let fields = |schema: &str| methods(&document["components"]["schemas"][schema]["properties"]);
    let route = router.route();
    assert_eq!(methods(&route), fields("Route"));
    assert_eq!(methods(&route["pools"]["blue"]), fields("Pool"));
    assert_eq!(methods(&route["routers"][0]), fields("Router"));
    let policies = ask(router.admin, "GET", "/api/v1/policies", &[], "").json();
    assert_eq!(methods(&policies["policies"][0]), fields("Policy"));
    assert_eq!(methods(&policies["plugins"][0]), fields("Plugin"));
    assert_eq!(methods(&policies["plugins"][0]["report"]), fields("Report"));
    change(&router, &[], &json!({ "set": { "freeze": true } }));
    let history = ask(router.admin, "GET", "/api/v1/routes/search/history", &[], "").json();
    assert_eq!(methods(&history["entries"][0]), fields("LedgerEntry"));
    let mut experiment = methods(&ask(router.admin, "GET", "/api/v1/routes/search/experiments/mine", &[], "").json());
    experiment.insert("epoch".to_owned());
    assert_eq!((methods(&created), experiment), (fields("Experiment"), fields("Experiment")));
    let all = ask(router.admin, "GET", "/api/v1/routes/search/experiments", &[], "").json();
    assert_eq!(methods(&all), fields("Experiments"));
    assert_eq!(methods(&all["experiments"][0]["evidence"]), fields("ExperimentEvidence"));
    assert_eq!(methods(&ask(router.admin, "GET", "/readyz", &[], "").json()), fields("Readiness"));
    assert_eq!(methods(&ask(router.admin, "GET", "/api/v1/routes/search/flags", &[], "").json()), fields("Fields"));
}

/// Whoever opens many connections to the admin listener keeps neither a health check nor an operator out.
#[test]
fn idle_connections_and_streams_keep_nobody_out() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).start();
    let connect = |request: &str| {
        let mut client = TcpStream::connect(router.admin).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client
    };
    let answered = |mut client: &TcpStream| {
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    let streams: Vec<TcpStream> = (0..300).map(|_| connect("GET /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")).collect();
    let opened = streams.iter().map(answered).filter(|status| status == "200").count();
    assert_eq!(opened, 256, "the others are refused: 503");
    let idle: Vec<TcpStream> = (0..400).map(|_| connect("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")).collect();
    let silent: Vec<TcpStream> = (0..100).map(|_| connect("")).collect();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(http::get(router.admin, "/readyz").unwrap().0, 200);
        router.set_flags(&["flag.a=b"]);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(router.run(&["status"]).0, 0);
    drop((streams, idle, silent));
}
