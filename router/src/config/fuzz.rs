//! The fuzz target of the config: a file is taken or refused with reasons, whatever is in it.
#![allow(clippy::unwrap_used)]

use switchback_fuzz::{Target, kind_of, trace};

use super::{parse, show};

const WORDS: [&[u8]; 40] = [
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
