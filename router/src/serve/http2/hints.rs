//! Interim responses for one stream, between whoever hears them of a backend and the task that answers the stream.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use http::{HeaderMap, Response, StatusCode};

/// The names and values of all interim responses of one query, in bytes: a backend could send them without end.
const MOST_BYTES: usize = 64 << 10;

/// What is to be said before the response. Both ends are on one thread, so that the lock never waits; it is there because hyper lets only
/// what could go to another thread be upgraded.
#[derive(Debug, Default)]
pub(crate) struct Hints(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    heads: Vec<Response<()>>,
    bytes: usize,
    task: Option<Waker>,
}

impl Hints {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says this as soon as the stream's task comes to it. Beyond what is allowed it is dropped: it is a hint.
    pub(crate) fn say(&self, status: StatusCode, headers: HeaderMap) {
        let mut inner = self.inner();
        // Each costs something, however little is in it.
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        inner.bytes = inner.bytes.saturating_add(bytes + 32);
        if inner.bytes > MOST_BYTES {
            return;
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        inner.heads.push(head);
        if let Some(task) = inner.task.take() {
            task.wake();
        }
    }

    /// What was said since the last call; wakes this task when there is more.
    pub(super) fn take(&self, cx: &Context<'_>) -> Vec<Response<()>> {
        let mut inner = self.inner();
        inner.task = Some(cx.waker().clone());
        std::mem::take(&mut inner.heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_said_is_taken_once_and_in_order() {
        let hints = Hints::default();
        let cx = Context::from_waker(Waker::noop());
        hints.say(StatusCode::EARLY_HINTS, HeaderMap::from_iter([(http::header::LINK, HeaderValue::from_static("</a>"))]));
        hints.say(StatusCode::PROCESSING, HeaderMap::new());
        let heads = hints.take(&cx);
        assert_eq!(heads.iter().map(|head| head.status().as_u16()).collect::<Vec<_>>(), [103, 102]);
        assert_eq!(heads[0].headers()["link"], "</a>");
        assert!(hints.take(&cx).is_empty());
    }

    #[test]
    fn a_flood_ends() {
        let hints = Hints::default();
        for _ in 0..100_000 {
            hints.say(StatusCode::EARLY_HINTS, HeaderMap::new());
        }
        let heads = hints.take(&Context::from_waker(Waker::noop()));
        assert_eq!(heads.len(), MOST_BYTES / 32);
    }
}
