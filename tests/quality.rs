//! The promise: what is counted is what happened, to the query, in the window in which it happened, whoever asks, and whatever an operator does meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use serde_json::Value;
use switchback_tests::{Act, Backend, Behaviour, Load, Router, Scripted, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(20);
const CANARY: &str = "initial = { live = \"blue\", canary_percent = \"30\" }\nexpose = [\"pool\"]";

fn quality(router: &Router) -> Value {
    let (status, body) = http::get(router.admin, "/api/v1/routes/search/quality").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// One number of a version's totals; 0 where nothing was counted.
fn total(quality: &Value, pool: &str, what: &str) -> u64 {
    let mine = quality["totals"].as_array().unwrap().iter().find(|counts| counts["pool"] == pool);
    mine.map_or(0, |counts| counts[what].as_u64().unwrap())
}

fn total_requests(quality: &Value) -> u64 {
    quality["totals"].as_array().unwrap().iter().map(|counts| counts["requests"].as_u64().unwrap()).sum()
}

#[test]
fn totals_are_the_load_generators_own_books() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let setup = || Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).workers(2).route(CANARY);
    let router = setup().start();
    let load = Load::new(router.traffic, 800).start();
    load.wait_for(800);
    // Counting goes on in another config's counters.
    router.reload(&setup().top("[limits]\nheaders = 77"));
    load.wait_for(2_000);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    let counted =
        eventually("every query is in a window", SOON, || Some(quality(&router)).filter(|now| total_requests(now) >= report.sent));
    for pool in ["blue", "canary"] {
        assert_eq!(total(&counted, pool, "requests"), report.by_pool[pool], "{pool}: {counted:#}");
        assert_eq!(total(&counted, pool, "errors") + total(&counted, pool, "timeouts"), 0);
    }
    assert_eq!(counted["late"], 0);
    // Each window has its own, and together they are all.
    let windows = counted["windows"].as_array().unwrap();
    assert!(windows.len() >= 3, "{counted:#}");
    let in_windows =
        windows.iter().flat_map(|window| window["versions"].as_array().unwrap()).map(|counts| counts["requests"].as_u64().unwrap());
    assert_eq!(in_windows.sum::<u64>(), report.sent);
    let seconds: Vec<u64> = windows.iter().map(|window| window["unix_seconds"].as_u64().unwrap()).collect();
    assert!(seconds.windows(2).all(|pair| pair[0] == pair[1] + 1), "newest first, without gaps: {seconds:?}");
}

/// What a candidate did wrong is the candidate's, also where the live pool answered in its place; what a client did is nobody's.
#[test]
fn blame_is_counted_where_it_belongs() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let route =
        "initial = { live = \"blue\", canary_percent = \"100\" }\ntimeouts = { attempt = \"300ms\" }\nreplayable_methods = [\"GET\"]";
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(route).start();
    let ask = |times: u32| (0..times).for_each(|_| assert_eq!(http::get(router.traffic, "/rank").unwrap().0, 200));
    let is = |pool: &str, expected: [u64; 3]| {
        eventually(&format!("{pool} has {expected:?}"), SOON, || {
            let now = quality(&router);
            (["requests", "errors", "timeouts"].map(|what| total(&now, pool, what)) == expected).then_some(())
        });
    };
    ask(4);
    is("canary", [4, 0, 0]);
    canary.behave(Behaviour::Status(503));
    ask(3);
    is("canary", [7, 3, 0]);
    canary.behave(Behaviour::Hang);
    ask(2);
    is("canary", [9, 3, 2]);
    let shown = quality(&router);
    let slowest = shown["totals"][0]["latency_ms"]["p99"].as_f64().unwrap();
    assert!((300.0..400.0).contains(&slowest), "a call that hangs is as slow as it was waited for: {shown:#}");
    assert_eq!(total(&shown, "blue", "requests"), 0, "fallback answers count for neither");
    // A client that goes away before its answer is nobody's failure.
    let client = std::net::TcpStream::connect(router.traffic).unwrap();
    let before = canary.arrivals();
    std::io::Write::write_all(&mut &client, b"GET /rank HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it is under way", SOON, || (canary.arrivals() > before).then_some(()));
    drop(client);
    eventually("it is given up", SOON, || {
        let aborts = router.metric("switchback_requests_total", &["code=\"client_abort\""]);
        (aborts == 1.0).then_some(())
    });
    canary.behave(Behaviour::Answer);
    ask(1);
    is("canary", [10, 3, 2]);
}

