//! Flags in a real Redis: what people write is obeyed at once, adopted once, and never overwritten by what was prepared before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use redis::AsyncCommands;
use switchback::flags::{ChangeError, FlagStore, Kind, Source, seal};
use switchback::vocabulary::RouteIndex;
use switchback_tests::flags::{BLUE, FLAGS, GREEN, Router, SEARCH, SOON, change, config_of, eventually, hset, stored};
use switchback_tests::redis::RedisServer;
use tokio::time::Instant;

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
async fn a_flip_of_one_of_many_routes_is_announced_too() {
    let server = RedisServer::start().await.unwrap();
    let names: Vec<String> = (0..300).map(|index| format!("route-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("url = {:?}\npoll_interval = \"60s\"\n", server.url());
    let store = FlagStore::open(&config_of(&names, &text, folder.path(), "a")).await.unwrap();
    let mut connection = server.connection().await.unwrap();
    for index in [0u16, 150, 299] {
        let mut watch = store.watch(RouteIndex(index));
        let () = connection.hset(format!("{{switchback:route-{index}}}:flags"), "live", "green").await.unwrap();
        tokio::time::timeout(SOON, watch.wait_for(|flags| flags.live == GREEN)).await.unwrap().unwrap();
    }
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
async fn a_router_that_starts_under_garbage_does_as_those_that_knew_better() {
    let server = RedisServer::start().await.unwrap();
    let old = Router::open(&server, "old").await;
    let set = [("live", Some("green")), ("pin", Some("canary")), ("canary_percent", Some("25")), ("flag.new-ui", Some("on"))];
    old.store.change(SEARCH, change(&set, None)).await.unwrap();
    let mut connection = server.connection().await.unwrap();
    let long = "x".repeat(2_000);
    hset(&mut connection, &[("live", "purple"), ("pin", "nowhere"), ("canary_percent", "2,5"), ("salt", "x"), ("flag.new-ui", &long)])
        .await;
    eventually("adopted with its faults", SOON, || old.is_sealed() && old.store.view(SEARCH).faults.len() == 5).await;
    let fresh = Router::open(&server, "fresh").await;
    eventually("the same epoch", SOON, || fresh.flags().epoch == old.flags().epoch).await;
    assert_eq!(fresh.flags(), old.flags());
    assert_eq!(fresh.store.view(SEARCH).faults.len(), 5, "and it says the same");
    hset(&mut connection, &[("canary_percent", "30")]).await;
    eventually("what makes sense is obeyed by both", SOON, || {
        [&old, &fresh].iter().all(|router| router.flags().candidate.share.get() == 300_000 && router.is_sealed())
    })
    .await;
    assert_eq!(fresh.flags(), old.flags());
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
async fn arbitrary_bytes_beside_it_never_hold_up_live() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    let names =
        ["canary_percent", "candidate_pool", "holdback_pool", "pin", "epoch", "seal", "experiments", "split_policy", "flag.\u{7}", "\u{0}"];
    // A fixed sequence, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..150 {
        let live = if round % 2 == 0 { "green" } else { "blue" };
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = vec![(b"live".to_vec(), live.as_bytes().to_vec())];
        for _ in 0..random() % 4 {
            let name = names[random() as usize % names.len()];
            if name != "pin" {
                pairs.push((name.as_bytes().to_vec(), (0..random() % 40).map(|_| random() as u8).collect()));
            }
        }
        let () = connection.hset_multiple(FLAGS, &pairs).await.unwrap();
        let pool = if live == "green" { GREEN } else { BLUE };
        eventually("live is obeyed and adopted", SOON, || router.flags().live == pool && router.is_sealed()).await;
        assert_eq!(router.flags().candidate.share.get(), 0);
    }
    let epochs: Vec<u64> = router.store.history(SEARCH, 1_000).await.unwrap().iter().map(|entry| entry.epoch).collect();
    assert_eq!(epochs, (1..=151).rev().collect::<Vec<u64>>(), "each edit one epoch");
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
