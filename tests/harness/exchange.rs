//! One request and its answer, over HTTP/1.1 read byte by byte or HTTP/2 frame by frame, in the clear or over TLS: everything that a client
//! can see of it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
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
    /// It goes away after the first bytes of the body.
    pub leaves: bool,
}

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
}

impl Upload {
    fn pieces(self) -> (usize, Bytes) {
        match self {
            Upload::Nothing => (0, Bytes::new()),
            Upload::Sized | Upload::Chunked => (3, Bytes::from_static(b"query")),
            Upload::Large => (PIECES, Bytes::from_static(&[b'u'; PIECE])),
        }
    }

    fn length(self) -> Option<usize> {
        let (count, piece) = self.pieces();
        matches!(self, Upload::Sized | Upload::Large).then(|| count * piece.len())
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

/// Asks one thing on a connection of its own; `seen` hears of each piece of the body as it comes.
///
/// # Errors
/// Where there was no answer at all.
pub async fn exchange(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    speaks: Speaks,
    ask: &Ask,
    seen: impl FnMut(usize) + Send,
) -> Result<Answer, Failed> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(socket),
        Some(config) => Box::new(TlsConnector::from(config.clone()).connect("search.test".try_into()?, socket).await?),
    };
    match speaks {
        Speaks::Http1 => over_h1(BufReader::new(stream), ask, seen).await,
        Speaks::Http2 => over_h2(stream, tls.is_some(), ask, seen).await,
    }
}

async fn over_h1(mut stream: BufReader<Box<dyn Stream>>, ask: &Ask, mut seen: impl FnMut(usize)) -> Result<Answer, Failed> {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: search.test\r\n", ask.method, ask.path);
    ask.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    match (ask.body, ask.body.length()) {
        (Upload::Nothing, _) => {}
        (_, Some(length)) => head.push_str(&format!("content-length: {length}\r\n")),
        (_, None) => head.push_str("trailer: x-sum\r\ntransfer-encoding: chunked\r\n"),
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let (count, piece) = ask.body.pieces();
    for _ in 0..count {
        if ask.body == Upload::Chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        stream.write_all(&piece).await?;
        if ask.body == Upload::Chunked {
            stream.write_all(b"\r\n").await?;
        }
        if ask.is_slow {
            stream.flush().await?;
            crate::look_again().await;
        }
    }
    if ask.body == Upload::Chunked {
        stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").await?;
    }
    stream.flush().await?;
    let mut answer = Answer::default();
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
        if ask.leaves {
            stream.fill_buf().await?;
            return Ok(answer);
        }
        if ask.is_slow {
            crate::look_again().await;
        }
        let mut body = Lines::default();
        let read = read_body(&mut stream, &headers, is_empty, |bytes| {
            body.add(bytes);
            seen(body.length);
        });
        match read.await {
            Ok((_, trailers)) => answer.trailers = sorted(&trailers),
            Err(_) => answer.is_broken = true,
        }
        answer.body = body.sum();
        return Ok(answer);
    }
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

async fn over_h2(stream: Box<dyn Stream>, is_tls: bool, ask: &Ask, mut seen: impl FnMut(usize)) -> Result<Answer, Failed> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let scheme = if is_tls { "https" } else { "http" };
    let mut request = Request::builder().method(ask.method).uri(format!("{scheme}://search.test{}", ask.path)).body(())?;
    for (name, value) in &ask.headers {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Some(length) = ask.body.length() {
        request.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    if ask.body == Upload::Chunked {
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    }
    let (mut response, mut upload) = sender.send_request(request, ask.body == Upload::Nothing)?;
    let (count, piece) = ask.body.pieces();
    for _ in 0..count {
        send(&mut upload, piece.clone()).await?;
        if ask.is_slow {
            crate::look_again().await;
        }
    }
    match ask.body {
        Upload::Nothing => {}
        Upload::Chunked => {
            upload.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]))?
        }
        Upload::Sized | Upload::Large => upload.send_data(Bytes::new(), true)?,
    }
    let mut answer = Answer::default();
    while let Some(interim) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim?;
        answer.interim.push((interim.status().as_u16(), sorted(interim.headers())));
    }
    let (head, mut body) = response.await?.into_parts();
    (answer.status, answer.headers) = (head.status.as_u16(), sorted(&head.headers));
    let mut lines = Lines::default();
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            answer.is_broken = true;
            break;
        };
        lines.add(&data);
        seen(lines.length);
        if ask.leaves {
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
