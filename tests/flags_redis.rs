//! Flags against a real redis-server: what people write is obeyed at once, adopted once, and survives the ways in which a Redis goes away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use switchback::config::{self, Config};
use switchback::flags::{Change, ChangeError, FlagStore, Flags, Kind, Source, seal};
use switchback::vocabulary::{PoolIndex, RouteIndex};
use switchback_tests::redis::RedisServer;
use tokio::time::Instant;

const SEARCH: RouteIndex = RouteIndex(0);
const ADS: RouteIndex = RouteIndex(1);
const FLAGS: &str = "{switchback:search}:flags";
const BLUE: PoolIndex = PoolIndex(0);
const GREEN: PoolIndex = PoolIndex(1);

fn config(url: &str, data_dir: &Path, id: &str) -> Arc<Config> {
    let pools = |route: &str| {
        format!(
            "[[route]]\nname = \"{route}\"\nmatch = {{ path_prefix = \"/{route}\" }}\nunit = [\"client-address\"]\n\
             [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n[route.pools.green]\nendpoints = [\"http://127.0.0.1:1\"]\n\
             [route.pools.canary]\nendpoints = [\"http://127.0.0.1:1\"]\n"
        )
    };
    let text = format!(
        "[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[state]\n{url}data_dir = {data_dir:?}\nrouter_id = \"{id}\"\n\
         heartbeat_interval = \"100ms\"\nrouter_timeout = \"1s\"\n{}{}",
        pools("search"),
        pools("ads")
    );
    Arc::new(config::parse("test.toml", &text).unwrap())
}

/// A router's flag store with a data folder of its own.
struct Router {
    store: Arc<FlagStore>,
    folder: tempfile::TempDir,
    url: String,
    id: String,
}

impl Router {
    async fn open(server: &RedisServer, id: &str) -> Router {
        Router::at(&server.url(), id, tempfile::tempdir().unwrap()).await
    }

    async fn at(url: &str, id: &str, folder: tempfile::TempDir) -> Router {
        let line = format!("url = {url:?}\n");
        let store = FlagStore::open(&config(&line, folder.path(), id)).await.unwrap();
        Router { store, folder, url: url.to_owned(), id: id.to_owned() }
    }

    /// The same router as a new process would start: same id, same data folder.
    async fn restart(self) -> Router {
        let Router { store, folder, url, id } = self;
        drop(store);
        Router::at(&url, &id, folder).await
    }

    fn flags(&self) -> Arc<Flags> {
        self.store.view(SEARCH).flags
    }

    fn is_sealed(&self) -> bool {
        !self.flags().seal.is_empty()
    }
}

async fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

const SOON: Duration = Duration::from_secs(5);

fn change(pairs: &[(&str, Option<&str>)], expected_epoch: Option<u64>) -> Change {
    let fields = pairs.iter().map(|(field, value)| ((*field).to_owned(), value.map(str::to_owned))).collect();
    Change { fields, expected_epoch, who: "alice".to_owned(), why: "a test".to_owned() }
}

async fn hset(connection: &mut MultiplexedConnection, pairs: &[(&str, &str)]) {
    let () = connection.hset_multiple(FLAGS, pairs).await.unwrap();
}

async fn stored(connection: &mut MultiplexedConnection) -> BTreeMap<String, String> {
    connection.hgetall(FLAGS).await.unwrap()
}

#[tokio::test]
async fn a_bare_hset_is_obeyed_within_milliseconds() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    assert_eq!(router.store.view(SEARCH).source, Source::Redis);
    let mut connection = server.connection().await.unwrap();
    let mut watch = router.store.watch(SEARCH);
    let mut took = Vec::new();
    for round in 0..40 {
        let (name, pool) = if round % 2 == 0 { ("green", GREEN) } else { ("blue", BLUE) };
        let start = Instant::now();
        hset(&mut connection, &[("live", name)]).await;
        tokio::time::timeout(SOON, watch.wait_for(|flags| flags.live == pool)).await.unwrap().unwrap();
        took.push(start.elapsed());
    }
    took.sort();
    println!("HSET to obeyed: median {:?}, worst {:?}", took[20], took[39]);
    assert!(took[20] < Duration::from_millis(50), "median {:?}", took[20]);
    assert!(took[39] < Duration::from_millis(250), "worst {:?}", took[39]);
}

