//! The promise: an endpoint that is given by name is followed to wherever its name leads, without a restart and without a failed query.
//!
//! The router asks the system's resolver, which here reads a file of the test's in the place of `/etc/hosts`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::net::TcpListener;
use std::time::Duration;

use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually, http};
use tempfile::NamedTempFile;

const SOON: Duration = Duration::from_secs(20);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";

/// A port that is free on all of loopback's addresses, as far as anybody can know.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// `models.test` stands for these addresses.
fn point(hosts: &NamedTempFile, addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} models.test\n")).collect();
    // Written in place: the router's mount is of this very file.
    std::fs::write(hosts.path(), format!("127.0.0.1 localhost\n{lines}")).unwrap();
}

fn before(hosts: &NamedTempFile, port: u16) -> Setup {
    let endpoints = [format!("http://models.test:{port}")];
    Setup::default().pool_of("blue", &endpoints).pool_keys("dns_interval = \"100ms\"").hosts(hosts.path())
}

fn endpoint(router: &Router) -> serde_json::Value {
    router.route()["pools"]["blue"]["endpoints"][0].clone()
}

fn eventually_at(router: &Router, addresses: &[String]) {
    eventually("the new addresses", SOON, || (endpoint(router)["addresses"] == serde_json::json!(addresses)).then_some(()));
}

fn at(address: &str, port: u16) -> String {
    format!("{address}:{port}")
}

#[test]
fn each_address_of_a_name_gets_queries_and_a_change_is_followed() {
    let (hosts, port) = (NamedTempFile::new().unwrap(), free_port());
    let [two, three, four] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|address| Backend::start_at(address, &at(address, port)));
    // As long as a ranker takes: a connection is used again before another one is opened, so that queries which never meet need no second one.
    [&two, &three, &four].iter().for_each(|backend| backend.behave(Behaviour::Delay(Duration::from_millis(10))));
    point(&hosts, &["127.0.0.2", "127.0.0.3"]);
    let router = before(&hosts, port).workers(2).start();
    eventually_at(&router, &[at("127.0.0.2", port), at("127.0.0.3", port)]);
    let load = Load::new(router.traffic, 300).start();
    eventually("both addresses get queries", SOON, || (two.arrivals() > 20 && three.arrivals() > 20).then_some(()));
    point(&hosts, &["127.0.0.4"]);
    eventually_at(&router, &[at("127.0.0.4", port)]);
    eventually("the new address gets queries", SOON, || (four.arrivals() > 20).then_some(()));
    // Those in flight when it changed have ended: kept connections to the old addresses are not used.
    let (old, new) = (two.arrivals() + three.arrivals(), four.arrivals());
    load.wait_for(load.sent() + 200);
    assert_eq!(two.arrivals() + three.arrivals(), old);
    assert!(four.arrivals() > new + 100);
    assert_eq!(load.stop().failures(), 0);
    assert!(router.log().contains("the name stands for other addresses"));
}

#[test]
fn a_name_that_no_longer_resolves_keeps_its_addresses() {
    let (hosts, port) = (NamedTempFile::new().unwrap(), free_port());
    let _two = Backend::start_at("two", &at("127.0.0.2", port));
    point(&hosts, &["127.0.0.2"]);
    let router = before(&hosts, port).start();
    point(&hosts, &[]);
    let failed = || router.metric("switchback_dns_lookups_total", &["result=\"failed\""]);
    eventually("some look-ups fail", SOON, || (failed() >= 3.0).then_some(()));
    assert!(http::raw(router.traffic, GET).unwrap().ends_with("two"));
    assert_eq!((endpoint(&router)["state"].as_str(), router.metric("switchback_endpoint_addresses", &[])), (Some("healthy"), 1.0));
    let complaints = router.log().lines().filter(|line| line.contains("look-up failed")).count();
    assert_eq!(complaints, 1, "it is said once");
}

#[test]
fn a_name_that_does_not_resolve_at_start_is_waited_for() {
    let (hosts, port) = (NamedTempFile::new().unwrap(), free_port());
    let _two = Backend::start_at("two", &at("127.0.0.2", port));
    point(&hosts, &[]);
    let router = before(&hosts, port).start_unready();
    eventually("it says so", SOON, || router.log().contains("look-up failed").then_some(()));
    assert_eq!(endpoint(&router)["state"], "unresolved");
    assert_eq!(http::get(router.admin, "/readyz").unwrap().0, 503);
    assert!(http::raw(router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
    point(&hosts, &["127.0.0.2"]);
    eventually("it answers", SOON, || http::raw(router.traffic, GET).unwrap().ends_with("two").then_some(()));
    eventually("it is ready", SOON, || (http::get(router.admin, "/readyz").unwrap().0 == 200).then_some(()));
}

#[test]
fn a_dead_address_of_a_name_costs_no_query() {
    let (hosts, port) = (NamedTempFile::new().unwrap(), free_port());
    let (two, mut three) = (Backend::start_at("two", &at("127.0.0.2", port)), Backend::start_at("three", &at("127.0.0.3", port)));
    point(&hosts, &["127.0.0.2", "127.0.0.3"]);
    let router = before(&hosts, port).start();
    // Several queries at once, so that one connection cannot carry them all.
    two.behave(Behaviour::Delay(Duration::from_millis(20)));
    three.behave(Behaviour::Delay(Duration::from_millis(20)));
    let load = Load::new(router.traffic, 300).start();
    eventually("both get queries", SOON, || (three.arrivals() > 20).then_some(()));
    three.stop();
    load.wait_for(load.sent() + 300);
    let before = three.arrivals();
    three.restart();
    // Connections that are open stay where they are. Sixty queries at a time need more than the 16 that the first users can have opened.
    two.behave(Behaviour::Delay(Duration::from_millis(100)));
    let more = Load { connections: 100, ..Load::new(router.traffic, 600) }.start();
    eventually("it gets queries again", SOON, || (three.arrivals() > before).then_some(()));
    assert_eq!(more.stop().failures(), 0);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert_eq!(endpoint(&router)["state"], "healthy", "one of its addresses answered all the time");
}

#[test]
fn localhost_needs_no_address() {
    let blue = Backend::start("blue");
    let endpoints = [format!("http://localhost:{}", blue.address.port())];
    let router = Setup::default().pool_of("blue", &endpoints).start();
    assert!(http::raw(router.traffic, GET).unwrap().ends_with("blue"));
}
