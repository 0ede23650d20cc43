//! One request and its answer, over HTTP/1.1 read byte by byte or HTTP/2 frame by frame, in the clear or over TLS: everything that a client
//! can see of it.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use rustls::ClientConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::scenes::{PIECE, PIECES, send};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// Beside the host.
    pub headers: Vec<(&'static str, &'static str)>,
    /// What is sent.
    pub body: Upload,
    /// It takes its time, both ways.
    pub is_slow: bool,
    /// It waits with its body until it hears 100 Continue.
    pub expects: bool,
    /// When it goes away.
    pub leaves: Leaves,
}

/// When a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// When it has its answer.
    Answered,
    /// After the first bytes of the answer's body.
    WhileReading,
    /// After the first bytes of its own body.
    WhileSending,
}

/// What asks for an echo.
pub const CHAT: &str = "/chat";

/// A request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// None.
    Nothing,
    /// A short one of known length.
    Sized,
    /// A short one of unknown length, with a trailer.
    Chunked,
    /// 10 MB of known length.
    Large,
    /// The same of unknown length.
    LargeChunked,
    /// None, and said to be of length 0.
    Empty,
}

impl Upload {
    fn pieces(self) -> (usize, Bytes) {
        match self {
            Upload::Nothing | Upload::Empty => (0, Bytes::new()),
            Upload::Sized | Upload::Chunked => (3, Bytes::from_static(b"query")),
            Upload::Large | Upload::LargeChunked => (PIECES, Bytes::from_static(&[b'u'; PIECE])),
        }
    }

    fn is_chunked(self) -> bool {
        matches!(self, Upload::Chunked | Upload::LargeChunked)
    }

    fn length(self) -> Option<usize> {
        let (count, piece) = self.pieces();
        matches!(self, Upload::Sized | Upload::Large | Upload::Empty).then(|| count * piece.len())
    }
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Interim responses: status and fields.
    pub interim: Vec<(u16, Vec<(String, String)>)>,
    /// The status.
    pub status: u16,
    /// Sorted.
    pub headers: Vec<(String, String)>,
    /// Its length, and a sum over its bytes.
    pub body: (usize, u64),
    /// Sorted.
    pub trailers: Vec<(String, String)>,
    /// It broke off.
    pub is_broken: bool,
}

/// A body's length, and a sum in which every byte's place counts.
#[derive(Debug, Default)]
pub struct Lines {
    length: usize,
    sum: u64,
}

impl Lines {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }

    pub(crate) fn sum(&self) -> (usize, u64) {
        (self.length, self.sum)
    }
}

/// Names and values in order.
pub(crate) fn sorted(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut fields: Vec<(String, String)> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    // Stable: the order within a name is kept, since it means something.
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

type Failed = Box<dyn std::error::Error + Send + Sync>;
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Who watches an exchange.
pub trait Watch: Send {
    /// So much of the answer's body has come.
    fn seen(&mut self, length: usize);
    /// The backend has the request's head.
    fn has_begun(&self) -> bool;
}

async fn until_begun(watch: &impl Watch) {
    while !watch.has_begun() {
        crate::look_again().await;
    }
}

/// Asks one thing on a connection of its own.
///
/// # Errors
/// Where there was no answer at all.
pub async fn exchange(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    speaks: Speaks,
    ask: &Ask,
    watch: impl Watch,
) -> Result<Answer, Failed> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(socket),
        Some(config) => Box::new(TlsConnector::from(config.clone()).connect("search.test".try_into()?, socket).await?),
    };
    match speaks {
        Speaks::Http1 => over_h1(BufReader::new(stream), ask, watch).await,
        Speaks::Http2 => over_h2(stream, tls.is_some(), ask, watch).await,
    }
}

