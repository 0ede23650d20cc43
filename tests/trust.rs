//! Whose word about a client is taken: `listen.trusted_proxies`, and nobody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;

use switchback_tests::{Backend, Behaviour, Router, Setup, http};

const SAID: &str = "x-forwarded-for: 203.0.113.9\r\nx-forwarded-for: 10.1.1.1\r\nx-forwarded-proto: https\r\n\
                    x-forwarded-host: search.example\r\nx-forwarded-port: 443\r\nforwarded: for=203.0.113.9;proto=https\r\n";

fn before(blue: &Backend, trusted: &str) -> Router {
    blue.behave(Behaviour::ShowHead);
    Setup::default().pool("blue", &[blue]).listen(trusted).start()
}

fn sent(router: &Router, said: &str) -> String {
    let response =
        http::raw(router.traffic, &format!("GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n{said}\r\n")).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response
}

#[test]
fn a_trusted_proxys_word_passes_and_is_added_to() {
    let blue = Backend::start("blue");
    let router = before(&blue, "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1\"]");
    let seen = sent(&router, SAID);
    for there in [
        "x-forwarded-for: 203.0.113.9, 10.1.1.1, 127.0.0.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-host: search.example\n",
        "x-forwarded-port: 443\n",
        "forwarded: for=203.0.113.9;proto=https, for=127.0.0.1;proto=http\n",
    ] {
        assert!(seen.contains(there), "{there} is missing in\n{seen}");
    }
    let plain = sent(&router, "");
    assert!(plain.contains("x-forwarded-for: 127.0.0.1\n") && plain.contains("x-forwarded-proto: http\n"), "{plain}");
}

#[test]
fn nobody_elses_does() {
    let blue = Backend::start("blue");
    let router = before(&blue, "trusted_proxies = [\"10.0.0.0/8\"]");
    let seen = sent(&router, SAID);
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\n") && seen.contains("x-forwarded-proto: http\n"), "{seen}");
    for gone in ["203.0.113.9", "x-forwarded-host", "x-forwarded-port", "forwarded: for="] {
        assert!(!seen.contains(gone), "{gone} is there in\n{seen}");
    }
}

#[test]
fn the_unit_is_the_clients_address_and_not_its_proxys() {
    let (blue, canary) = (Backend::start("blue"), Backend::start("canary"));
    let half = "initial = { live = \"blue\", canary_percent = \"50\" }";
    let pools = |address: &str, trusted: &str| -> Vec<String> {
        let router = Setup::default().pool("blue", &[&blue]).pool("canary", &[&canary]).route(half).listen(trusted).start();
        let said = |client: u8| format!("x-forwarded-for: 198.51.100.{client}, {address}\r\n");
        (0..40).map(|client| sent(&router, &said(client))).map(|response| response.rsplit('\n').next().unwrap().to_owned()).collect()
    };
    let distinct = |pools: Vec<String>| pools.into_iter().collect::<BTreeSet<String>>().len();
    let trusted = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    assert_eq!(distinct(pools("10.9.9.9", trusted)), 2, "each client is a unit of its own");
    assert_eq!(distinct(pools("192.0.2.77", trusted)), 1, "the right-most address that is not trusted is the same for all");
    assert_eq!(distinct(pools("10.9.9.9", "")), 1, "without trust all are the peer");
}
