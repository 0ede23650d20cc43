//! Events in: what users did is attributed by the token and counted once; whatever is wrong is refused with its reason, counted by it, and moves
//! nothing else; and no flood of events costs a query.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use switchback::config;
use switchback::quality::{Token, TokenKeys, token_secrets, version_id};
use switchback_tests::cases::Case;
use switchback_tests::{Backend, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(10);
const PATH: &str = "/_switchback/events";
const KEY: &str = "a-key-for-tokens-of-thirty-two-letters";
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";

struct World {
    router: Router,
    blue: Backend,
    folder: tempfile::TempDir,
    issued: AtomicU64,
}

impl World {
    fn new(events: &str) -> World {
        World::with(Setup::default().top(&format!("[events]\n{events}")))
    }

    fn with(setup: Setup) -> World {
        let (folder, blue) = (tempfile::tempdir().unwrap(), Backend::start("blue"));
        let key = folder.path().join("token.key");
        std::fs::write(&key, KEY).unwrap();
        let router = setup.pool("blue", &[&blue]).top(&format!("[token]\nkey_files = [{key:?}]")).start();
        World { router, blue, folder, issued: AtomicU64::new(1) }
    }

    fn token(&self) -> Token {
        let nonce = self.issued.fetch_add(1, Ordering::Relaxed);
        let version = version_id("blue", "unknown");
        Token { epoch: 1, pool: 0, is_counted: true, version, arm: 0, window: now(), group: 5, nonce }
    }

    /// As the router itself would sign it.
    fn keys(&self, route: &str) -> TokenKeys {
        TokenKeys::of(route, &token_secrets(&config::load(&self.router.config()).unwrap()).unwrap())
    }

    fn issue(&self) -> String {
        text(&self.keys("search"), &self.token())
    }

    fn post(&self, body: &[u8]) -> (u16, Value) {
        post(self.router.traffic, &[], body)
    }

    fn refused(&self, reason: &str) -> f64 {
        self.router.metric("switchback_event_refusals_total", &[&format!("reason=\"{reason}\"")])
    }

    fn all_refused(&self) -> f64 {
        self.router.metric("switchback_event_refusals_total", &[])
    }

    fn accepted(&self, labels: &[&str]) -> f64 {
        self.router.metric("switchback_events_total", labels)
    }

    /// A query and an event of somebody who does nothing wrong.
    fn assert_goes_on(&self) {
        assert!(http::raw(self.router.traffic, GET).unwrap().starts_with("HTTP/1.1 200"));
        let (status, said) = self.post(click(&self.issue()).as_bytes());
        assert_eq!((status, &said["accepted"], &said["counted"]), (202, &1.into(), &1.into()), "{said}");
    }
}

fn now() -> u32 {
    u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn text(keys: &TokenKeys, token: &Token) -> String {
    String::from_utf8(keys.issue(token).unwrap().to_vec()).unwrap()
}

fn click(token: &str) -> String {
    action("click", token, 3)
}

fn action(name: &str, token: &str, ordinal: u16) -> String {
    format!(
        "{{\"action_name\": \"{name}\", \"query_id\": \"{token}\", \"value\": 0.5, \"event_attributes\": {{\"position\": {{\"ordinal\": {ordinal}}}}}}}\n"
    )
}

fn post(address: SocketAddr, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let (status, body, _) = http::send(address, "POST", PATH, headers, body).unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

/// A body with its tokens in it.
fn with_tokens(body: &[u8], tokens: &[(&str, String)]) -> Vec<u8> {
    let mut rest = body;
    let mut whole = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        let found = tokens.iter().find(|(name, _)| after.starts_with(format!("{name}}}").as_bytes()) && *first == b'{');
        let Some((name, token)) = found else {
            whole.push(*first);
            rest = after;
            continue;
        };
        whole.extend(token.bytes());
        rest = &after[name.len() + 1..];
    }
    whole
}

#[test]
fn each_bad_event_is_refused_with_its_reason_is_counted_by_it_and_moves_no_metric() {
    let world = World::new("max_events = 20\nquality_actions = [\"quality\"]");
    let (search, token) = (world.keys("search"), world.token());
    let forged = TokenKeys::of("search", &[[9; 32]]);
    let used = text(&search, &world.token());
    let (_, said) = world.post([action("click", &used, 3), action("conversion", &used, 3)].concat().as_bytes());
    assert_eq!(said["counted"], 2, "{said}");
    let tokens = [
        ("GOOD", world.issue()),
        ("USED", used),
        ("FORGED", text(&forged, &token)),
        ("EXPIRED", text(&search, &Token { window: now() - 3_700, ..token })),
        ("EARLY", text(&search, &Token { window: now() + 60, ..token })),
        ("FOREIGN", text(&world.keys("shop"), &token)),
        ("UNCOUNTED", text(&search, &Token { is_counted: false, ..token })),
    ];
    let cases = Case::all(include_str!("events/cases.txt"));
    assert!(cases.len() >= 60, "{}", cases.len());
    let accepted = world.accepted(&[]);
    for case in cases {
        let name = format!("{} {}", case.verdict, case.name);
        let (status, times) = case.expected[0].split_once(' ').unwrap();
        let (before, all_before) = (world.refused(&case.verdict), world.all_refused());
        let (got, said) = world.post(&with_tokens(&case.bytes(), &tokens));
        assert_eq!(got.to_string(), status, "{name}: {said}");
        assert_eq!((&said["accepted"], said["refused"][&case.verdict].to_string()), (&0.into(), times.to_owned()), "{name}: {said}");
        let told = said["refusals"].as_array().unwrap();
        let tells = |told: &Value| told["reason"] == case.verdict.as_str() && told["event"].as_u64() > Some(0) && told["why"].is_string();
        assert!(told.iter().any(tells) || told.len() == 10, "{name}: {said}");
        assert_eq!(world.refused(&case.verdict) - before, times.parse::<f64>().unwrap(), "{name}");
        let all: u64 = said["refused"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(world.all_refused() - all_before, all as f64, "{name}: {said}");
        assert_eq!(world.accepted(&[]), accepted, "{name} moved a metric");
    }
    world.assert_goes_on();
    let (_, said) = world.post(click(&tokens[0].1).as_bytes());
    assert_eq!(said["counted"], 1, "a token that bad events named is as good as before: {said}");
    assert_eq!(world.blue.arrivals(), 1, "no event reached a backend");
}

#[test]
fn good_events_are_taken_in_every_form_and_a_token_counts_once() {
    let world = World::new("quality_actions = [\"rating\"]");
    let (one, other) = (world.issue(), world.issue());
    let lines = [action("click", &one, 3), action("click", &one, 4), action("impression", &one, 1), action("rating", &one, 1)].concat();
    let (status, said) = world.post(lines.as_bytes());
    assert_eq!((status, &said["accepted"], &said["counted"]), (202, &4.into(), &2.into()), "{said}");
    let array = format!("[{},{},{}]", action("add_to_cart", &one, 3), action("purchase", &one, 3), action("click", &other, 1));
    let (_, said) = world.post(array.as_bytes());
    assert_eq!((&said["accepted"], &said["counted"]), (&3.into(), &2.into()), "{said}");
    for (name, counted, events) in [
        ("click", true, 2.0),
        ("click", false, 1.0),
        ("impression", false, 1.0),
        ("quality", true, 1.0),
        ("add_to_cart", true, 1.0),
        ("purchase", false, 1.0),
    ] {
        let labels = [format!("action=\"{name}\""), format!("counted=\"{counted}\""), "route=\"search\"".to_owned()];
        assert_eq!(world.accepted(&labels.each_ref().map(String::as_str)), events, "{name} {counted}");
    }
    assert_eq!((world.all_refused(), world.router.metric("switchback_event_tokens_remembered", &[])), (0.0, 2.0));
}

#[test]
fn what_is_no_request_with_events_is_told_so() {
    let world = World::with(Setup::default().top("[events]\nmax_body = \"1KiB\"\n[limits]\nbody_idle_timeout = \"200ms\""));
    let refused = |reason: &str, status: u16, response: String| {
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")) && response.contains(&format!("\"{reason}\":1")), "{response}");
        assert_eq!(world.refused(reason), 1.0, "{reason}");
        response
    };
    let send = |head: &str, body: &str| {
        let mut stream = TcpStream::connect(world.router.traffic).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let _ = stream.write_all(format!("{head} {PATH} HTTP/1.1\r\nhost: a\r\n{body}").as_bytes());
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        response
    };
    let get = refused("method", 405, send("GET", "connection: close\r\n\r\n"));
    assert!(get.contains("allow: POST\r\n"), "{get}");
    refused("encoded", 415, send("POST", "content-encoding: gzip\r\ncontent-length: 9\r\n\r\n"));
    refused("too_large", 413, send("POST", "content-length: 1025\r\n\r\n"));
    let chunk = format!("401\r\n{}\r\n0\r\n\r\n", "a".repeat(0x401));
    let chunked = send("POST", &format!("transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunk}"));
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    refused("broken_off", 408, send("POST", "content-length: 9\r\n\r\n{"));
    let twice = send("POST", "content-length: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    assert!(twice.starts_with("HTTP/1.1 400") && !twice.contains("refused"), "held to what every request is held to: {twice}");
    world.assert_goes_on();
    assert_eq!(world.blue.arrivals(), 1);
}

#[test]
fn closed_to_the_public_it_is_there_for_whoever_may_read_on_the_admin_listener() {
    let world = World::new("public = false\npath = \"/ubi\"");
    let body = click(&world.issue());
    let (status, said, _) = http::send(world.router.traffic, "POST", "/ubi", &[], body.as_bytes()).unwrap();
    assert!(status == 404 && said.contains("\"closed\":1"), "{status} {said}");
    assert_eq!((world.refused("closed"), world.blue.arrivals()), (1.0, 0));
    let admin = |headers: &[(&str, &str)]| http::send(world.router.admin, "POST", "/ubi", headers, body.as_bytes()).unwrap();
    assert_eq!(admin(&[("authorization", "Bearer nobody-knows-this-token")]).0, 401);
    assert_eq!(world.accepted(&[]), 0.0);
    let (status, said, _) = admin(&[]);
    assert!(status == 202 && said.contains("\"counted\":1"), "{status} {said}");
    assert_eq!(http::get(world.router.admin, "/ubi").unwrap().0, 405);
    assert_eq!(http::send(world.router.admin, "POST", PATH, &[], b"{}").unwrap().0, 404);
    // A path that is not that of events is a query's.
    assert!(http::send(world.router.traffic, "POST", PATH, &[], b"{}").unwrap().0 == 200 && world.blue.arrivals() == 1);
}

#[test]
fn without_a_key_file_a_key_is_made_once_and_kept() {
    let (folder, blue) = (tempfile::tempdir().unwrap(), Backend::start("blue"));
    let world = |folder: &std::path::Path| {
        let router = Setup::default().pool("blue", &[&blue]).data_dir(folder).start();
        World { router, blue: Backend::start("other"), folder: tempfile::tempdir().unwrap(), issued: AtomicU64::new(1) }
    };
    let mut first = world(folder.path());
    let (token, other) = (first.issue(), first.issue());
    assert_eq!(first.post(click(&token).as_bytes()).1["counted"], 1);
    first.router.kill();
    let second = world(folder.path());
    assert_eq!(second.post(click(&other).as_bytes()).1["counted"], 1, "a token outlives the process that signed it");
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = world(elsewhere.path());
    assert_eq!(stranger.post(click(&other).as_bytes()).1["refused"]["forged_token"], 1);
}

#[test]
fn keys_and_limits_change_with_a_reload_and_repeats_stay_known() {
    let world = World::new("");
    let (old, clicked) = (world.issue(), world.issue());
    assert_eq!(world.post(click(&clicked).as_bytes()).1["counted"], 1);
    let new = world.folder.path().join("new.key");
    std::fs::write(&new, KEY.to_uppercase()).unwrap();
    let rewrite = |change: &dyn Fn(String) -> String| {
        let text = change(std::fs::read_to_string(world.router.config()).unwrap());
        std::fs::write(world.router.config(), text).unwrap();
        let (status, said) = world.router.admin("POST", "/api/v1/reload", b"");
        assert_eq!(status, 200, "{said}");
    };
    rewrite(&|text| text.replace("key_files = [", &format!("key_files = [{new:?}, ")));
    let by_new = world.issue();
    let (_, said) = world.post([click(&clicked), click(&old), click(&by_new)].concat().as_bytes());
    assert_eq!((&said["counted"], &said["refused"]["repeated"]), (&2.into(), &1.into()), "{said}");
    let old_key = world.folder.path().join("token.key");
    rewrite(&|text| text.replace(&format!(", {old_key:?}"), "").replace("[events]", "[events]\nmax_events = 2"));
    let later = text(&TokenKeys::of("search", &[[0; 32]]), &world.token());
    let (_, said) = world.post([click(&old), click(&later), click(&later)].concat().as_bytes());
    assert_eq!((&said["refused"]["forged_token"], &said["refused"]["too_many"]), (&2.into(), &1.into()), "{said}");
}

#[test]
fn over_the_rate_events_are_refused_and_told_to_come_again() {
    let world = World::new("rate_per_address = 5\nburst_per_address = 10");
    let body: String = (0..15).map(|_| click(&world.issue())).collect();
    let (status, said) = world.post(body.as_bytes());
    let accepted = said["accepted"].as_u64().unwrap();
    assert!(status == 202 && (10..15).contains(&accepted) && said["refused"]["rate_limited"] == 15 - accepted, "{said}");
    let request = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
    let limited = eventually("429", SOON, || {
        let response = http::raw(world.router.traffic, &request).unwrap();
        response.starts_with("HTTP/1.1 429").then_some(response)
    });
    assert!(limited.contains("retry-after: 1\r\n"), "{limited}");
    let admitted = || http::raw(world.router.traffic, &request).unwrap().starts_with("HTTP/1.1 202").then_some(());
    eventually("there is room again", SOON, admitted);
}

#[test]
fn the_memory_of_repeats_is_bounded_and_what_cannot_be_remembered_is_not_counted() {
    let world = World::new("repeat_memory = \"1MiB\"\nmax_body = \"2MiB\"\nmax_events = 10000\nrate_per_address = 100000");
    let keys = world.keys("search");
    let tokens: Vec<String> = (0..5_000).map(|_| text(&keys, &world.token())).collect();
    let body: String = tokens.iter().map(|token| click(token)).collect();
    let (_, said) = world.post(body.as_bytes());
    assert_eq!((&said["counted"], &said["refused"]["memory_full"]), (&4_096.into(), &904.into()), "{said}");
    let (_, said) = world.post([click(&tokens[0]), action("click", &tokens[0], 4), click(&tokens[4_999])].concat().as_bytes());
    assert_eq!(
        (&said["accepted"], &said["refused"]["repeated"], &said["refused"]["memory_full"]),
        (&1.into(), &1.into(), &1.into()),
        "{said}"
    );
}

/// The examples of the page, each a program of its own.
fn examples() -> Vec<(&'static str, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/QUALITY.md")).unwrap();
    let block = |kind: &str| page.split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap().to_owned();
    vec![("sh", block("sh")), ("js", block("js")), ("python", block("python"))]
}

#[test]
fn the_examples_in_the_docs_do_what_they_say() {
    let world = World::new("");
    for (kind, program) in examples() {
        let program = program.replace("TOKEN", &world.issue()).replace("127.0.0.1:8080", &world.router.traffic.to_string());
        let file = world.folder.path().join(if kind == "js" { "example.mjs" } else { "example" });
        std::fs::write(&file, &program).unwrap();
        let runner = match kind {
            "sh" => "sh",
            "js" => "node",
            _ => "python3",
        };
        let output = std::process::Command::new(runner).arg(&file).output().unwrap_or_else(|error| panic!("{runner} is needed: {error}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{kind}: {error}: {said}"));
        let events = if kind == "python" { 2 } else { 1 };
        assert_eq!(
            (&said["accepted"], &said["counted"], &said["refusals"]),
            (&events.into(), &events.into(), &Value::Array(vec![])),
            "{kind}"
        );
    }
    assert_eq!(world.all_refused(), 0.0);
}

#[test]
fn events_come_over_http2_and_a_trusted_proxy_speaks_for_their_senders() {
    let world = World::with(
        Setup::default().listen("trusted_proxies = [\"127.0.0.1\"]").top("[events]\nrate_per_address = 1\nburst_per_address = 1"),
    );
    let body = click(&world.issue());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, said) = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(world.router.traffic).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = ::http::Request::post(format!("http://search.test{PATH}")).header("x-forwarded-for", "192.0.2.1").body(()).unwrap();
        let (response, mut stream) = sender.ready().await.unwrap().send_request(request, false).unwrap();
        stream.send_data(bytes::Bytes::from(body), true).unwrap();
        let response = response.await.unwrap();
        let status = response.status().as_u16();
        let piece = response.into_body().data().await.unwrap().unwrap();
        (status, serde_json::from_slice::<Value>(&piece).unwrap())
    });
    assert_eq!((status, &said["counted"]), (202, &1.into()), "{said}");
    let from = |address: &str| post(world.router.traffic, &[("x-forwarded-for", address)], click(&world.issue()).as_bytes()).0;
    // Each has a limit of its own: with one for all of them, all but the first would be refused.
    let statuses: Vec<u16> = (2..22).map(|last| from(&format!("192.0.2.{last}"))).collect();
    assert_eq!(statuses, [202; 20]);
    assert_eq!(world.accepted(&["counted=\"true\""]), 21.0);
}
