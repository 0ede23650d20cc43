//! The promise: a client's connection that waits for its next request takes next to no memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use switchback_tests::{Backend, Router, Setup};

/// Below the files that a process may open where nobody has raised that.
const CONNECTIONS: usize = 700;
/// Of memory, for each of them.
const MOST_BYTES: u64 = 4 << 10;

/// Connections that were answered once, and stay.
fn answered(router: &Router, connections: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(router.traffic).unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\ncookie: sid=abcdef\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"blue") {
            let mut some = [0; 1_024];
            let count = stream.read(&mut some).unwrap();
            assert!(count > 0, "it was closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&some[..count]);
        }
        stream
    };
    (0..connections).map(one).collect()
}

#[test]
fn a_connection_that_waits_takes_next_to_no_memory() {
    let backend = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&backend]).start();
    let _first = answered(&router, 100);
    let before = router.resident_bytes();
    let _more = answered(&router, CONNECTIONS);
    let bytes = router.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    println!("{bytes} bytes for each connection");
    assert!(bytes < MOST_BYTES, "{bytes} bytes for each connection");
}