#[tokio::test]
async fn redis_cli_flips_live_and_takes_everybody_off_the_candidate() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let pairs = [("canary_percent", Some("25")), ("holdback_pool", Some("green")), ("holdback_percent", Some("5"))];
    router.store.change(SEARCH, change(&pairs, None)).await.unwrap();
    assert_eq!(router.flags().candidate.share.percent(), 25.0);
    assert_eq!(server.cli(&["HSET", "{switchback:search}:flags", "live", "green"]).unwrap(), "0");
    eventually("green is live", SOON, || router.flags().live == GREEN).await;
    assert_eq!(router.flags().candidate.share.get(), 0, "the flip and the zeroes are obeyed in one step");
    eventually("adopted", SOON, || router.is_sealed()).await;
    let hash = stored(&mut server.connection().await.unwrap()).await;
    assert_eq!((hash["canary_percent"].as_str(), hash["holdback_percent"].as_str()), ("0", "0"));
}

#[tokio::test]
async fn an_edit_by_hand_is_adopted_once_by_one_of_two_routers() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    let mut connection = server.connection().await.unwrap();
    let first = one.flags().epoch;
    for round in 0..50u64 {
        let percent = (round % 20 + 1).to_string();
        hset(&mut connection, &[("canary_percent", &percent)]).await;
        for router in [&one, &other] {
            eventually("adopted by one, heard by both", SOON, || router.flags().epoch == first + round + 1 && router.is_sealed()).await;
            assert_eq!(router.flags().candidate.share.to_string(), percent);
        }
        assert_eq!(one.flags().seal, other.flags().seal);
    }
    let history = other.store.history(SEARCH, 1_000).await.unwrap();
    let edits: Vec<_> = history.iter().filter(|entry| entry.kind == Kind::ExternalEdit).collect();
    assert_eq!(edits.len(), 50, "each edit once");
    let newest = edits[0];
    assert_eq!((newest.who.as_str(), newest.why.as_str(), newest.epoch), ("external", "external edit", first + 50));
    assert!(newest.time_ms > 1_600_000_000_000);
    let what: Vec<_> = newest.what.iter().map(|change| (change.field.as_str(), change.old.as_deref(), change.new.as_deref())).collect();
    assert_eq!(what, [("canary_percent", Some("9"), Some("10"))]);
    let hash = stored(&mut connection).await;
    assert_eq!(hash["seal"], seal(&hash), "the hash is sealed again");
}

#[tokio::test]
async fn a_compare_and_set_from_before_an_edit_is_refused() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    for round in 0..20 {
        let read_at = router.flags().epoch;
        let live = if round % 2 == 0 { "green" } else { "blue" };
        hset(&mut connection, &[("live", live)]).await;
        // No waiting: the router may or may not have heard of the edit when the change arrives.
        let refused = router.store.change(SEARCH, change(&[("canary_percent", Some("50"))], Some(read_at))).await;
        assert!(
            matches!(refused, Err(ChangeError::Conflict { expected, found }) if expected == read_at && found == read_at + 1),
            "{refused:?}"
        );
        let flags = router.flags();
        assert_eq!((flags.live == GREEN, flags.candidate.share.get(), flags.epoch), (live == "green", 0, read_at + 1));
    }
    let epoch = router.flags().epoch;
    let done = router.store.change(SEARCH, change(&[("canary_percent", Some("50"))], Some(epoch))).await.unwrap();
    assert_eq!((done, router.flags().epoch), (epoch + 1, epoch + 1));
}

