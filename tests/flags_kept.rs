//! Where flags are kept and by whom: permissions, TLS, limits, who else routes, and the embedded store with its one owner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use redis::AsyncCommands;
use switchback::flags::{ChangeError, FlagStore, Page, RouterSeen, ShelfWord, Source};
use switchback_tests::flags::{
    ACL, ADS, BLUE, CLUSTER_ACL, FLAGS, GREEN, Router, SEARCH, SENTINEL_ACL, SOON, change, config, eventually, hset, stored,
};
use switchback_tests::redis::RedisServer;
use switchback_tests::{Backend, Setup};

#[tokio::test]
async fn routers_see_each_other_and_what_they_apply() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (Router::open(&server, "one").await, Router::open(&server, "other").await);
    one.store.set_admin("127.0.0.1:9191".parse().unwrap());
    let epoch = one.store.change(SEARCH, change(&[("live", Some("green"))], None)).await.unwrap();
    let seal = one.flags().seal.clone();
    let has = |routers: Vec<RouterSeen>| {
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
    eventually("said", SOON, || warned("DEL the one that TYPE says is none")).await;
    assert!(!warned("script") && !warned("WRONGTYPE"), "no words of a script: {:?}", router.store.view(SEARCH).warnings);
    assert_eq!(router.flags().live, GREEN, "the last known flags hold");
    assert_eq!(router.store.view(ADS).flags.live, BLUE);
    let () = connection.del(FLAGS).await.unwrap();
    eventually("written anew", SOON, || !warned("DEL the one")).await;
    assert_eq!(stored(&mut connection).await["live"], "green");
}

#[tokio::test]
async fn keys_of_another_type_beside_the_flags_hold_up_no_flip_and_are_told_of() {
    let server = RedisServer::start().await.unwrap();
    let router = Router::open(&server, "a").await;
    let mut connection = server.connection().await.unwrap();
    let warned = || router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("DEL the one that TYPE says is none"));
    eventually("the first state is sealed", SOON, || router.is_sealed()).await;
    let () = connection.del("{switchback:search}:sealed").await.unwrap();
    let () = connection.set("{switchback:search}:sealed", "oops").await.unwrap();
    hset(&mut connection, &[("live", "green")]).await;
    eventually("obeyed and adopted", SOON, || router.flags().live == GREEN && router.is_sealed()).await;
    assert_eq!(server.cli(&["TYPE", "{switchback:search}:sealed"]).unwrap(), "hash", "it was written anew");

    // One that may hold what people want to keep is not thrown away: the flip is obeyed, and cannot be adopted.
    let () = connection.del("{switchback:search}:ledger").await.unwrap();
    let () = connection.set("{switchback:search}:ledger", "oops").await.unwrap();
    hset(&mut connection, &[("live", "blue")]).await;
    eventually("obeyed, and told", SOON, || router.flags().live == BLUE && warned()).await;
    let () = connection.del("{switchback:search}:ledger").await.unwrap();
    eventually("adopted", SOON, || router.is_sealed() && !warned()).await;
}

#[tokio::test]
async fn an_eviction_policy_that_may_drop_flags_is_warned_of() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await.unwrap();
    let router = Router::open(&server, "a").await;
    let warned = || router.store.view(SEARCH).warnings.iter().any(|warning| warning.contains("maxmemory-policy allkeys-lru"));
    eventually("warned", SOON, warned).await;
}

#[tokio::test]
async fn the_documented_acl_user_is_enough_and_a_lesser_one_is_told_what_is_missing() {
    let docs = include_str!("../docs/FLAGS.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [ACL, CLUSTER_ACL, SENTINEL_ACL] {
        assert!(docs.contains(&line.split_whitespace().collect::<Vec<_>>().join(" ")), "docs/FLAGS.md shows this very line: {line}");
    }
    let acl = ACL.split_whitespace().collect::<Vec<_>>();
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
    // What is counted, and what is known of the candidate, is kept beside the flags.
    let page = Page { number: 7, fields: vec![("ab.traffic".to_owned(), vec![1])] };
    router
        .store
        .shelve(ShelfWord { route: "search", sender: "ab", number: 1, pages: &[page], look_at: Some((7, "ab.traffic")) })
        .await
        .unwrap();
    assert_eq!(router.store.shelved("search", 7).await.unwrap().unwrap().0.len(), 1);
    assert!(router.store.replace_evidence("search", 0, 1, b"record").await.unwrap());
    assert!(!router.store.replace_evidence("search", 0, 2, b"another").await.unwrap());
    assert_eq!(router.store.evidence("search").await.unwrap(), Some((1, b"record".to_vec())));
    assert_eq!(router.store.token_key("search", "first").await.unwrap(), "first");
    assert_eq!(router.store.token_key("search", "second").await.unwrap(), "first");

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

/// Certificates are trusted by the environment of a process, so this is the real router.
#[tokio::test]
async fn redis_over_tls_is_checked_against_the_trusted_roots() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("redis.crt"), path("redis.key"));
    let openssl =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let names =
        ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate];
    assert!(std::process::Command::new("openssl").args(openssl).args(names).output().unwrap().status.success());
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let tls = ["--tls-port", &tls_port, "--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let server = RedisServer::start_with(&tls).await.unwrap();
    std::fs::write(folder.path().join("none.crt"), "").unwrap();

    let backend = Backend::start("blue");
    let pools = |setup: Setup| ["blue", "green", "canary"].into_iter().fold(setup, |setup, pool| setup.pool(pool, &[&backend]));
    let router = |roots: &str| pools(Setup::default().redis(&format!("rediss://127.0.0.1:{tls_port}")).env("SSL_CERT_FILE", roots));
    let trusting = router(&certificate).start();
    trusting.set_flags(&["flag.tls=on"]);
    assert_eq!(server.cli(&["HGET", FLAGS, "flag.tls"]).unwrap(), "on");

    let doubting = router(&path("none.crt")).start_unready();
    let refused = || doubting.log().contains("certificate").then_some(());
    switchback_tests::eventually("an unknown certificate is refused, and said", SOON, refused);
    let flag = doubting.route()["flags"]["tls"].clone();
    assert!(flag.is_null(), "nothing was read over an unverified connection, but {flag}");
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
    let second = FlagStore::open(&config).await.expect_err("one owner").to_string();
    assert!(second.contains(&format!("pid {}", std::process::id())) && second.contains("/owner: "), "{second}");

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
    assert_eq!(
        history.iter().map(|entry| (entry.epoch, entry.who.as_str())).collect::<Vec<_>>(),
        [(3, "alice"), (2, "alice"), (1, "embedded")]
    );
    drop(store);

    std::fs::write(folder.path().join("flags/search.json"), "edited by hand").unwrap();
    let corrupt = FlagStore::open(&config).await.expect_err("corrupt").to_string();
    assert!(corrupt.contains("search.json") && corrupt.contains("move the file away"), "{corrupt}");
}
