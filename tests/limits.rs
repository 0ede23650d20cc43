//! The promise: there is a limit on everything that a client or a backend may take. Whoever breaks one is told where the standard has a way
//! to tell, is counted by reason, and costs nobody else a query.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use switchback_tests::frames::{frame, hello};
use switchback_tests::{Backend, Behaviour, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(10);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\n\r\n";

struct World {
    router: Router,
    blue: Backend,
}

impl World {
    fn new(limits: &str, route: &str) -> World {
        let blue = Backend::start("blue");
        let router = Setup::default().pool("blue", &[&blue]).top(&format!("[limits]\n{limits}")).route(route).start();
        World { router, blue }
    }

    fn refusals(&self, reason: &str) -> f64 {
        self.router.metric("switchback_refusals_total", &[&format!("reason=\"{reason}\"")])
    }

    /// One was refused for this reason, and everybody else is served.
    fn assert_refused(&self, reason: &str) {
        eventually(reason, SOON, || (self.refusals(reason) >= 1.0).then_some(()));
        assert_eq!(self.refusals(reason), 1.0, "{reason}");
        self.blue.behave(Behaviour::Answer);
        let response = http::raw(self.router.traffic, GET).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }

    fn connect(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.router.traffic).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

fn post(length: usize) -> String {
    format!("POST /rank HTTP/1.1\r\nhost: search.test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
}

#[test]
fn a_head_that_takes_too_long_is_answered_with_408_and_silence_with_nothing() {
    let world = World::new("header_timeout = \"200ms\"", "");
    let response = read_all(world.connect("GET /rank HTTP/1.1\r\nhost: sea"));
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"), "{response}");
    world.assert_refused("head_time");
    assert_eq!(read_all(world.connect("")), "");
    eventually("both", SOON, || (world.refusals("head_time") == 2.0).then_some(()));
}

#[test]
fn a_head_that_is_too_large_is_answered_with_431() {
    let world = World::new("header_bytes = \"8KiB\"", "");
    let long = format!("GET /rank HTTP/1.1\r\nhost: search.test\r\nx-long: {}\r\n\r\n", "a".repeat(9_000));
    assert!(read_all(world.connect(&long)).starts_with("HTTP/1.1 431"));
    world.assert_refused("head_size");
}

#[test]
fn a_head_with_too_many_fields_is_answered_with_431_in_both_protocols() {
    let world = World::new("headers = 20", "");
    let fields: String = (0..30).map(|field| format!("x-{field}: 1\r\n")).collect();
    assert!(read_all(world.connect(&format!("GET /rank HTTP/1.1\r\nhost: search.test\r\n{fields}\r\n"))).starts_with("HTTP/1.1 431"));
    world.assert_refused("head_size");
    let status = over_h2(world.router.traffic, async |mut sender| {
        let mut request = ::http::Request::get("http://search.test/rank");
        for field in 0..30 {
            request = request.header(format!("x-{field}"), "1");
        }
        sender.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap().status().as_u16()
    });
    assert_eq!((status, world.refusals("head_size")), (431, 2.0));
}

#[test]
fn connections_are_counted_in_all_and_by_address() {
    for (limit, reason) in [("connections = 3", "connections"), ("connections_per_address = 3", "address")] {
        let world = World::new(limit, "");
        let held: Vec<TcpStream> = (0..3).map(|_| world.connect(&GET.replace("close", "keep-alive"))).collect();
        for mut stream in &held {
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
        }
        assert_eq!(read_all(world.connect(GET)), "", "closed without a word");
        drop(held);
        eventually("room again", SOON, || http::raw(world.router.traffic, GET).ok()?.starts_with("HTTP/1.1 200").then_some(()));
        assert!(world.refusals(reason) >= 1.0, "{reason}");
    }
}

#[test]
fn a_body_that_is_announced_too_large_does_not_reach_a_backend() {
    let world = World::new("", "max_request_body = \"1KiB\"");
    let response = read_all(world.connect(&post(1_025)));
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    assert_eq!(world.blue.arrivals(), 0);
    world.assert_refused("body_size");
    assert!(read_all(world.connect(&format!("{}{}", post(1_024), "a".repeat(1_024)))).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_body_that_grows_too_large_is_answered_with_413_or_broken_off() {
    const CHUNK: &str = "200\r\n";
    let chunked = "POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = |count: usize| format!("{CHUNK}{}\r\n", "a".repeat(0x200)).repeat(count);
    let world = World::new("", "max_request_body = \"1KiB\"");
    // Nothing is answered before the body is whole.
    let response = read_all(world.connect(&format!("{chunked}{}", chunks(3))));
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    world.assert_refused("body_size");
    // The answer is on its way: it can only break off.
    world.blue.behave(Behaviour::Echo);
    let mut stream = world.connect(&format!("{chunked}{}", chunks(1)));
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    stream.write_all(chunks(2).as_bytes()).unwrap();
    let rest = read_all(stream);
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
    eventually("counted", SOON, || (world.refusals("body_size") == 2.0).then_some(()));
    assert_eq!(world.router.metric("switchback_requests_total", &["code=\"failure\""]), 0.0, "no backend's fault");
}

#[test]
fn an_answer_is_not_lost_because_its_client_still_sends() {
    const LARGE: usize = 1 << 20;
    let world = World::new("", "max_request_body = \"1KiB\"");
    let chunked = "POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n".to_owned();
    for round in 0..20 {
        for (head, status) in [(post(LARGE), "413"), (chunked.clone(), "413"), ("NO HTTP\r\n\r\n".to_owned(), "400")] {
            let mut stream = world.connect(&head);
            stream.write_all(&vec![b'a'; LARGE]).unwrap_or_else(|error| panic!("round {round}, {status}: {error}"));
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("round {round}, {status}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.ends_with('\n'), "{answer}");
        }
    }
    assert_eq!((world.refusals("body_size"), world.refusals("head")), (40.0, 20.0));
    // A head that goes on after its time was over.
    let world = World::new("header_timeout = \"200ms\"", "");
    let mut stream = world.connect("GET /rank HTTP/1.1\r\nhost: sea");
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    for _ in 0..3 {
        stream.write_all(&vec![b'a'; LARGE]).unwrap();
    }
    assert!(stream.read_to_end(&mut Vec::new()).is_ok(), "it is closed in order");
    world.assert_refused("head_time");
}

#[test]
fn a_client_that_has_its_answer_and_never_closes_is_let_go() {
    let world = World::new("", "max_request_body = \"1KiB\"");
    let open = || world.router.metric("switchback_worker_connections", &["protocol=\"http1\""]);
    let mut stream = world.connect(&post(1 << 30));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(open(), 1.0, "it has some time to see the end");
    eventually("it is let go", SOON, || (open() == 0.0).then_some(()));
    drop(stream);
}

#[test]
fn a_response_that_is_too_large_is_a_502_or_broken_off() {
    let world = World::new("", "max_response_body = \"1KiB\"");
    world.blue.behave(Behaviour::Large(1_025));
    assert!(http::raw(world.router.traffic, GET).unwrap().starts_with("HTTP/1.1 502"));
    let broken = || world.router.metric("switchback_broken_responses_total", &["reason=\"size\""]);
    assert_eq!(broken(), 1.0);
    world.blue.behave(Behaviour::Echo);
    let body = format!("201\r\n{0}\r\n201\r\n{0}\r\n0\r\n\r\n", "a".repeat(0x201));
    let response =
        read_all(world.connect(&format!("POST /rank HTTP/1.1\r\nhost: search.test\r\ntransfer-encoding: chunked\r\n\r\n{body}")));
    assert!(response.starts_with("HTTP/1.1 200") && !response.ends_with("0\r\n\r\n"), "{response}");
    eventually("counted", SOON, || (broken() == 2.0).then_some(()));
}

#[test]
fn an_upload_has_a_time_for_the_whole_of_it() {
    let world = World::new("upload_timeout = \"400ms\"", "");
    world.blue.behave(Behaviour::Hang);
    let mut stream = world.connect(&post(100_000));
    // Never idle for long, and never done.
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut answer = [0; 512];
    let got = eventually("an answer", SOON, || {
        let _ = stream.write_all(b"x");
        stream.read(&mut answer).ok()
    });
    let answer = String::from_utf8_lossy(&answer[..got]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    world.assert_refused("body_time");
    assert_eq!(world.router.metric("switchback_requests_total", &["code=\"timeout\""]), 0.0);
}

#[test]
fn a_query_has_a_time_for_the_whole_of_it() {
    let world = World::new("query_timeout = \"300ms\"", "timeouts = { attempt = \"1m\", total = \"1m\" }");
    world.blue.behave(Behaviour::Hang);
    assert_eq!(read_all(world.connect(GET)), "");
    world.assert_refused("query_time");
}

#[test]
fn a_backends_first_byte_has_a_time() {
    let world = World::new("", "timeouts = { attempt = \"200ms\", total = \"400ms\" }");
    world.blue.behave(Behaviour::Hang);
    assert!(http::raw(world.router.traffic, GET).unwrap().starts_with("HTTP/1.1 504"));
}

#[test]
fn a_body_that_pauses_too_long_is_answered_with_408() {
    let world = World::new("body_idle_timeout = \"200ms\"", "");
    world.blue.behave(Behaviour::Hang);
    assert!(read_all(world.connect(&format!("{}x", post(10)))).starts_with("HTTP/1.1 408"));
    world.assert_refused("body_time");
    // The answer is on its way: it can only break off.
    world.blue.behave(Behaviour::Echo);
    let answer = read_all(world.connect(&format!("{}x", post(10))));
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    eventually("counted", SOON, || (world.refusals("body_time") == 2.0).then_some(()));
    let of = |code: &str| world.router.metric("switchback_requests_total", &[&format!("code=\"{code}\"")]);
    assert_eq!((of("failure"), of("timeout")), (0.0, 0.0), "no backend's fault");
}

#[test]
fn a_body_that_a_query_has_no_time_for_is_answered_with_408() {
    let world = World::new("", "timeouts = { attempt = \"200ms\", total = \"400ms\" }");
    world.blue.behave(Behaviour::Hang);
    assert!(read_all(world.connect(&format!("{}x", post(10)))).starts_with("HTTP/1.1 408"));
    world.assert_refused("body_time");
}

#[test]
fn a_client_that_takes_nothing_is_hung_up_on() {
    let world = World::new("body_idle_timeout = \"300ms\"", "");
    world.blue.behave(Behaviour::Large(64 << 20));
    let stream = world.connect(GET);
    world.assert_refused("slow_reader");
    drop(stream);
}

/// Asks over HTTP/2 on a connection of its own.
fn over_h2<T>(address: SocketAddr, ask: impl AsyncFnOnce(h2::client::SendRequest<bytes::Bytes>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        ask(sender.ready().await.unwrap()).await
    })
}

#[test]
fn streams_that_are_reset_before_their_responses_end_the_connection() {
    let world = World::new("h2_resets = 20", "");
    world.blue.behave(Behaviour::Hang);
    let opened = over_h2(world.router.traffic, async |mut sender| {
        for count in 0..10_000 {
            let request = ::http::Request::get("http://search.test/rank").body(()).unwrap();
            let Ok((response, _)) = sender.send_request(request, true) else { return count };
            let before = world.blue.arrivals();
            // The backend has it: this is more than HTTP/2's own limit on what was never begun sees.
            while world.blue.arrivals() == before && world.refusals("resets") == 0.0 {
                switchback_tests::look_again().await;
            }
            drop(response);
            match sender.ready().await {
                Ok(next) => sender = next,
                Err(_) => return count,
            }
        }
        10_000
    });
    assert!((20..100).contains(&opened), "{opened}");
    world.assert_refused("resets");
}

/// `:method GET`, `:scheme http`, `:path /`, `:authority a`.
const FIELDS: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// Whether the router still answers a PING after so many of these frames.
fn survives(world: &World, count: u32, frames: impl Fn(u32) -> Vec<u8>) -> bool {
    let mut stream = world.connect("");
    let mut reads = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut head, mut payload) = ([0; 9], Vec::new());
        while reads.read_exact(&mut head).is_ok() {
            payload.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
            if reads.read_exact(&mut payload).is_err() {
                break;
            }
            if (head[3], head[4], payload.as_slice()) == (6, 1, &[9; 8][..]) {
                return true;
            }
        }
        false
    });
    let mut all = (0..count).map(frames).chain([frame(6, 0, 0, &[9; 8])]);
    // Once it has hung up, what is written goes nowhere.
    let _ = stream.write_all(&hello()).and_then(|()| all.try_for_each(|bytes| stream.write_all(&bytes)));
    reader.join().unwrap()
}

#[test]
fn a_client_that_makes_the_router_reset_its_streams_is_hung_up_on() {
    // MadeYouReset, CVE-2025-8671: a window that grows beyond what a window can be makes the receiver reset the stream.
    let world = World::new("h2_forced_resets = 20\nh2_resets = 1000", "");
    world.blue.behave(Behaviour::Hang);
    let overflow = |count: u32| {
        let stream = count * 2 + 1;
        [frame(1, 0x5, stream, FIELDS), frame(8, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
    };
    assert!(survives(&world, 15, overflow));
    assert!(!survives(&world, 40, overflow));
    world.assert_refused("http2");
}

#[test]
fn a_head_that_never_ends_is_hung_up_on() {
    // CONTINUATION without END_HEADERS; a literal field without indexing: x: y.
    let world = World::new("header_bytes = \"8KiB\"", "");
    let endless = |count: u32| match count {
        0 => frame(1, 0x1, 1, FIELDS),
        _ => frame(9, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y'].repeat(200)),
    };
    assert!(!survives(&world, 2_000, endless));
    world.assert_refused("http2");
}

#[test]
fn floods_of_pings_and_settings_take_no_memory_and_no_time_of_others() {
    let world = World::new("", "");
    for flood in [frame(6, 0, 0, &[7; 8]), frame(4, 0, 0, &[])] {
        let mut stream = TcpStream::connect(world.router.traffic).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.write_all(&hello()).unwrap();
        let before = world.router.metric("process_resident_memory_bytes", &[]);
        // It reads no answer: the router stops reading when it cannot answer.
        let batch = flood.repeat(4_096);
        let _ = (0..2_000).find(|_| stream.write_all(&batch).is_err());
        let response = http::raw(world.router.traffic, GET).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let grown = world.router.metric("process_resident_memory_bytes", &[]) - before;
        assert!(grown < 32e6, "{grown} bytes");
    }
}

#[test]
fn a_stream_too_many_is_refused_and_the_others_go_on() {
    let world = World::new("h2_streams = 2", "");
    world.blue.behave(Behaviour::Hang);
    let mut stream = world.connect("");
    let streams = [1, 3, 5].map(|number| frame(1, 0x5, number, FIELDS));
    stream.write_all(&[hello(), streams.concat()].concat()).unwrap();
    let (mut head, mut payload) = ([0; 9], Vec::new());
    loop {
        stream.read_exact(&mut head).unwrap();
        payload.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 3 {
            break;
        }
    }
    // REFUSED_STREAM: it may be sent again.
    assert_eq!((&head[5..], payload.as_slice()), (&[0, 0, 0, 5][..], &[0, 0, 0, 7][..]));
    eventually("the others are asked", SOON, || (world.blue.arrivals() == 2).then_some(()));
}

#[test]
fn streams_that_are_reset_before_they_are_begun_end_the_connection() {
    // Rapid reset, CVE-2023-44487, faster than any of it is looked at.
    let world = World::new("h2_pending_resets = 20\nh2_resets = 100000", "");
    let resets = |count: u32| -> Vec<u8> {
        let pair = |stream: u32| [frame(1, 0x5, stream, FIELDS), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
        (0..count).flat_map(|number| pair(number * 2 + 1)).collect()
    };
    assert!(survives(&world, 1, |_| resets(15)));
    assert!(!survives(&world, 1, |_| resets(200)));
    world.assert_refused("http2");
}