#[tokio::test]
async fn garbage_in_one_field_does_not_hold_up_another() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    router.store.change(SEARCH, change(&[("canary_percent", Some("25"))], None)).await.unwrap();
    let garbage: [(&str, &[u8]); 4] =
        [("canary_percent", b"lots"), ("experiments", b"{"), ("split_policy", b"\xff\xfe"), ("epoch", b"yesterday")];
    let () = connection.hset_multiple(FLAGS, &garbage).await.unwrap();
    let () = connection.hset(FLAGS, "freeze", "true").await.unwrap();
    eventually("freeze is obeyed", SOON, || router.flags().is_frozen && router.is_sealed()).await;
    assert_eq!(router.flags().candidate.share.percent(), 25.0, "the last good value");
    let faults: Vec<String> = router.store.view(SEARCH).faults.into_iter().map(|fault| fault.field).collect();
    assert_eq!(faults, ["canary_percent", "split_policy", "experiments"]);
    hset(&mut connection, &[("pin", "green")]).await;
    eventually("pin is obeyed", SOON, || router.flags().pin == Some(GREEN)).await;
    let epoch = router.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    assert_eq!((router.flags().live, router.flags().epoch), (GREEN, epoch));
    let refused = router.store.change(SEARCH, change(&[("canary_percent", Some("lots")), ("liv", Some("x"))], None)).await;
    let Err(ChangeError::Invalid(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[tokio::test]
async fn everybody_writing_at_once_leaves_one_truth() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    let by_hand = async {
        let mut connection = server.connection().await.unwrap();
        for round in 0..60 {
            hset(&mut connection, &[("flag.by-hand", &round.to_string())]).await;
        }
    };
    let by_api = |router: &Router, field: &'static str| {
        let store = router.store.clone();
        async move {
            for round in 0..60 {
                let value = round.to_string();
                store.change(SEARCH, change(&[(field, Some(&value))], None)).await.unwrap();
            }
        }
    };
    tokio::join!(by_hand, by_api(&one, "flag.one"), by_api(&other, "flag.other"));
    let last = |router: &Router| {
        let flags = router.flags();
        ["by-hand", "one", "other"].iter().all(|name| flags.features.get(*name).is_some_and(|value| value == "59")) && router.is_sealed()
    };
    eventually("nothing was lost", SOON, || last(&one) && last(&other) && one.flags() == other.flags()).await;
    let mut epochs: Vec<u64> = one.store.history(SEARCH, 10_000).await.unwrap().iter().map(|entry| entry.epoch).collect();
    epochs.reverse();
    let all: Vec<u64> = (1..=one.flags().epoch).collect();
    assert_eq!(epochs, all, "every epoch was made once and is in the ledger");
}

#[tokio::test]
async fn the_seal_is_the_same_in_redis_and_here() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    // Names that a locale would sort otherwise than bytes do.
    let names = ["flag.B", "flag.a", "flag.a_b", "flag.a-b", "flag.A", "flag.a.b", "flag.~", "flag.é"];
    for round in 0..20 {
        let value = "é\u{1}: \"".repeat(round);
        let pairs: Vec<_> = names.iter().map(|name| (*name, Some(value.as_str()))).collect();
        let done = router.store.change(SEARCH, change(&pairs[..names.len() - 1], None)).await;
        assert!(done.is_ok(), "{done:?}");
        let hash = stored(&mut server.connection().await.unwrap()).await;
        assert_eq!(hash["seal"], seal(&hash));
        assert_eq!(router.flags().seal, hash["seal"]);
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_gets_the_last_flags_back() {
    let mut server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    one.store.change(SEARCH, change(&[("live", Some("green")), ("canary_percent", Some("10"))], None)).await.unwrap();
    eventually("both heard", SOON, || other.flags().live == GREEN).await;
    let before = one.flags();
    server.kill().unwrap();
    eventually("age grows", SOON, || one.store.age() > Duration::from_millis(300)).await;
    let refused = one.store.change(SEARCH, change(&[("freeze", Some("true"))], None)).await;
    assert!(matches!(refused, Err(ChangeError::Unreachable { .. })), "{refused:?}");
    assert_eq!(one.flags(), before, "the last flags hold");
    server.restart_empty().await.unwrap();
    let is_back = |router: &Router| router.store.age() < Duration::from_millis(300) && router.flags().epoch > before.epoch;
    let took = eventually("recovered", Duration::from_secs(2), || is_back(&one) && is_back(&other)).await;
    println!("recovered {took:?} after an empty return");
    assert_eq!(one.flags().epoch, before.epoch + 1, "written back once");
    for router in [&one, &other] {
        assert_eq!((router.flags().live, router.flags().candidate.share.percent()), (GREEN, 10.0));
        assert_eq!(router.flags().salt, before.salt, "the same units stay on the candidate");
    }
    let hash = stored(&mut server.connection().await.unwrap()).await;
    assert_eq!((hash["live"].as_str(), &hash["epoch"], &hash["seal"]), ("green", &(before.epoch + 1).to_string(), &seal(&hash)));
    let history = one.store.history(SEARCH, 10).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [Kind::Reseed]);
}