async fn over_h1(mut stream: BufReader<Box<dyn Stream>>, ask: &Ask, mut watch: impl Watch) -> Result<Answer, Failed> {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: search.test\r\n", ask.method, ask.path);
    ask.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    match (ask.body, ask.body.length()) {
        (Upload::Nothing, _) => {}
        (_, Some(length)) => head.push_str(&format!("content-length: {length}\r\n")),
        (_, None) => head.push_str("trailer: x-sum\r\ntransfer-encoding: chunked\r\n"),
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Answer::default();
    if ask.expects {
        let (line, headers) = read_head(&mut stream).await?;
        answer.interim.push((line.split(' ').nth(1).unwrap_or_default().parse()?, sorted(&headers)));
    }
    if upload_h1(&mut stream, ask, &watch).await?.is_break() {
        return Ok(answer);
    }
    loop {
        let (line, headers) = read_head(&mut stream).await?;
        let status: u16 = line.split(' ').nth(1).unwrap_or_default().parse()?;
        if (100..200).contains(&status) && status != 101 {
            answer.interim.push((status, sorted(&headers)));
            continue;
        }
        (answer.status, answer.headers) = (status, sorted(&headers));
        if status == 101 {
            stream.write_all(b"echo").await?;
            stream.flush().await?;
            let mut echo = Lines::default();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await?;
            echo.add(&bytes);
            answer.body = echo.sum();
            return Ok(answer);
        }
        let is_empty = ask.method == "HEAD" || matches!(status, 204 | 304);
        if ask.leaves == Leaves::WhileReading {
            stream.fill_buf().await?;
            return Ok(answer);
        }
        if ask.is_slow {
            crate::look_again().await;
        }
        let mut body = Lines::default();
        let read = read_body(&mut stream, &headers, is_empty, |bytes| {
            body.add(bytes);
            watch.seen(body.length);
        });
        match read.await {
            Ok((_, trailers)) => answer.trailers = sorted(&trailers),
            Err(_) => answer.is_broken = true,
        }
        answer.body = body.sum();
        return Ok(answer);
    }
}

/// Breaks where the client goes away.
async fn upload_h1(stream: &mut BufReader<Box<dyn Stream>>, ask: &Ask, watch: &impl Watch) -> std::io::Result<ControlFlow<()>> {
    let (count, piece) = ask.body.pieces();
    for _ in 0..count {
        if ask.body.is_chunked() {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        stream.write_all(&piece).await?;
        if ask.body.is_chunked() {
            stream.write_all(b"\r\n").await?;
        }
        if ask.is_slow {
            stream.flush().await?;
            crate::look_again().await;
        }
        if ask.leaves == Leaves::WhileSending {
            stream.flush().await?;
            until_begun(watch).await;
            return Ok(ControlFlow::Break(()));
        }
    }
    if ask.body.is_chunked() {
        stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").await?;
    }
    stream.flush().await?;
    Ok(ControlFlow::Continue(()))
}

/// A first line and its fields.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<(String, HeaderMap)> {
    let first = read_line(stream).await?;
    Ok((first, read_fields(stream).await?))
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

async fn read_fields<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(": ") else { return Ok(fields) };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(std::io::Error::other)?;
        fields.append(name, HeaderValue::from_str(value).map_err(std::io::Error::other)?);
    }
}

