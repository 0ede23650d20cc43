//! The promise: nobody can tell that the router is there. The same request, sent straight to a backend and through the router, comes back
//! with the same interim responses, status, fields, body, trailers and end, and the backend was sent the same; but for what
//! docs/PROXY.md says is changed.
//!
//! {HTTP/1.1, HTTP/2} x {in the clear, over TLS} in, {HTTP/1.1, HTTP/2} out, times everything that an answer can be. Each cell asks both
//! ways with one client that reads bytes and frames itself. Straight ways are in the clear: TLS changes nothing of what is compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;
use switchback_tests::exchange::{Answer, Ask, CHAT, Leaves, Speaks, Upload, Watch, exchange};
use switchback_tests::scenes::{Got, PATIENCE, Stage};
use switchback_tests::tls::Authority;
use switchback_tests::{Router, Setup};

struct Cell {
    name: &'static str,
    ask: Ask,
}

fn cell(name: &'static str, method: &'static str, path: &'static str, body: Upload) -> Cell {
    Cell {
        name,
        ask: Ask {
            method,
            path,
            headers: vec![("te", "trailers"), ("x-user-id", "u1")],
            body,
            is_slow: false,
            expects: false,
            leaves: Leaves::Answered,
        },
    }
}

fn cells() -> Vec<Cell> {
    let mut slow_client = cell("slow client", "POST", "/length", Upload::Chunked);
    slow_client.ask.is_slow = true;
    let mut client_abort = cell("client abort", "GET", "/hang", Upload::Nothing);
    client_abort.ask.leaves = Leaves::WhileReading;
    let mut client_abort_up = cell("client abort, sending", "POST", "/up", Upload::Large);
    client_abort_up.ask.leaves = Leaves::WhileSending;
    let mut client_abort_chunked = cell("client abort, sending chunks", "POST", "/up", Upload::LargeChunked);
    client_abort_chunked.ask.leaves = Leaves::WhileSending;
    let mut expects = cell("100-continue", "POST", "/length", Upload::Sized);
    expects.ask.expects = true;
    expects.ask.headers.push(("expect", "100-continue"));
    let mut grpc = cell("gRPC", "POST", "/grpc", Upload::Sized);
    grpc.ask.headers.push(("content-type", "application/grpc"));
    let mut grpc_error = cell("gRPC, trailers only", "POST", "/grpc-error", Upload::Sized);
    grpc_error.ask.headers.push(("content-type", "application/grpc"));
    let mut chat = cell("WebSocket", "GET", CHAT, Upload::Nothing);
    chat.ask.headers.extend([("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]);
    chat.ask.headers.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
    vec![
        cell("content-length", "POST", "/length", Upload::Sized),
        cell("chunked", "POST", "/chunked", Upload::Chunked),
        cell("empty", "GET", "/empty", Upload::Nothing),
        cell("empty, and says so", "POST", "/empty", Upload::Empty),
        cell("10 MB up", "POST", "/up", Upload::Large),
        cell("10 MB up, chunked", "POST", "/up", Upload::LargeChunked),
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
        client_abort_up,
        client_abort_chunked,
        cell("backend abort", "GET", "/break", Upload::Nothing),
        cell("backend abort, chunked", "GET", "/break-chunked", Upload::Nothing),
        expects,
        cell("trailers, not announced", "GET", "/plain-trailers", Upload::Nothing),
    ]
}

/// A cell that is not as it would be straight, by docs/PROXY.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// A client of HTTP/1.1 gets the trailers that the head announced, and no others.
    Announced,
    /// An empty response of HTTP/2 needs no length, and has one in HTTP/1.1.
    Length,
}

fn documented(cell: &Cell, way: Way) -> Option<Difference> {
    match (cell.name, way.from, way.to) {
        ("trailers, not announced", Speaks::Http1, _) => Some(Difference::Announced),
        ("gRPC, trailers only", Speaks::Http1, Speaks::Http2) => Some(Difference::Length),
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

    /// What came back, and what the backend was sent.
    async fn ask(&self, address: SocketAddr, is_tls: bool, speaks: Speaks, ask: &Ask) -> Result<(Answer, Option<Got>), String> {
        self.backend.take_got();
        let waits = matches!(ask.path, "/events" | "/break" | "/break-chunked");
        let watching = Watching { backend: &self.backend, waits, heads: self.backend.heads() };
        let tls = is_tls.then_some(&self.client);
        let answer = tokio::time::timeout(PATIENCE, exchange(address, tls, speaks, ask, watching)).await;
        let answer = answer.map_err(|_| format!("nothing within {PATIENCE:?} from {address}"))?;
        Ok((answer.map_err(|error| format!("no answer from {address}: {error}"))?, self.backend.take_got()))
    }

    async fn aborts_after(&self, before: u64) -> bool {
        let limit = tokio::time::Instant::now() + PATIENCE;
        while self.backend.aborts() == before && tokio::time::Instant::now() < limit {
            switchback_tests::look_again().await;
        }
        self.backend.aborts() > before
    }
}

struct Watching<'a> {
    backend: &'a Stage,
    waits: bool,
    heads: u64,
}

impl Watch for Watching<'_> {
    /// The first piece is here: the rest may come. Were it held back, nothing more would ever come.
    fn seen(&mut self, length: usize) {
        if self.waits && length <= 9 {
            self.backend.go_on();
        }
    }

    fn has_begun(&self) -> bool {
        self.backend.heads() > self.heads
    }
}

/// Without what docs/PROXY.md says is a hop's own, or the router's.
fn passed(fields: &[(String, String)]) -> Vec<(String, String)> {
    const CHANGED: [&str; 9] = [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-switchback-pool",
        "x-switchback-token",
        "upgrade",
    ];
    let is_changed = |(name, _): &(String, String)| CHANGED.contains(&name.as_str());
    fields.iter().filter(|field| !is_changed(field)).cloned().collect()
}

/// A WebSocket's key belongs to HTTP/1.1 (RFC 8441, 5), and is made or dropped where only one side speaks that.
fn sent(got: Got, way: Way) -> Got {
    let mut headers = passed(&got.headers);
    headers.retain(|(name, _)| name != "sec-websocket-key" || way.from == way.to);
    Got { headers, ..got }
}

fn comparable(answer: &Answer) -> Answer {
    Answer { headers: passed(&answer.headers), trailers: passed(&answer.trailers), ..answer.clone() }
}

/// Asks both ways; `Err` says what differs.
async fn compare(world: &World, way: Way, cell: &Cell) -> Result<(), String> {
    let address = if way.is_tls { world.router.traffic_tls.unwrap() } else { world.router.traffic };
    let ask = cell.ask.clone();
    let leaves = ask.leaves != Leaves::Answered;
    let before = world.backend.aborts();
    let (straight, sent_straight) = world.ask(world.backend.address, false, way.from, &ask).await?;
    if leaves && !world.aborts_after(before).await {
        return Err("the backend, asked straight, did not notice that its client left".to_owned());
    }
    let before = world.backend.aborts();
    let (routed, sent_routed) = world.ask(address, way.is_tls, way.from, &ask).await?;
    if leaves && !world.aborts_after(before).await {
        return Err("the backend did not notice that the client left".to_owned());
    }
    let tokens: Vec<usize> = routed.headers.iter().filter(|(name, _)| name == "x-switchback-token").map(|(_, token)| token.len()).collect();
    if tokens != [64].repeat(usize::from(cell.name != "WebSocket" && !routed.headers.is_empty())) {
        return Err(format!("tokens of these lengths, where there should be one of 64 characters: {tokens:?} {routed:?}"));
    }
    let (mut straight, mut routed) = (comparable(&straight), comparable(&routed));
    match documented(cell, way) {
        Some(Difference::Announced) => assert!(!std::mem::take(&mut straight.trailers).is_empty()),
        Some(Difference::Length) => routed.headers.retain(|field| *field != ("content-length".to_owned(), "0".to_owned())),
        None => {}
    }
    if straight != routed {
        return Err(format!("answers differ\n    straight {straight:?}\n    routed   {routed:?}"));
    }
    let requests = [sent_straight, sent_routed].map(|got| got.map(|got| sent(got, way)));
    if requests[0] != requests[1] {
        return Err(format!("requests differ\n    straight {:?}\n    routed   {:?}", requests[0], requests[1]));
    }
    Ok(())
}

/// Every way, in the order of the report's columns.
fn ways() -> Vec<Way> {
    let speaks = [Speaks::Http1, Speaks::Http2];
    let pairs = speaks.into_iter().flat_map(|to| speaks.into_iter().map(move |from| (from, to)));
    pairs.flat_map(|(from, to)| [false, true].map(|is_tls| Way { from, is_tls, to })).collect()
}

/// What came of a cell on each way.
type Row = (&'static str, Vec<Result<Option<Difference>, String>>);

fn shown(result: &Result<Option<Difference>, String>) -> &'static str {
    match result {
        Ok(None) => "same",
        Ok(Some(Difference::Announced)) => "same, no trailers (1)",
        Ok(Some(Difference::Length)) => "same, and a length (2)",
        Err(_) => "**differs**",
    }
}

fn table(rows: &[Row]) -> String {
    let heads: Vec<String> = ways().into_iter().map(Way::name).collect();
    let mut text = format!("| | {} |\n|---{}|\n", heads.join(" | "), "|---".repeat(heads.len()));
    for (name, results) in rows {
        let cells: Vec<&str> = results.iter().map(shown).collect();
        writeln!(text, "| {name} | {} |", cells.join(" | ")).unwrap();
    }
    text
}

fn keep(rows: &[Row]) {
    let said = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).output().unwrap().stdout;
        String::from_utf8(output).unwrap().trim().to_owned()
    };
    let text = format!(
        "# The same with and without the router: the last run that was kept\n\n\
         {}, commit {}, `SWITCHBACK_FULL=1 cargo nextest run --release --locked --workspace --test transparency`.\n\n\
         Each cell asks a backend straight and through the router, and compares interim responses, status, fields, body, trailers and how it\n\
         ended, and what the backend was sent. Fields that [docs/PROXY.md](../../docs/PROXY.md) names as a hop's own or the router's are left out.\n\n\
         {}\n\
         1. In HTTP/1.1 a client gets the trailers that the head announced, which a stream of HTTP/2 need not do.\n\
         2. An empty response of HTTP/2 says no length; in HTTP/1.1 it gets `Content-Length: 0`.\n",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        table(rows),
    );
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("transparency/report.md"), text).unwrap();
}

#[test]
fn nobody_can_tell_that_the_router_is_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rows: Vec<Row> = cells().iter().map(|cell| (cell.name, Vec::new())).collect();
    for way in ways() {
        let world = World::new(way.to, if way.from == Speaks::Http1 { "http/1.1" } else { "h2" });
        for (cell, row) in cells().iter().zip(&mut rows) {
            row.1.push(runtime.block_on(compare(&world, way, cell)).map(|()| documented(cell, way)));
        }
    }
    let table = table(&rows);
    println!("{table}");
    let failed = |(name, results): &Row| {
        let named = results.iter().zip(ways()).filter_map(|(result, way)| Some((result.as_ref().err()?, way)));
        named.map(|(what, way)| format!("{name}, {}: {what}", way.name())).collect::<Vec<_>>()
    };
    let failures: Vec<String> = rows.iter().flat_map(failed).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    if std::env::var_os("SWITCHBACK_FULL").is_some_and(|value| value == "1") {
        keep(&rows);
    }
}
