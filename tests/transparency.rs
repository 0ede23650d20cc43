//! The promise: nobody can tell that the router is there. The same request, sent straight to a backend and through the router, comes back
//! with the same interim responses, status, fields, body, trailers and end, and the backend was sent the same; but for what
//! docs/PROXY.md says is changed.
//!
//! {HTTP/1.1, HTTP/2} x {in the clear, over TLS} in, {HTTP/1.1, HTTP/2} out, times everything that an answer can be. Each cell asks both
//! ways with one client that reads bytes and frames itself. Straight ways are in the clear: TLS changes nothing of what is compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use switchback_tests::exchange::{Answer, Ask, Speaks, Upload, exchange};
use switchback_tests::scenes::{Got, PATIENCE, Stage};
use switchback_tests::tls::Authority;
use switchback_tests::{Router, Setup, eventually};

struct Cell {
    name: &'static str,
    ask: Ask,
}

fn cell(name: &'static str, method: &'static str, path: &'static str, body: Upload) -> Cell {
    Cell { name, ask: Ask { method, path, headers: vec![("te", "trailers"), ("x-user-id", "u1")], body, is_slow: false, leaves: false } }
}

fn cells() -> Vec<Cell> {
    let mut slow_client = cell("slow client", "POST", "/length", Upload::Chunked);
    slow_client.ask.is_slow = true;
    let mut client_abort = cell("client abort", "GET", "/hang", Upload::Nothing);
    client_abort.ask.leaves = true;
    let mut grpc = cell("gRPC", "POST", "/grpc", Upload::Sized);
    grpc.ask.headers.push(("content-type", "application/grpc"));
    let mut grpc_error = cell("gRPC, trailers only", "POST", "/grpc-error", Upload::Sized);
    grpc_error.ask.headers.push(("content-type", "application/grpc"));
    let mut chat = cell("WebSocket", "GET", "/chat", Upload::Nothing);
    chat.ask.headers.extend([("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]);
    vec![
        cell("content-length", "POST", "/length", Upload::Sized),
        cell("chunked", "POST", "/chunked", Upload::Chunked),
        cell("empty", "GET", "/empty", Upload::Nothing),
        cell("10 MB up", "POST", "/up", Upload::Large),
        cell("10 MB down", "GET", "/down", Upload::Nothing),
        cell("HEAD", "HEAD", "/head", Upload::Nothing),
        cell("204", "GET", "/nothing", Upload::Nothing),
        cell("304", "GET", "/not-modified", Upload::Nothing),
        cell("103", "GET", "/hints", Upload::Nothing),
        grpc,
        grpc_error,
        chat,
        cell("server-sent events", "GET", "/events", Upload::Nothing),
        slow_client,
        cell("slow backend", "GET", "/slow", Upload::Nothing),
        client_abort,
        cell("backend abort", "GET", "/break", Upload::Nothing),
    ]
}

/// A cell that is not as it would be straight, by docs/PROXY.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// Interim responses are HTTP/1.1's, on both sides: hyper has no way for them in HTTP/2.
    NoInterim,
    /// HTTP/2 has no `Upgrade`, and RFC 8441 is not offered.
    NoUpgrade,
}

fn documented(cell: &Cell, way: Way) -> Option<Difference> {
    let is_h1_throughout = way.from == Speaks::Http1 && way.to == Speaks::Http1;
    match cell.name {
        "103" if !is_h1_throughout => Some(Difference::NoInterim),
        "WebSocket" if !is_h1_throughout => Some(Difference::NoUpgrade),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Way {
    from: Speaks,
    is_tls: bool,
    to: Speaks,
}

impl Way {
    fn name(self) -> String {
        let from = match (self.from, self.is_tls) {
            (Speaks::Http1, false) => "HTTP/1.1",
            (Speaks::Http1, true) => "HTTP/1.1 over TLS",
            (Speaks::Http2, false) => "h2c",
            (Speaks::Http2, true) => "h2 over TLS",
        };
        format!("{from} -> {}", if self.to == Speaks::Http1 { "HTTP/1.1" } else { "h2" })
    }
}

struct World {
    backend: Stage,
    router: Router,
    client: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(to: Speaks, alpn: &str) -> World {
        let (authority, folder, backend) = (Authority::new(), tempfile::tempdir().unwrap(), Stage::start());
        let (cert, key) = authority.issue(&["search.test"]).write(folder.path(), "a");
        let protocol = if to == Speaks::Http1 { "protocol = \"http1\"" } else { "protocol = \"h2\"" };
        let router = Setup::default()
            .pool_at("blue", backend.address)
            .pool_keys(protocol)
            .listen("traffic_tls = \"127.0.0.1:0\"")
            .top(&format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n"))
            .start();
        World { backend, router, client: authority.client(None, &[alpn]), _folder: folder }
    }

    /// What came back, what the backend was sent, and how often it found nobody there any more.
    async fn ask(&self, address: SocketAddr, is_tls: bool, speaks: Speaks, ask: &Ask) -> (Answer, Option<Got>) {
        self.backend.take_got();
        let waits = matches!(ask.path, "/events" | "/break");
        // The first piece is here: the rest may come. Were it held back, nothing more would ever come.
        let seen = |length: usize| {
            if waits && length <= 9 {
                self.backend.go_on();
            }
        };
        let tls = is_tls.then_some(&self.client);
        let answer = tokio::time::timeout(PATIENCE, exchange(address, tls, speaks, ask, seen)).await;
        let answer = answer.unwrap_or_else(|_| Ok(Answer { is_broken: true, ..Answer::default() }));
        (answer.unwrap_or_else(|error| panic!("no answer: {error}")), self.backend.take_got())
    }

    async fn aborts_after(&self, before: u64) -> bool {
        let limit = tokio::time::Instant::now() + PATIENCE;
        while self.backend.aborts() == before && tokio::time::Instant::now() < limit {
            switchback_tests::look_again().await;
        }
        self.backend.aborts() > before
    }
}

/// Without what docs/PROXY.md says is a hop's own, or the router's.
fn passed(fields: &[(String, String)]) -> Vec<(String, String)> {
    const CHANGED: [&str; 8] =
        ["connection", "keep-alive", "transfer-encoding", "via", "x-forwarded-for", "x-forwarded-proto", "x-switchback-pool", "upgrade"];
    let is_changed = |(name, value): &(String, String)| CHANGED.contains(&name.as_str()) || (name == "content-length" && value == "0");
    fields.iter().filter(|field| !is_changed(field)).cloned().collect()
}

fn comparable(answer: &Answer) -> Answer {
    Answer { headers: passed(&answer.headers), trailers: passed(&answer.trailers), ..answer.clone() }
}

/// Asks both ways; `Err` says what differs.
async fn compare(world: &World, way: Way, cell: &Cell) -> Result<(), String> {
    let address = if way.is_tls { world.router.traffic_tls.unwrap() } else { world.router.traffic };
    let mut ask = cell.ask.clone();
    let difference = documented(cell, way);
    if difference == Some(Difference::NoUpgrade) && way.from == Speaks::Http2 {
        // A client of HTTP/2 cannot even ask.
        ask.headers.retain(|(name, _)| !matches!(*name, "connection" | "upgrade"));
    }
    let before = world.backend.aborts();
    let (straight, sent_straight) = world.ask(world.backend.address, false, way.from, &ask).await;
    if ask.leaves && !world.aborts_after(before).await {
        return Err("the backend, asked straight, did not notice that its client left".to_owned());
    }
    let before = world.backend.aborts();
    let (routed, sent_routed) = world.ask(address, way.is_tls, way.from, &ask).await;
    if ask.leaves && !world.aborts_after(before).await {
        return Err("the backend did not notice that the client left".to_owned());
    }
    let (mut straight, routed) = (comparable(&straight), comparable(&routed));
    match difference {
        Some(Difference::NoInterim) => straight.interim = Vec::new(),
        Some(Difference::NoUpgrade) if way.from == Speaks::Http1 => {
            // It passes as if it had not been asked for, and this backend then says 426.
            let is_passed_plainly = routed.status == 426 && straight.status == 101;
            return if is_passed_plainly { Ok(()) } else { Err(format!("{routed:?}")) };
        }
        _ => {}
    }
    if straight != routed {
        return Err(format!("answers differ\n    straight {straight:?}\n    routed   {routed:?}"));
    }
    let requests = [sent_straight, sent_routed].map(|got| got.map(|got| Got { headers: passed(&got.headers), ..got }));
    if requests[0] != requests[1] {
        return Err(format!("requests differ\n    straight {:?}\n    routed   {:?}", requests[0], requests[1]));
    }
    Ok(())
}

#[test]
fn nobody_can_tell_that_the_router_is_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut table, mut failures, mut count) = (String::new(), 0, 0);
    for to in [Speaks::Http1, Speaks::Http2] {
        for from in [Speaks::Http1, Speaks::Http2] {
            let world = World::new(to, if from == Speaks::Http1 { "http/1.1" } else { "h2" });
            for is_tls in [false, true] {
                let way = Way { from, is_tls, to };
                for cell in cells() {
                    let result = runtime.block_on(compare(&world, way, &cell));
                    let verdict = match (&result, documented(&cell, way)) {
                        (Err(what), _) => format!("FAILED: {what}"),
                        (Ok(()), Some(difference)) => format!("as documented ({difference:?})"),
                        (Ok(()), None) => "same".to_owned(),
                    };
                    writeln!(table, "{:<30} {:<20} {verdict}", way.name(), cell.name).unwrap();
                    failures += usize::from(result.is_err());
                    count += 1;
                }
            }
        }
    }
    println!("{table}");
    assert_eq!((failures, count), (0, 8 * cells().len()), "\n{table}");
}

#[test]
fn websockets_over_http2_are_not_offered() {
    let world = World::new(Speaks::Http1, "h2");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(world.router.traffic).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let get = http::Request::get("http://search.test/empty").body(()).unwrap();
        assert_eq!(sender.send_request(get, true).unwrap().0.await.unwrap().status(), 200);
        assert!(!sender.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441)");
    });
    eventually("the router goes on", PATIENCE, || (world.router.metric("switchback_connections_total", &[]) >= 1.0).then_some(()));
}
