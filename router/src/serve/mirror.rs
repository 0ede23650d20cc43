//! Copies of queries for a pool whose answers nobody sees: flag `mirror_percent`.
//!
//! A copy is sent when the query has its answer, from what was kept for a second attempt: it never makes the query wait, and never fails it. What
//! becomes of it counts for no role, but as any attempt it tells of the health of its endpoint. While a rollout mirrors, its answer is kept, to be
//! compared with the query's own ([`super::pair`]); otherwise it is dropped.
//!
//! Invariant: there are never more copies in flight than `max_mirrors_in_flight`; further ones are dropped and counted.

use std::cell::RefCell;
use std::rc::Rc;

use http::Response;
use http::header::HeaderValue;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::again::Again;
use super::attempt::Attempt;
use super::forwarded::ClientFields;
use super::head::Outgoing;
use super::headers::X_SWITCHBACK_MIRROR;
use super::incoming::Incoming;
use super::pair::Pair;
use super::pool::MirrorSlot;
use super::replay::{Replay, RequestBody};
use super::upstream::{Failure, Hearers, Purpose};
use crate::quality::Mirrored;
use crate::quality::signals::Half;

/// A copy on its way.
struct Copy {
    pair: Rc<Pair>,
    again: Again,
    client: Rc<ClientFields>,
    body: Vec<bytes::Bytes>,
    /// Given back when it is dropped.
    _slot: MirrorSlot,
}

/// Sends a copy of a query that has its answer; returns at once. `again` is there where the query may be sent a second time.
#[inline(never)]
pub(crate) fn send(pair: Rc<Pair>, again: Option<Again>, client: Rc<ClientFields>, body: Option<&Rc<RefCell<Replay>>>) {
    let whole = body.map_or_else(|| Some(Vec::new()), |body| body.borrow().whole());
    let (Some(again), Some(body)) = (again, whole) else { return count(&pair, Mirrored::Unfit) };
    let slot = pair.route.pool(pair.pool).and_then(|side| side.shared.enter_mirror());
    let Some(slot) = slot else { return count(&pair, Mirrored::Dropped) };
    let copy = Copy { pair, again, client, body, _slot: slot };
    tokio::task::spawn_local(async move {
        let (result, half) = copy.run().await;
        count(&copy.pair, result);
        if let Some(half) = half {
            copy.pair.is_copied(half);
        }
    });
}

/// It was not answered, not in time, or not to the end.
fn failed() -> (Mirrored, Option<Half>) {
    (Mirrored::Failed, Some(Half::Failed))
}

/// The same. What a query would be asked again for, or is this router's own limit, says nothing about the candidate.
fn failed_by(failure: &Failure) -> (Mirrored, Option<Half>) {
    let is_nobodys = matches!(failure, Failure::Closed { was_reused: true } | Failure::Refused | Failure::Full);
    (Mirrored::Failed, (!is_nobodys).then_some(Half::Failed))
}

impl Copy {
    /// As a query would be, within the time that all of a query's attempts have; there is one attempt.
    async fn run(&self) -> (Mirrored, Option<Half>) {
        let now = Instant::now();
        let deadline = now + self.pair.route.config.timeouts.total;
        let attempt = match Attempt::start(&self.pair.route, self.pair.pool, None, None, now) {
            Ok(attempt) => attempt,
            Err(failure) => return failed_by(&failure),
        };
        match self.ask(&attempt, deadline).await {
            Ok(response) => match tokio::time::timeout_at(deadline, self.read(response, &attempt)).await {
                Ok(result) => result,
                Err(_) => {
                    attempt.timed_out();
                    failed()
                }
            },
            Err(failure) => {
                attempt.is_followed_by_another(&failure);
                failed_by(&failure)
            }
        }
    }

    async fn ask(&self, attempt: &Attempt, deadline: Instant) -> Result<Response<Incoming>, Failure> {
        let mut connection = attempt.connect(Purpose::Queries, false, deadline).await?;
        let attempt_ends = deadline.min(attempt.started() + self.pair.route.config.timeouts.attempt);
        let (response, _) = connection.send(self.request()?, Hearers::NONE, attempt_ends).await?;
        attempt.answered(response.status(), connection);
        Ok(response)
    }

    fn request(&self) -> Result<Outgoing, Failure> {
        // The head was read before: it can be read again.
        let request = self.again.request(RequestBody::copied(self.body.clone()), &self.client);
        let mut request = request.ok_or(Failure::Closed { was_reused: true })?;
        request.head.fields.map().insert(X_SWITCHBACK_MIRROR, HeaderValue::from_static("1"));
        Ok(request)
    }

    /// Reads the answer to its end, so that its connection can be used again.
    async fn read(&self, response: Response<Incoming>, attempt: &Attempt) -> (Mirrored, Option<Half>) {
        let (mut head, mut body) = response.into_parts();
        if self.pair.is_compared()
            && let Some(passed) = body.take_lines()
        {
            head.headers = passed.lines.to_map();
        }
        let mut half = self.pair.begins(&head);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                attempt.failed();
                return failed();
            };
            if let (Half::Body(_, kept), Some(data)) = (&mut half, frame.data_ref()) {
                kept.pass(data);
            }
        }
        attempt.completed();
        (if head.status.is_server_error() { Mirrored::ServerError } else { Mirrored::Answered }, Some(half))
    }
}

fn count(pair: &Pair, result: Mirrored) {
    let count = pair.route.counters().pools.get(pair.pool.get()).and_then(|counters| counters.mirrored.get(result as usize));
    if let Some(count) = count {
        count.increment();
    }
}