/// What backends say of their responses in fields of their heads is counted, passes, and makes no harm where it makes no sense.
#[test]
fn what_a_backend_says_of_its_responses_is_counted() {
    const SAID: [&str; 6] = [
        "HTTP/1.1 200 OK\r\nx-quality-score: 0.5\r\nx-quality-results: 3\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Quality-Score: 1\r\nX-Quality-Results: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-quality-results: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-quality-score: 1.5\r\nx-quality-results: many\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-quality-score: 1\r\nx-quality-score: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ];
    let backend = Scripted::start(|number| Act::Say(SAID[number]));
    let router = Setup::default().pool_at("blue", backend.address).start();
    let raw = || http::raw(router.traffic, "GET /rank HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let answers: Vec<String> = SAID.iter().map(|_| raw()).collect();
    assert!(answers[0].contains("x-quality-score: 0.5") && answers[3].contains("x-quality-results: many"), "they pass: {answers:#?}");
    let counted = eventually("all are counted", SOON, || Some(quality(&router)).filter(|now| total_requests(now) == SAID.len() as u64));
    let blue = &counted["totals"][0];
    assert_eq!((&blue["quality"]["seen"], &blue["quality"]["mean"]), (&2.into(), &0.75.into()), "{blue:#}");
    assert_eq!((&blue["zero_results"]["seen"], &blue["zero_results"]["of_them"]), (&3.into(), &2.into()), "{blue:#}");
    let faults = |reason: &str| router.metric("switchback_signal_faults_total", &[&format!("reason=\"{reason}\"")]);
    assert_eq!(["no_number", "out_of_range", "repeated"].map(faults), [1.0; 3]);
    let mean = |metric: &str| router.metric("switchback_quality_mean", &["pool=\"blue\"", &format!("metric=\"{metric}\"")]);
    assert_eq!((mean("quality"), mean("errors")), (0.75, 0.0));
    assert_eq!(router.metric("switchback_quality_observations", &["metric=\"zero_results\""]), 3.0);
}

/// Asks, and answers the pool and the token.
fn ask_for_token(router: &Router, user: u32) -> (String, String) {
    let request = format!("GET /rank HTTP/1.1\r\nhost: a\r\nx-user-id: user{user}\r\nconnection: close\r\n\r\n");
    let answer = http::raw(router.traffic, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let field = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {answer}"));
        line.to_owned()
    };
    (field("x-switchback-pool: "), field("x-switchback-token: "))
}

/// A click comes back with the token of its response, and is counted for the model that answered, in the window of the response.
#[test]
fn clicks_are_counted_for_the_model_that_answered() {
    const QUERIES: u32 = 200;
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).workers(2).route(CANARY).start();
    let asked: Vec<(String, String)> = (0..QUERIES).map(|user| ask_for_token(&router, user)).collect();
    let tokens: std::collections::BTreeSet<&String> = asked.iter().map(|(_, token)| token).collect();
    assert_eq!(tokens.len(), asked.len(), "no two are the same");
    // Every third is clicked, some twice and at two places.
    let clicked: Vec<&(String, String)> = asked.iter().step_by(3).collect();
    for (number, (_, token)) in clicked.iter().enumerate() {
        for position in [1, 2].into_iter().take(1 + number % 2).chain([1]) {
            let body = serde_json::json!({
                "action_name": "click", "query_id": token, "timestamp": "2026-01-01T00:00:00Z",
                "event_attributes": { "position": { "ordinal": position } },
            })
            .to_string();
            let post = format!(
                "POST /_switchback/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = http::raw(router.traffic, &post).unwrap();
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }
    }
    let of = |pool: &str, all: &mut dyn Iterator<Item = &(String, String)>| all.filter(|(answered, _)| answered == pool).count() as u64;
    let expected = ["blue", "canary"].map(|pool| (of(pool, &mut asked.iter()), of(pool, &mut clicked.iter().copied())));
    let counted = || {
        let now = quality(&router);
        ["blue", "canary"].map(|pool| (total(&now, pool, "impressions"), total(&now, pool, "clicks")))
    };
    eventually("they are counted", SOON, || (counted() == expected).then_some(()));
    assert!(expected.iter().all(|(seen, clicked)| *clicked > 5 && seen > clicked), "{expected:?}");
    let rate = router.metric("switchback_quality_mean", &["pool=\"canary\"", "metric=\"clicks\""]);
    assert!((rate - expected[1].1 as f64 / expected[1].0 as f64).abs() < 1e-6, "{rate} of {expected:?}");
}