#[tokio::test]
async fn a_redis_that_comes_back_older_never_takes_a_router_back() {
    let mut server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    let old = server.dump().await.unwrap();
    for percent in ["1", "5", "25"] {
        one.store.change(SEARCH, change(&[("live", Some("green")), ("canary_percent", Some(percent))], None)).await.unwrap();
    }
    let before = one.flags();
    eventually("both heard", SOON, || other.flags() == before).await;
    let mut watches = [one.store.watch(SEARCH), other.store.watch(SEARCH)];
    server.restart_with(&old).await.unwrap();
    let took =
        eventually("recovered", Duration::from_secs(2), || one.flags().epoch > before.epoch && other.flags().epoch > before.epoch).await;
    println!("recovered {took:?} after an older return");
    for (router, watch) in [&one, &other].into_iter().zip(&mut watches) {
        assert_eq!((router.flags().live, router.flags().candidate.share.percent()), (GREEN, 25.0));
        assert!(watch.borrow_and_update().epoch > before.epoch);
    }
    assert_eq!(stored(&mut server.connection().await.unwrap()).await["canary_percent"], "25");
}

#[tokio::test]
async fn a_flip_on_a_redis_that_came_back_older_counts_and_nothing_else_goes_back() {
    let mut server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "one").await;
    let old = server.dump().await.unwrap();
    router.store.change(SEARCH, change(&[("live", Some("green")), ("canary_percent", Some("25"))], None)).await.unwrap();
    let before = router.flags();
    server.kill().unwrap();
    // Somebody edits the restored server before any router has seen it.
    let mut restored = RedisServer::start().await.unwrap();
    restored.restart_with(&old).await.unwrap();
    hset(&mut restored.connection().await.unwrap(), &[("freeze", "true")]).await;
    let edited = restored.dump().await.unwrap();
    server.restart_with(&edited).await.unwrap();
    eventually("the edit is adopted", SOON, || router.flags().is_frozen && router.flags().epoch > before.epoch).await;
    let flags = router.flags();
    assert_eq!((flags.live, flags.candidate.share.percent()), (GREEN, 25.0), "the rest stays as it was applied");
}

#[tokio::test]
async fn a_paused_redis_is_noticed_and_heard_again_at_once() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    let before = router.flags();
    server.pause().unwrap();
    let start = Instant::now();
    let refused = router.store.change(SEARCH, change(&[("freeze", Some("true"))], None)).await;
    assert!(matches!(refused, Err(ChangeError::Unanswered { .. } | ChangeError::Unreachable { .. })), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "a change never hangs");
    eventually("age grows", SOON, || router.store.age() > Duration::from_millis(2_500)).await;
    assert_eq!(router.flags(), before);
    server.resume().unwrap();
    let took = eventually("heard", Duration::from_secs(2), || router.store.age() < Duration::from_millis(500)).await;
    println!("heard {took:?} after a pause");
    hset(&mut connection, &[("live", "green")]).await;
    eventually("obeyed", Duration::from_millis(500), || router.flags().live == GREEN).await;
}

