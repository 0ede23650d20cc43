//! The promise: clients that are slow on purpose are hung up on, and nobody else notices them.
//!
//! The three attacks of slowhttptest in small; `tests/conformance/run.sh --slow` runs the real ones against the default limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use switchback_tests::{Backend, Behaviour, Load, Router, Setup, eventually};

const ATTACKERS: usize = 40;
/// What an attacker does comes this often: below every limit that only looks at pauses.
const EVERY: Duration = Duration::from_millis(100);
/// The limits below are 1 s at most, and looked at four times a second; who was told so has 5 s to see it.
const SOON: Duration = Duration::from_secs(16);

const LIMITS: &str = "[limits]\nheader_timeout = \"1s\"\nbody_idle_timeout = \"600ms\"\n";
const TIMEOUTS: &str = "timeouts = { attempt = \"1s\", total = \"1s\" }";

/// Opens the attackers' connections, lets each do `step` again and again, and waits until the router has hung up on all of them, while
/// ordinary clients are served.
fn attack(router: &Router, opening: &str, step: impl Fn(&mut TcpStream)) -> Vec<TcpStream> {
    let load = Load::new(router.traffic, 200).start();
    load.wait_for(100);
    let before = router.descriptors();
    let connect = |_| {
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.write_all(opening.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut attackers: Vec<TcpStream> = (0..ATTACKERS).map(connect).collect();
    eventually("the attackers are let in", SOON, || (router.descriptors() >= before + ATTACKERS).then_some(()));
    let began = Instant::now();
    let mut last = began;
    // Connections of ordinary clients, to the router and from it, come and go by a few.
    eventually("the attackers are hung up on", SOON, || {
        if last.elapsed() >= EVERY {
            last = Instant::now();
            attackers.iter_mut().for_each(&step);
        }
        (router.descriptors() < before + ATTACKERS / 4).then_some(())
    });
    let took = began.elapsed();
    load.wait_for(load.sent() + 100);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
    println!("{ATTACKERS} attackers hung up on after {took:?}; {} ordinary queries beside them, 0 failed", report.sent);
    attackers
}

/// `None` for an end in order.
fn end_of(mut stream: TcpStream) -> Option<std::io::ErrorKind> {
    stream.set_nonblocking(false).unwrap();
    stream.read_to_end(&mut Vec::new()).err().map(|error| error.kind())
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    // Fails once the router has hung up.
    let _ = stream.write(bytes);
}

#[test]
fn heads_that_never_end_are_hung_up_on() {
    let backend = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&backend]).top(LIMITS).route(TIMEOUTS).start();
    attack(&router, "GET /slow HTTP/1.1\r\nhost: a\r\n", |stream| send(stream, b"x-more: 1\r\n"));
}

#[test]
fn bodies_that_trickle_are_hung_up_on() {
    let backend = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&backend]).top(LIMITS).route(TIMEOUTS).start();
    let arrivals = backend.arrivals();
    attack(&router, "POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 8192\r\n\r\n", |stream| send(stream, b"x"));
    assert!(backend.arrivals() > arrivals, "ordinary queries reached the backend");
}

#[test]
fn clients_that_hardly_read_are_hung_up_on() {
    let (backend, large) = (Backend::start("blue"), Backend::start("large"));
    // More than the kernel holds for a client that does not read.
    large.behave(Behaviour::Large(8 << 20));
    let ordinary = format!(
        "{LIMITS}[[route]]\nname = \"ordinary\"\nmatch = {{ path_prefix = \"/rank\" }}\n[route.pools.blue]\nendpoints = [{:?}]\n",
        backend.url()
    );
    let router = Setup::default().pool("blue", &[&large]).top(&ordinary).start();
    let attackers = attack(&router, "GET /large HTTP/1.1\r\nhost: a\r\n\r\n", |stream| drop(stream.read(&mut [0])));
    // Reset: closed in order, the kernel would hold some MiB for each of them for as long as they like.
    let ends: Vec<_> = attackers.into_iter().map(end_of).collect();
    let resets = ends.iter().filter(|end| matches!(end, Some(std::io::ErrorKind::ConnectionReset))).count();
    // Where the backend itself paused for so long, which this machine may make it do, the response is broken off in order.
    let paused = router.metric("switchback_requests_total", &["route=\"search\"", "code=\"timeout\""]) as usize;
    assert!(resets + paused >= ATTACKERS && resets > ATTACKERS / 2, "{resets} resets, {paused} pauses: {ends:?}");
}
