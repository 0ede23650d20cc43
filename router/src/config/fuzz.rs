//! Fuzz targets of the config: a file, and the URL of a Redis, are taken or refused with reasons, whatever is in them.
#![allow(clippy::unwrap_used)]

use switchback_fuzz::{Target, kind_of, trace};

use super::redis_url::tests::read_or_refuse;
use super::{Node, Topology, parse, show};

const WORDS: [&[u8]; 43] = [
    b"[listen]\n",
    b"[limits]\n",
    b"[state]\n",
    b"[policies]\n",
    b"[[route]]\n",
    b"[route.match]\n",
    b"[route.timeouts]\n",
    b"[route.pools.blue]\n",
    b"[route.pools.green.health]\n",
    b"[route.pools.blue.tls]\n",
    b"[tls]\n",
    b"[[tls.certificate]]\n",
    b"[[admin.token]]\n",
    b"[[notify]]\n",
    b"traffic = ",
    b"admin = ",
    b"workers = ",
    b"connections = ",
    b"header_timeout = ",
    b"url = ",
    b"name = ",
    b"unit = ",
    b"endpoints = ",
    b"initial = ",
    b"split_config = ",
    b"upgrades = ",
    b"host = ",
    b"path_prefix = ",
    b"format = \"slack\"\n",
    b"events = ",
    b"\"127.0.0.1:0\"",
    b"\"[::1]:80\"",
    b"\"http://127.0.0.1:1\"",
    b"\"https://a.example:443\"",
    b"\"redis://127.0.0.1:6379\"",
    b"\"10s\"",
    b"\"64KiB\"",
    b"{ live = \"green\" }",
    b"[\"header:x-user-id\"]",
    b"true",
    b"1979-05-27T07:32:00Z",
    b"'''",
    b"\n",
];

#[test]
fn config() {
    Target { name: "config", words: &WORDS, seeds: Vec::new(), most_bytes: 8_192 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        match parse("fuzz.toml", &text) {
            Ok(config) => {
                let lines = show(&config);
                assert!(lines.iter().all(|(key, value)| !key.is_empty() && !value.is_empty()));
                assert!(!config.routes.is_empty());
                trace((lines.len(), config.routes.len().min(4)))
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("fuzz.toml"), "{said}");
                trace(said.lines().skip(1).map(kind_of).take(4).collect::<Vec<_>>())
            }
        }
    });
}

#[test]
fn redis_url() {
    const SECRET: &str = "s3cret-word";
    let words: [&[u8]; 17] = [
        b"redis://",
        b"rediss://",
        b"redis+sentinel://",
        b"rediss+sentinel://",
        b"redis+cluster://",
        b"rediss+cluster://",
        b"ann:",
        SECRET.as_bytes(),
        b"@",
        b"%40",
        b"/mymaster",
        b"/2",
        b",h2:7000",
        b"[::1]:26379",
        b":",
        b"?protocol=resp3",
        b"#insecure",
    ];
    Target { name: "redis_url", words: &words, seeds: Vec::new(), most_bytes: 1_024 }.run(|bytes| {
        let url = String::from_utf8_lossy(bytes);
        let read = read_or_refuse(&url);
        let said = match &read {
            Ok(redis) => format!("{} {:?}", redis.shown, redis.login.password),
            Err(said) => said.clone(),
        };
        // What stands before the last @ may be a password.
        let is_host = url.rsplit('@').next().is_some_and(|host| host.contains(SECRET));
        assert!(is_host || !said.contains(SECRET), "{said}");
        let Ok(redis) = read else { return trace(said.rsplit(" (").next().map(kind_of)) };
        assert!((1..=64).contains(&redis.nodes.len()) && redis.database >= 0, "{redis:?}");
        for node in &redis.nodes {
            assert_eq!(Node::read(&node.to_string(), None).as_ref(), Some(node));
        }
        match &redis.topology {
            Topology::Single => assert_eq!(redis.nodes.len(), 1),
            Topology::Sentinel { primary } => assert!(!primary.is_empty()),
            Topology::Cluster => assert_eq!(redis.database, 0),
        }
        let login = (redis.login.username.is_some(), redis.login != Default::default());
        trace((redis.topology.word(), redis.nodes.len().min(4), redis.tls.is_some(), login, redis.database.min(2)))
    });
}
