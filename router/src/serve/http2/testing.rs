//! For tests of both sides: frames as they stand on a connection.

use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::frame::{self, kind};

/// A frame.
pub(super) fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

/// For fuzz targets: frames as the bytes say (kind, flags, stream, length, payload), behind the first one.
pub(super) fn frames_behind(first: Vec<u8>, mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = vec![first];
    while let [kind, flags, stream, length, rest @ ..] = bytes {
        let (payload, behind) = rest.split_at(rest.len().min((*length).into()));
        frames.push(frame_of(kind % 10, flags & 0x2d, (stream % 8).into(), payload));
        bytes = behind;
    }
    frames
}

/// A head without Huffman codes and without a table.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let one = |(name, value): &(&str, &str)| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    fields.iter().flat_map(one).collect()
}

/// The next frame; `None` at the end.
pub(super) async fn next_of_all(stream: &mut DuplexStream) -> Option<(frame::Head, Vec<u8>)> {
    let mut head = [0; frame::HEAD];
    stream.read_exact(&mut head).await.ok()?;
    let head = frame::Head::read(&head).unwrap();
    let mut payload = vec![0; head.length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head, payload))
}

/// The next frame that is neither SETTINGS nor a window; `None` at the end.
pub(super) async fn next(stream: &mut DuplexStream) -> Option<(frame::Head, Vec<u8>)> {
    loop {
        let (head, payload) = next_of_all(stream).await?;
        if !matches!(head.kind, kind::SETTINGS | kind::WINDOW_UPDATE) {
            return Some((head, payload));
        }
    }
}

/// Waits for it, as long as others have turns.
pub(super) async fn wait_for(is: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if is() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not happen");
}
