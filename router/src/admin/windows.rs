//! `/api/v1/routes/{route}/windows`: the judged windows that this router recorded, so that they can be judged again elsewhere.

use std::io::Read as _;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef as _, Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::access::Viewer;
use super::error::ApiError;
use super::{JSON_LINES, Live, Shared, routes};
use crate::release::{Recorded, recorded};

/// Of one answer; a day of five metrics is about half of it.
const ANSWER_BYTES: u64 = 256 << 20;
/// Read and sent at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for a slow reader.
const WAITING: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    began: Option<String>,
}

/// Without `began`, what there is; with it, the windows of that comparison, a JSON line each.
pub(super) async fn show(
    Viewer(_): Viewer,
    State(live): State<Live>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, ApiError> {
    let shared = Shared::from_ref(&live);
    let (_, route) = routes::find(&shared, &name)?;
    let began = asked.began.as_deref().map(|text| {
        let wrong = || ApiError::BadRequest(format!("began={text}: must be seconds since 1970, as the list without it has them"));
        text.parse::<u32>().map_err(|_| wrong())
    });
    let (data_dir, of) = (shared.state.config.state.data_dir.clone(), route.name.clone());
    let found = tokio::task::spawn_blocking(move || recorded(&data_dir, &of)).await;
    let found = found.map_err(|_| ApiError::Busy)?.map_err(ApiError::Recorded)?;
    let Some(began) = began.transpose()? else { return Ok(Json(list(&route.name, &found)).into_response()) };
    let unknown = || ApiError::NoWindows { route: route.name.clone(), began };
    let comparison = found.into_iter().find(|comparison| comparison.began == began).ok_or_else(unknown)?;
    let room = live.streams.clone().try_acquire_owned().map_err(|_| ApiError::TooManyStreams)?;
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(chunks(comparison, room))).into_response())
}

fn list(route: &str, found: &[Recorded]) -> Value {
    let one = |comparison: &Recorded| json!({ "began_unix_seconds": comparison.began, "parts": comparison.parts.len(), "bytes": comparison.bytes });
    json!({ "route": route, "comparisons": found.iter().map(one).collect::<Vec<_>>() })
}

/// Read on a thread that may wait for the disk, no faster than they are taken; an error, or too much, breaks the answer off.
fn chunks(comparison: Recorded, room: OwnedSemaphorePermit) -> ReceiverStream<std::io::Result<Bytes>> {
    let (sender, chunks) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let _room = room;
        let mut sent = 0;
        let mut read = match comparison.open() {
            Ok(read) => read,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let taken = (&mut read).take(CHUNK as u64).read_to_end(&mut chunk).map(|_| ());
            sent += chunk.len() as u64;
            let too_many = || std::io::Error::other(format!("more than {ANSWER_BYTES} bytes of windows: take the files themselves"));
            let next = taken.and_then(|()| if sent > ANSWER_BYTES { Err(too_many()) } else { Ok(Bytes::from(chunk)) });
            let is_over = next.is_err();
            // Whoever asked may be gone.
            if next.as_ref().is_ok_and(Bytes::is_empty) || sender.blocking_send(next).is_err() || is_over {
                return;
            }
        }
    });
    ReceiverStream::new(chunks)
}
