//! A backend that plays one scene for each path, over HTTP/1.1 and HTTP/2, byte by byte and frame by frame: no HTTP library smooths over
//! what it sends, and it remembers what it was sent.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::exchange::{CHAT, Lines, read_body, read_head};

/// What a large body is made of: 10 MB in pieces.
pub const PIECE: usize = 64 << 10;
/// How many pieces.
pub const PIECES: usize = 160;

/// What health checks ask for.
const HEALTH: &str = "/v2/health/ready";

/// A request as the backend got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Method and path.
    pub line: String,
    /// Names and values, sorted; `host` is there also where it came as `:authority`.
    pub headers: Vec<(String, String)>,
    /// How long the body is, and a sum over its bytes.
    pub body: (usize, u64),
    /// As `headers`.
    pub trailers: Vec<(String, String)>,
}

/// The running backend.
pub struct Stage {
    /// Where it listens, for HTTP/1.1 and HTTP/2 with prior knowledge.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Shared {
    got: Mutex<Option<Got>>,
    /// Heads that are no health check's.
    heads: AtomicU64,
    aborts: AtomicU64,
    next: Notify,
}

impl Stage {
    /// Starts it on a free port.
    pub fn start() -> Stage {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let played = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket).unwrap();
                tokio::select! {
                    () = accept(listener, played) => {}
                    _ = stopped => {}
                }
            });
        });
        Stage { address, shared, _stop: stop }
    }

    /// The last request that was not a health check.
    pub fn take_got(&self) -> Option<Got> {
        self.shared.got.lock().unwrap().take()
    }

    /// How many requests it has begun to read.
    pub fn heads(&self) -> u64 {
        self.shared.heads.load(Ordering::SeqCst)
    }

    /// Scenes that ended because nobody was there any more.
    pub fn aborts(&self) -> u64 {
        self.shared.aborts.load(Ordering::SeqCst)
    }

    /// Lets the scene that waits go on.
    pub fn go_on(&self) {
        self.shared.next.notify_one();
    }
}

/// What a path is answered with.
struct Scene {
    interim: Vec<(u16, Vec<(&'static str, &'static str)>)>,
    status: u16,
    headers: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    trailers: Vec<(&'static str, &'static str)>,
}

enum Step {
    Data(Bytes),
    /// Until the test says so.
    Await,
    Pause,
    /// Nothing more ever comes.
    Hang,
    Break,
}

