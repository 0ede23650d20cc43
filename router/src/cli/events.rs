//! Reads server-sent events from a body, event by event.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// The longest line that is taken, in bytes; a longer one ends the stream.
const LINE_BYTES: usize = 1 << 20;

/// The `data` of one event after another.
pub(super) struct Events<B> {
    body: B,
    unread: Vec<u8>,
    data: String,
}

impl<B: Body<Data = Bytes> + Unpin> Events<B> {
    pub(super) fn new(body: B) -> Events<B> {
        Events { body, unread: Vec::new(), data: String::new() }
    }

    /// The next event's data; `None` when the stream ends or breaks.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            while let Some(line) = self.take_line() {
                if let Some(data) = line.strip_prefix("data:") {
                    self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
                } else if line.is_empty() && !self.data.is_empty() {
                    return Some(std::mem::take(&mut self.data));
                }
            }
            if self.unread.len() > LINE_BYTES {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(bytes) = frame.into_data() {
                self.unread.extend_from_slice(&bytes);
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_come_whole_however_the_bytes_arrive() {
        let text = ": hello\n\nevent: flags\nid: 3\ndata: {\"a\":1}\n\ndata: two\r\n\r\ndata: never ended";
        for size in [1, 2, 7, 1_000] {
            let chunks: Vec<_> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let frames = chunks.into_iter().map(|chunk| Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(chunk)));
            let mut events = Events::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
            assert_eq!(events.next().await.as_deref(), Some("{\"a\":1}"));
            assert_eq!(events.next().await.as_deref(), Some("two"));
            assert_eq!(events.next().await, None);
        }
    }
}