#[tokio::test]
async fn a_router_that_starts_without_redis_serves_its_copy_with_nobody_on_the_candidate() {
    let mut server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    router.store.change(SEARCH, change(&[("live", Some("green")), ("canary_percent", Some("25"))], None)).await.unwrap();
    let before = router.flags();
    let copy = router.folder.path().join("flags/search.json");
    let is_copied = || std::fs::read_to_string(&copy).is_ok_and(|text| text.contains(&before.seal));
    eventually("the copy is on disk", SOON, is_copied).await;
    let dump = server.dump().await.unwrap();
    server.kill().unwrap();

    let start = Instant::now();
    let router = router.restart().await;
    assert!(start.elapsed() < Duration::from_millis(1_500), "start waited {:?}", start.elapsed());
    let view = router.store.view(SEARCH);
    assert_eq!((view.source, view.flags.live, view.flags.candidate.share.get()), (Source::Disk, GREEN, 0));
    assert_eq!((view.flags.epoch, &view.flags.salt), (before.epoch, &before.salt));
    assert_eq!(router.store.view(ADS).flags.live, BLUE);

    server.restart_with(&dump).await.unwrap();
    eventually("the candidate is back", Duration::from_secs(2), || router.flags() == before).await;
    assert_eq!(router.store.view(SEARCH).source, Source::Redis);
}

#[tokio::test]
async fn a_router_without_copy_and_redis_starts_from_its_config() {
    let mut server = RedisServer::start().await.unwrap();
    server.kill().unwrap();
    let router = Router::open(&server, "a").await;
    let view = router.store.view(SEARCH);
    assert_eq!((view.source, view.flags.live, view.flags.epoch), (Source::Initial, BLUE, 0));
    server.restart_empty().await.unwrap();
    eventually("seeded", Duration::from_secs(2), || router.flags().epoch == 1).await;
    let hash = stored(&mut server.connection().await.unwrap()).await;
    assert_eq!((hash["live"].as_str(), hash["salt"].len(), hash["epoch"].as_str()), ("blue", 32, "1"));
}

#[tokio::test]
async fn a_copy_of_another_redis_fills_an_empty_store_and_yields_to_a_filled_one() {
    let (first, filled, empty) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let router = Router::open(&first, "a").await;
    for percent in ["1", "2", "3"] {
        router.store.change(SEARCH, change(&[("live", Some("green")), ("canary_percent", Some(percent))], None)).await.unwrap();
    }
    let copy = router.folder.path().join("flags/search.json");
    let seal = router.flags().seal.clone();
    eventually("the copy is on disk", SOON, || std::fs::read_to_string(&copy).is_ok_and(|text| text.contains(&seal))).await;
    let other = Router::open(&filled, "b").await;
    other.store.change(SEARCH, change(&[("mirror_percent", Some("7"))], None)).await.unwrap();

    let moved = |url: String| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("flags")).unwrap();
        std::fs::copy(&copy, folder.path().join("flags/search.json")).unwrap();
        async move { Router::at(&url, "c", folder).await }
    };
    let joined = moved(filled.url()).await;
    assert_eq!((joined.flags().live, joined.flags().mirror.percent(), joined.flags().epoch), (BLUE, 7.0, 2));
    let alone = moved(empty.url()).await;
    assert_eq!((alone.flags().live, alone.flags().candidate.share.percent(), alone.flags().epoch), (GREEN, 3.0, 1));
}

#[tokio::test]
async fn flushall_and_del_are_undone() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    router.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    for command in [&["FLUSHALL"][..], &["DEL", FLAGS], &["DEL", "{switchback:search}:sealed"]] {
        let epoch = router.flags().epoch;
        server.cli(command).unwrap();
        server.cli(&["HSET", "{switchback:ads}:flags", "flag.x", &epoch.to_string()]).unwrap();
        eventually("the edit beside is obeyed", SOON, || {
            router.store.view(ADS).flags.features.get("x").is_some_and(|value| *value == epoch.to_string())
        })
        .await;
        let expected = if command.contains(&"{switchback:search}:sealed") { epoch } else { epoch + 1 };
        eventually("written back", SOON, || router.flags().epoch == expected).await;
        assert_eq!(server.cli(&["HGET", FLAGS, "live"]).unwrap(), "green");
    }
    server.cli(&["HSET", FLAGS, "pin", "green"]).unwrap();
    eventually("an edit without a sealed copy is adopted", SOON, || router.flags().pin == Some(GREEN) && router.is_sealed()).await;
}