fn scene(path: &str) -> Scene {
    let text = |text: &'static str| Step::Data(Bytes::from_static(text.as_bytes()));
    let plain = |status: u16, headers: &[(&'static str, &str)], steps: Vec<Step>| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let date = ("date", "Tue, 15 Nov 1994 08:12:31 GMT".to_owned());
        Scene { interim: Vec::new(), status, headers: [date].into_iter().chain(headers).collect(), steps, trailers: Vec::new() }
    };
    let length = (PIECE * PIECES).to_string();
    match path {
        "/length" | "/head" => plain(
            200,
            &[("content-length", "11"), ("x-two", "a"), ("x-two", "b"), ("set-cookie", "a=b"), ("set-cookie", "c=d")],
            vec![text("hello world")],
        ),
        "/chunked" => plain(200, &[("trailer", "x-took")], vec![text("hello "), text("world")]).with_trailers(vec![("x-took", "1")]),
        "/up" => plain(200, &[("content-length", "2")], vec![text("ok")]),
        "/down" => plain(
            200,
            &[("content-length", length.as_str())],
            (0..PIECES).map(|_| Step::Data(Bytes::from_static(&[b'x'; PIECE]))).collect(),
        ),
        "/nothing" => plain(204, &[("x-a", "b")], Vec::new()),
        "/not-modified" => plain(304, &[("etag", "\"v1\""), ("content-length", "11")], Vec::new()),
        "/hints" => {
            let mut scene = plain(200, &[("content-length", "2")], vec![text("ok")]);
            scene.interim = vec![(103, vec![("link", "</a.css>; rel=preload")]), (103, vec![("link", "</b.css>; rel=preload")])];
            scene
        }
        "/grpc" => {
            plain(200, &[("content-type", "application/grpc"), ("trailer", "grpc-status, grpc-message")], vec![text("\0\0\0\0\x05hello")])
                .with_trailers(vec![("grpc-status", "0"), ("grpc-message", "fine")])
        }
        "/grpc-error" => plain(200, &[("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "none")], Vec::new()),
        "/events" => plain(200, &[("content-type", "text/event-stream")], vec![text("data: 1\n\n"), Step::Await, text("data: 2\n\n")]),
        "/slow" => plain(200, &[], (0..20).flat_map(|_| [text("slow "), Step::Pause]).collect()),
        "/hang" => plain(200, &[], vec![text("first"), Step::Hang]),
        "/break-chunked" => plain(200, &[], vec![text("half of"), Step::Await, Step::Break]),
        "/plain-trailers" => plain(200, &[], vec![text("hello")]).with_trailers(vec![("x-took", "1")]),
        "/break" => plain(200, &[("content-length", "100")], vec![text("half of"), Step::Await, Step::Break]),
        CHAT => plain(426, &[("content-length", "0")], Vec::new()),
        _ => plain(200, &[("content-length", "0")], Vec::new()),
    }
}

impl Scene {
    fn with_trailers(mut self, trailers: Vec<(&'static str, &'static str)>) -> Scene {
        self.trailers = trailers;
        self
    }

    fn head(&self) -> HeaderMap {
        self.headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut first = [0; 3];
            while stream.peek(&mut first).await.is_ok_and(|count| (1..3).contains(&count)) {
                tokio::task::yield_now().await;
            }
            // Whatever breaks on a connection is for the other side to see.
            let played = if &first == b"PRI" { h2(stream, shared.clone()).await } else { h1(stream, &shared).await };
            if played.is_err() {
                shared.aborts.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

type Broke = Box<dyn std::error::Error + Send + Sync>;
type Played = Result<(), Broke>;

async fn h1(stream: TcpStream, shared: &Shared) -> Played {
    let mut stream = BufReader::new(stream);
    while !stream.fill_buf().await?.is_empty() {
        let (line, headers) = read_head(&mut stream).await?;
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        if path != HEALTH {
            shared.heads.fetch_add(1, Ordering::SeqCst);
        }
        if path == CHAT && headers.contains_key("upgrade") {
            note(shared, "a tunnel", &headers, (0, 0), &HeaderMap::new());
            return chat(stream, &headers).await;
        }
        if headers.contains_key("expect") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (body, trailers) = read_body(&mut stream, &headers, false, |_| {}).await?;
        note(shared, &format!("{method} {path}"), &headers, body.sum(), &trailers);
        if play_h1(&mut stream, scene(&path), &method, shared).await?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is agreed to, beside the key's answer.
const AGREED: [(&str, &str); 2] = [("date", "Tue, 15 Nov 1994 08:12:31 GMT"), ("sec-websocket-protocol", "chat")];

async fn chat(mut stream: BufReader<TcpStream>, headers: &HeaderMap) -> Played {
    let key = headers.get("sec-websocket-key").ok_or("no key")?;
    let accept = BASE64.encode(Sha1::new_with_prefix(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize());
    let mut agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n".to_owned();
    AGREED.iter().for_each(|(name, value)| agreed.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{agreed}sec-websocket-accept: {accept}\r\n\r\n").as_bytes()).await?;
    let mut bytes = [0; 1_024];
    while let count @ 1.. = stream.read(&mut bytes).await? {
        stream.write_all(&bytes[..count]).await?;
    }
    Ok(())
}

async fn play_h1(stream: &mut BufReader<TcpStream>, scene: Scene, method: &str, shared: &Shared) -> Result<ControlFlow<()>, Broke> {
    for (status, fields) in &scene.interim {
        let mut head = format!("HTTP/1.1 {status} Early Hints\r\n");
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    }
    let is_sized = scene.headers.iter().any(|(name, _)| *name == "content-length");
    let has_body = method != "HEAD" && !matches!(scene.status, 204 | 304);
    let is_chunked = !is_sized && has_body;
    let mut head = format!("HTTP/1.1 {} {}\r\n", scene.status, StatusCode::from_u16(scene.status)?.canonical_reason().unwrap_or_default());
    scene.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str(if is_chunked { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
    stream.write_all(head.as_bytes()).await?;
    for step in scene.steps.into_iter().filter(|_| has_body) {
        match step {
            Step::Data(data) if is_chunked => {
                stream.write_all(format!("{:x}\r\n", data.len()).as_bytes()).await?;
                stream.write_all(&data).await?;
                stream.write_all(b"\r\n").await?;
            }
            Step::Data(data) => stream.write_all(&data).await?,
            Step::Await => shared.next.notified().await,
            Step::Pause => crate::look_again().await,
            // The other side closes, or never ends the test.
            Step::Hang => return Err(stream.read_u8().await.map_or_else(Into::into, |_| "more came".into())),
            Step::Break => {
                stream.get_ref().set_zero_linger()?;
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    if is_chunked {
        stream.write_all(b"0\r\n").await?;
        for (name, value) in scene.trailers {
            stream.write_all(format!("{name}: {value}\r\n").as_bytes()).await?;
        }
        stream.write_all(b"\r\n").await?;
    }
    Ok(ControlFlow::Continue(()))
}

async fn h2(stream: TcpStream, shared: Arc<Shared>) -> Played {
    let mut connection = h2::server::Builder::new().enable_connect_protocol().handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let shared = shared.clone();
        tokio::spawn(async move {
            if play_h2(request, respond, &shared).await.is_err() {
                shared.aborts.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    Ok(())
}

async fn play_h2(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, shared: &Shared) -> Played {
    let (head, mut incoming) = request.into_parts();
    if head.uri.path() != HEALTH {
        shared.heads.fetch_add(1, Ordering::SeqCst);
    }
    if head.method == Method::CONNECT {
        note(shared, "a tunnel", &with_host(head.headers, &head.uri)?, (0, 0), &HeaderMap::new());
        let mut response = Response::new(());
        *response.headers_mut() = map(&AGREED);
        let mut stream = respond.send_response(response, false)?;
        while let Some(data) = incoming.data().await {
            send(&mut stream, data?).await?;
        }
        return Ok(stream.send_data(Bytes::new(), true)?);
    }
    if head.headers.contains_key("expect") {
        respond.send_informational(Response::builder().status(100).body(())?)?;
    }
    let mut body = Lines::default();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.add(&data);
    }
    let trailers = incoming.trailers().await?.unwrap_or_default();
    let headers = with_host(head.headers, &head.uri)?;
    let path = head.uri.path().to_owned();
    note(shared, &format!("{} {path}", head.method), &headers, body.sum(), &trailers);
    let scene = scene(&path);
    for (status, fields) in &scene.interim {
        let mut interim = Response::builder().status(*status).body(())?;
        *interim.headers_mut() = map(fields);
        respond.send_informational(interim)?;
    }
    let mut response = Response::builder().status(scene.status).body(())?;
    *response.headers_mut() = scene.head();
    let has_body = head.method != "HEAD" && !scene.steps.is_empty();
    let mut stream = respond.send_response(response, !has_body)?;
    if !has_body {
        return Ok(());
    }
    for step in scene.steps {
        match step {
            Step::Data(data) => send(&mut stream, data).await?,
            Step::Await => shared.next.notified().await,
            Step::Pause => crate::look_again().await,
            Step::Hang => return Err(std::future::poll_fn(|cx| stream.poll_reset(cx)).await?.to_string().into()),
            Step::Break => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    match scene.trailers.as_slice() {
        [] => stream.send_data(Bytes::new(), true)?,
        trailers => stream.send_trailers(map(trailers))?,
    }
    Ok(())
}

fn with_host(mut headers: HeaderMap, target: &http::Uri) -> Result<HeaderMap, Broke> {
    if let Some(authority) = target.authority() {
        headers.insert("host", HeaderValue::from_str(authority.as_str())?);
    }
    Ok(headers)
}

/// Sends as the other side makes room.
pub(crate) async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap_or(Err(h2::Reason::CANCEL.into()))?;
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

fn note(shared: &Shared, line: &str, headers: &HeaderMap, body: (usize, u64), trailers: &HeaderMap) {
    if !line.ends_with(HEALTH) {
        let got =
            Got { line: line.to_owned(), headers: crate::exchange::sorted(headers), body, trailers: crate::exchange::sorted(trailers) };
        *shared.got.lock().unwrap() = Some(got);
    }
}

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);
