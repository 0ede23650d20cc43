//! The promise: rules send queries to a named pool by what they bring with them; a flag turns a rule on and off within milliseconds; and
//! a rule that makes no sense is refused before a port is bound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Load, Router, Setup, eventually, http};

const KEY: &str = "{switchback:search}:flags";
const SOON: Duration = Duration::from_secs(10);
const RULES: &str = r#"
split_policy = "split-rules"
[route.split_config]
locale = ["cookie:lang", "header:accept-language"]
[[route.split_config.rules]]
name = "semantic"
flag = "semantic"
when = [{ field = "header:x-beta", equals = "1" }]
pool = "semantic"
[[route.split_config.rules]]
name = "images"
when = [{ field = "path", prefix = "/images/" }, { field = "query:size", one_of = ["l", "xl"] }]
pool = "green"
[[route.split_config.rules]]
name = "group"
when = [{ field = "cookie:group", equals = "b" }]
pool = "green"
[[route.split_config.rules]]
name = "german"
when = [{ field = "locale", equals = "de" }]
pool = "semantic"
"#;

fn setup(backends: &[Backend; 3]) -> Setup {
    Setup::default().pool("blue", &[&backends[0]]).pool("green", &[&backends[1]]).pool("semantic", &[&backends[2]]).route(RULES)
}

fn backends() -> [Backend; 3] {
    ["blue", "green", "semantic"].map(Backend::start)
}

fn pool_of(router: &Router, path: &str, headers: &[(&str, &str)]) -> String {
    let (status, _, pool) = http::send(router.traffic, "GET", path, headers, b"").unwrap();
    assert_eq!(status, 200);
    pool
}

#[test]
fn each_kind_of_rule_sends_its_queries_to_its_pool() {
    let backends = backends();
    let router = setup(&backends).start();
    assert_eq!(router.route()["policies"][0]["name"], "split-rules");
    assert_eq!(router.route()["policies"][0]["in_force"]["source"], "shipped");
    let pool = |path: &str, headers: &[(&str, &str)]| pool_of(&router, path, headers);
    assert_eq!(pool("/rank", &[]), "blue");
    assert_eq!(pool("/rank", &[("x-beta", "1")]), "blue", "its flag is off");
    assert_eq!(pool("/images/cats?size=xl", &[]), "green");
    assert_eq!(pool("/images/cats?size=s", &[]), "blue", "both conditions must hold");
    assert_eq!(pool("/rank?size=xl", &[]), "blue");
    assert_eq!(pool("/rank", &[("cookie", "a=1; group=b")]), "green");
    assert_eq!(pool("/rank", &[("accept-language", "de-AT,en;q=0.8")]), "semantic");
    assert_eq!(pool("/rank", &[("accept-language", "en,de;q=0.8")]), "blue");
    assert_eq!(pool("/rank", &[("accept-language", "de"), ("cookie", "lang=en")]), "blue", "the cookie comes first");
    router.set_flags(&["flag.semantic=on"]);
    assert_eq!(pool("/rank", &[("x-beta", "1")]), "semantic");
    assert_eq!(pool("/rank", &[("x-beta", "1"), ("cookie", "group=b")]), "semantic", "the first rule wins");
    router.set_flags(&["pin=green"]);
    assert_eq!(pool("/rank", &[("x-beta", "1")]), "green", "a pin comes before any rule");
}

/// From a write to the last query on the pool that should get none any more.
fn last_arrival_after(written: Instant, old: &Backend, new: &Backend) -> Duration {
    let (old_before, new_before) = (old.arrivals(), new.arrivals());
    eventually("the other pool gets queries", SOON, || (new.arrivals() > new_before + 50).then_some(()));
    let mut seen = (old.arrivals(), Instant::now());
    eventually("the old pool gets no more queries", SOON, || {
        if old.arrivals() != seen.0 {
            seen = (old.arrivals(), Instant::now());
        }
        (seen.1.elapsed() > Duration::from_millis(300)).then_some(())
    });
    if old.arrivals() == old_before { Duration::ZERO } else { old.last_arrival().saturating_duration_since(written) }
}

#[test]
fn a_flag_moves_matching_queries_and_no_others_within_milliseconds() {
    let backends = backends();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(RedisServer::start()).unwrap();
    let router = setup(&backends).workers(2).redis(&redis.url()).start();
    let mut connection = runtime.block_on(redis.connection()).unwrap();
    let beta = Load { headers: vec![("x-beta", "1")], ..Load::new(router.traffic, 500) }.start();
    beta.wait_for(200);
    let [blue, _, semantic] = &backends;
    let mut times = Vec::new();
    for flip in 0..20 {
        let (value, old, new) = if flip % 2 == 0 { ("on", blue, semantic) } else { ("off", semantic, blue) };
        let written = Instant::now();
        let mut write = redis::cmd("HSET");
        write.arg(KEY).arg("flag.semantic").arg(value);
        runtime.block_on(write.exec_async(&mut connection)).unwrap();
        times.push(last_arrival_after(written, old, new));
    }
    assert_eq!(beta.stop().failures(), 0);
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("flag.semantic: {} changes, last query on the old pool after: median {median:?}, worst {worst:?}", times.len());
    assert!(median < Duration::from_millis(50) && worst < Duration::from_millis(250), "{times:?}");

    redis.cli(&["HSET", KEY, "flag.semantic", "on"]).unwrap();
    eventually("the flag is on", SOON, || (router.route()["flags"]["semantic"] == "on").then_some(()));
    let plain = Load::new(router.traffic, 500).start();
    plain.wait_for(500);
    let report = plain.stop();
    assert_eq!((report.failures(), report.by_pool.len()), (0, 1), "queries without the header stay on blue: {report:?}");
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_before_a_port_is_bound() {
    let backend = Backend::start("blue");
    let with = |rule: &str| {
        let rules = format!("split_policy = \"split-rules\"\n[route.split_config]\nrules = [\n  {rule},\n]\n");
        let (code, said) = Setup::default().pool("blue", &[&backend]).route(&rules).fails();
        assert_eq!(code, 64, "{said}");
        said
    };
    let said = with(r#"{ name = "beta", pool = "gren", flag = "beta" }"#);
    let problem = said.lines().find(|line| line.contains("route.search.split_config.rules.beta.pool")).unwrap_or_else(|| panic!("{said}"));
    assert!(problem.contains(" = \"gren\": must be one of the route's pools: blue"), "{problem}");
    assert!(problem.split(':').nth(1).is_some_and(|line| line.parse::<u32>().is_ok()), "it names the line: {problem}");
    let said = with(r#"{ name = "beta", pool = "blue", when = [{ field = "header:x", equal = "1" }] }"#);
    assert!(said.contains("rules.beta.when[0].equal = \"1\": unknown key; allowed are field, equals, one_of, prefix, present"), "{said}");
    assert!(said.contains("must have exactly one of equals, one_of, prefix and present"), "all problems at once: {said}");
}