#[tokio::test]
async fn an_epoch_written_by_hand_is_not_believed() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    for epoch in ["0", "99999", "-1", "1e3", "18446744073709551616", "soon", ""] {
        let before = router.flags().epoch;
        hset(&mut connection, &[("epoch", epoch), ("flag.e", epoch)]).await;
        eventually("adopted", SOON, || router.is_sealed() && router.flags().features.get("e").is_some_and(|value| value == epoch)).await;
        assert_eq!(router.flags().epoch, before + 1, "after epoch {epoch:?}");
    }
    let before = router.flags().epoch;
    hset(&mut connection, &[("seal", "0000")]).await;
    eventually("sealed again", SOON, || router.flags().epoch == before + 1).await;
}

#[tokio::test]
async fn routers_see_each_other_and_what_they_apply() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    one.store.set_admin("127.0.0.1:9191".parse().unwrap());
    let epoch = one.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    let seal = one.flags().seal.clone();
    let has = |routers: Vec<switchback::flags::RouterSeen>| {
        let ids: Vec<_> = routers.iter().map(|seen| seen.id.as_str()).collect();
        let admin = routers.first().is_some_and(|seen| seen.admin == "127.0.0.1:9191");
        ids == ["one", "other"] && admin && routers.iter().all(|seen| seen.is_known && seen.epoch == epoch && seen.seal == seal)
    };
    eventually("both list both", SOON, || has(one.store.routers(SEARCH)) && has(other.store.routers(SEARCH))).await;
    drop(other);
    let is_unknown = || one.store.routers(SEARCH).iter().any(|seen| seen.id == "other" && !seen.is_known && seen.seen_ms_ago >= 1_000);
    eventually("the silent one is unknown, and still listed", SOON, is_unknown).await;
}

#[tokio::test]
async fn too_large_or_of_another_type_is_said_and_live_is_still_obeyed() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    let warned = |word: &str| router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains(word));
    let junk: Vec<(String, String)> = (0..1_100).map(|index| (format!("junk{index}"), "x".to_owned())).collect();
    let () = connection.hset_multiple(FLAGS, &junk).await.unwrap();
    hset(&mut connection, &[("live", "green")]).await;
    eventually("live is obeyed", SOON, || router.flags().live == GREEN && warned("more than 1024 fields")).await;
    let refused = router.store.change(SEARCH, change(&[("freeze", Some("true"))], None)).await;
    assert!(matches!(refused, Err(ChangeError::NotSaved { .. })), "{refused:?}");
    let names: Vec<&String> = junk.iter().map(|(name, _)| name).collect();
    let () = connection.hdel(FLAGS, names).await.unwrap();
    eventually("adopted now", SOON, || router.is_sealed() && !warned("fields")).await;
    assert_eq!(router.flags().live, GREEN);

    let () = connection.set(FLAGS, "oops").await.unwrap();
    eventually("said", SOON, || warned("something else than a hash")).await;
    assert_eq!(router.flags().live, GREEN, "the last known flags hold");
    assert_eq!(router.store.view(ADS).flags.live, BLUE);
    let () = connection.del(FLAGS).await.unwrap();
    eventually("written anew", SOON, || !warned("hash")).await;
    assert_eq!(stored(&mut connection).await["live"], "green");
}

#[tokio::test]
async fn an_eviction_policy_that_may_drop_flags_is_warned_of() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await.unwrap();
    let router = Router::open(&server, "a").await;
    let warned = || router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("maxmemory-policy allkeys-lru"));
    eventually("warned", SOON, warned).await;
}

/// The commands that docs/FLAGS.md says a router's ACL user needs.
const ACL: &str = "~{switchback* resetchannels -@all +hello +auth +client|tracking +select +info +eval +evalsha +script|load +hlen \
                   +hkeys +hstrlen +hget +hgetall +hset +hdel +del +xadd +xrevrange +time +zadd +zrange +zrangebyscore +zrem +pexpire";

