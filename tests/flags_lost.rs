//! Redis goes away and comes back: empty, older, paused, another one. The last flags hold, and no router goes back an epoch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use switchback::flags::{ChangeError, Kind, Source, seal};
use switchback_tests::flags::{ADS, BLUE, FLAGS, GREEN, Router, SEARCH, SOON, change, eventually, hset, never_back, stored};
use switchback_tests::redis::RedisServer;
use tokio::time::Instant;

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
    let watches = [never_back(&one), never_back(&other)];
    server.restart_with(&old).await.unwrap();
    let took =
        eventually("recovered", Duration::from_secs(2), || one.flags().epoch > before.epoch && other.flags().epoch > before.epoch).await;
    println!("recovered {took:?} after an older return");
    for router in [&one, &other] {
        assert_eq!((router.flags().live, router.flags().candidate.share.percent()), (GREEN, 25.0));
    }
    assert_eq!(stored(&mut server.connection().await.unwrap()).await["canary_percent"], "25");
    // Again, over and over: older, empty, older.
    for round in 0..6 {
        let epoch = one.flags().epoch;
        if round % 2 == 0 {
            server.restart_empty().await.unwrap()
        } else {
            server.restart_with(&old).await.unwrap()
        }
        let is_higher = || one.flags().epoch > epoch && other.flags().epoch > epoch && one.flags() == other.flags();
        eventually("recovered", Duration::from_secs(2), is_higher).await;
    }
    assert_eq!(one.flags().candidate.share.percent(), 25.0);
    let epoch = one.flags().epoch;
    drop((one, other));
    for watch in watches {
        assert_eq!(watch.await.expect("never back"), epoch);
    }
}

#[tokio::test]
async fn a_change_made_after_a_lost_write_wins_over_it() {
    let mut server = RedisServer::start().await.unwrap();
    let heard = Router::open(&server, "heard").await;
    let before_loss = server.dump().await.unwrap();
    heard.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    let lost = heard.flags();
    server.kill().unwrap();

    // The new primary had not heard of it; somebody looks there, and changes something through a router that had not either.
    let mut promoted = RedisServer::start().await.unwrap();
    promoted.restart_with(&before_loss).await.unwrap();
    let other = Router::open(&promoted, "other").await;
    let epoch = other.store.change(SEARCH, change(&[("canary_percent", Some("7"))], None)).await.unwrap();
    assert_eq!(epoch, lost.epoch, "two contents under one epoch");
    server.restart_with(&promoted.dump().await.unwrap()).await.unwrap();

    eventually("settled", SOON, || heard.flags().candidate.share.percent() == 7.0).await;
    assert_eq!(heard.flags(), other.flags());
    assert_eq!(stored(&mut server.connection().await.unwrap()).await["epoch"], epoch.to_string(), "nothing was written for it");
}

/// The same, when the ledger cannot say who wrote last.
#[tokio::test]
async fn two_contents_under_one_epoch_are_settled_also_without_a_ledger() {
    let mut server = RedisServer::start().await.unwrap();
    let heard = Router::open(&server, "heard").await;
    let before_loss = server.dump().await.unwrap();
    heard.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    server.kill().unwrap();
    let mut promoted = RedisServer::start().await.unwrap();
    promoted.restart_with(&before_loss).await.unwrap();
    let other = Router::open(&promoted, "other").await;
    other.store.change(SEARCH, change(&[("canary_percent", Some("7"))], None)).await.unwrap();
    drop(other);
    promoted.cli(&["SET", "{switchback:search}:ledger", "not a stream"]).unwrap();
    server.restart_with(&promoted.dump().await.unwrap()).await.unwrap();
    eventually("settled", SOON, || heard.flags().candidate.share.percent() == 7.0).await;
    assert_eq!(heard.flags().live, BLUE, "what the store has counts");
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