/// A body by its framing, and its trailers; to the end of the connection where nothing says how long a response is.
pub(crate) async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut BufReader<S>,
    headers: &HeaderMap,
    is_empty: bool,
    mut seen: impl FnMut(&[u8]),
) -> std::io::Result<(Lines, HeaderMap)> {
    let mut body = Lines::default();
    if is_empty {
        return Ok((body, HeaderMap::new()));
    }
    if let Some(length) = headers.get("content-length") {
        let length = length.to_str().ok().and_then(|text| text.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
        read_exactly(stream, length, &mut body, &mut seen).await?;
        return Ok((body, HeaderMap::new()));
    }
    if !headers.contains_key("transfer-encoding") {
        return Ok((body, HeaderMap::new()));
    }
    loop {
        let line = read_line(stream).await?;
        let size = usize::from_str_radix(&line, 16).map_err(std::io::Error::other)?;
        if size == 0 {
            return Ok((body, read_fields(stream).await?));
        }
        read_exactly(stream, size, &mut body, &mut seen).await?;
        read_line(stream).await?;
    }
}

async fn read_exactly<S: AsyncRead + Unpin>(
    stream: &mut BufReader<S>,
    mut left: usize,
    body: &mut Lines,
    seen: &mut impl FnMut(&[u8]),
) -> std::io::Result<()> {
    while left > 0 {
        let bytes = stream.fill_buf().await?;
        if bytes.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let count = bytes.len().min(left);
        body.add(&bytes[..count]);
        seen(&bytes[..count]);
        stream.consume(count);
        left -= count;
    }
    Ok(())
}

async fn over_h2(stream: Box<dyn Stream>, is_tls: bool, ask: &Ask, mut watch: impl Watch) -> Result<Answer, Failed> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let (mut response, mut upload) = sender.send_request(h2_head(is_tls, ask)?, ask.body == Upload::Nothing && ask.path != CHAT)?;
    let mut answer = Answer::default();
    if ask.expects {
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.ok_or("it does not say 100")??;
        answer.interim.push((interim.status().as_u16(), sorted(interim.headers())));
    }
    if ask.path != CHAT && upload_h2(&mut upload, ask, &watch).await?.is_break() {
        return Ok(answer);
    }
    while let Some(interim) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim?;
        answer.interim.push((interim.status().as_u16(), sorted(interim.headers())));
    }
    let (head, mut body) = response.await?.into_parts();
    (answer.status, answer.headers) = (head.status.as_u16(), sorted(&head.headers));
    let mut lines = Lines::default();
    if ask.path == CHAT {
        upload.send_data(Bytes::from_static(b"echo"), false)?;
        lines.add(&body.data().await.ok_or("no echo")??);
        answer.body = lines.sum();
        return Ok(answer);
    }
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            answer.is_broken = true;
            break;
        };
        lines.add(&data);
        watch.seen(lines.length);
        if ask.leaves == Leaves::WhileReading {
            upload.send_reset(h2::Reason::CANCEL);
            return Ok(answer);
        }
        if ask.is_slow {
            crate::look_again().await;
        }
        body.flow_control().release_capacity(data.len())?;
    }
    answer.body = lines.sum();
    if !answer.is_broken {
        answer.trailers = body.trailers().await?.map(|trailers| sorted(&trailers)).unwrap_or_default();
    }
    Ok(answer)
}

/// An upgrade is an extended CONNECT here (RFC 8441).
fn h2_head(is_tls: bool, ask: &Ask) -> Result<Request<()>, Failed> {
    let scheme = if is_tls { "https" } else { "http" };
    let mut request = Request::builder().method(ask.method).uri(format!("{scheme}://search.test{}", ask.path)).body(())?;
    for (name, value) in &ask.headers {
        if !matches!(*name, "connection" | "upgrade" | "sec-websocket-key") {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    if ask.path == CHAT {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    }
    if let Some(length) = ask.body.length() {
        request.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    if ask.body.is_chunked() {
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    }
    Ok(request)
}

/// Breaks where the client goes away.
async fn upload_h2(upload: &mut h2::SendStream<Bytes>, ask: &Ask, watch: &impl Watch) -> Result<ControlFlow<()>, Failed> {
    let (count, piece) = ask.body.pieces();
    for _ in 0..count {
        send(upload, piece.clone()).await?;
        if ask.is_slow {
            crate::look_again().await;
        }
        if ask.leaves == Leaves::WhileSending {
            until_begun(watch).await;
            upload.send_reset(h2::Reason::CANCEL);
            return Ok(ControlFlow::Break(()));
        }
    }
    if ask.body.is_chunked() {
        upload.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]))?;
    } else if ask.body != Upload::Nothing {
        upload.send_data(Bytes::new(), true)?;
    }
    Ok(ControlFlow::Continue(()))
}