#[tokio::test]
async fn the_documented_acl_user_is_enough_and_a_lesser_one_is_told_what_is_missing() {
    let docs = include_str!("../docs/FLAGS.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let acl = ACL.split_whitespace().collect::<Vec<_>>();
    assert!(docs.contains(&acl.join(" ")), "docs/FLAGS.md shows this very line");
    let server = RedisServer::start().await.unwrap();
    server.cli(&[&["ACL", "SETUSER", "switchback", "on", ">secret"][..], &acl].concat()).unwrap();
    let url = server.url().replace("redis://", "redis://switchback:secret@");
    let router = Router::at(&url, "a", tempfile::tempdir().unwrap()).await;
    router.store.change(SEARCH, change(&[("canary_percent", Some("5"))], None)).await.unwrap();
    server.cli(&["HSET", FLAGS, "live", "green"]).unwrap();
    eventually("adopted", SOON, || router.flags().live == GREEN && router.is_sealed()).await;
    assert_eq!(router.store.history(SEARCH, 10).await.unwrap().len(), 3);
    eventually("reported", SOON, || router.store.routers(SEARCH).len() == 1).await;
    assert_eq!(router.store.view(SEARCH).warnings, [""; 0]);

    server.cli(&["ACL", "SETUSER", "switchback", "-hset"]).unwrap();
    server.cli(&["HSET", FLAGS, "live", "blue"]).unwrap();
    eventually("obeyed all the same", SOON, || router.flags().live == BLUE).await;
    let warned =
        || router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("cannot be written") && warning.contains("FLAGS.md"));
    eventually("said", SOON, warned).await;
    let entries = || router.store.history(SEARCH, 100);
    let before = entries().await.unwrap().len();
    server.cli(&["HSET", FLAGS, "flag.again", "1"]).unwrap();
    eventually("tried in vain", SOON, || router.flags().features.contains_key("again")).await;
    assert_eq!(entries().await.unwrap().len(), before, "what was not written is not in the ledger");
    server.cli(&["ACL", "SETUSER", "switchback", "+hset"]).unwrap();
    eventually("adopted, and said no more", SOON, || router.is_sealed() && router.store.view(SEARCH).warnings.is_empty()).await;

    let wrong = Router::at(&url.replace("secret", "guess"), "b", tempfile::tempdir().unwrap()).await;
    let warned =
        || wrong.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("password in state.url") && !warning.contains("guess"));
    eventually("the wrong password is said", SOON, warned).await;
    assert_eq!(wrong.store.view(SEARCH).source, Source::Initial);
}

#[tokio::test]
async fn two_routers_under_one_id_are_noticed() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "same").await, Router::open(&server, "same").await);
    let warned = |router: &Router| router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("state.router_id"));
    eventually("said", SOON, || warned(&one) && warned(&other)).await;
    let router = other.restart().await;
    drop(one);
    eventually("a restart is no twin", SOON, || !warned(&router) && router.store.routers(SEARCH).len() == 1).await;
}

#[tokio::test]
async fn the_embedded_store_has_one_owner_and_keeps_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("", folder.path(), "a");
    let store = FlagStore::open(&config).await.unwrap();
    assert_eq!(store.view(SEARCH).source, Source::Embedded);
    let second = FlagStore::open(&config).await.err().expect("one owner").to_string();
    assert!(second.contains(&format!("pid {}", std::process::id())) && second.contains("flags/owner"), "{second}");

    store.change(SEARCH, change(&[("canary_percent", Some("25"))], Some(1))).await.unwrap();
    let epoch = store.change(SEARCH, change(&[("live", Some("green"))], Some(2))).await.unwrap();
    let stale = store.change(SEARCH, change(&[("canary_percent", Some("1"))], Some(2))).await;
    assert!(matches!(stale, Err(ChangeError::Conflict { expected: 2, found: 3 })), "{stale:?}");
    let before = store.view(SEARCH).flags;
    assert_eq!((epoch, before.live, before.candidate.share.get(), store.age()), (3, GREEN, 0, Duration::ZERO));
    drop(store);

    let store = FlagStore::open(&config).await.unwrap();
    assert_eq!(store.view(SEARCH).flags, before);
    let history = store.history(SEARCH, 10).await.unwrap();
    assert_eq!(history.iter().map(|entry| (entry.epoch, entry.who.as_str())).collect::<Vec<_>>(), [(3, "alice"), (2, "alice")]);
    drop(store);

    std::fs::write(folder.path().join("flags/search.json"), "edited by hand").unwrap();
    let corrupt = FlagStore::open(&config).await.err().expect("corrupt").to_string();
    assert!(corrupt.contains("search.json") && corrupt.contains("move the file away"), "{corrupt}");
}
