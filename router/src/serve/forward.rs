//! From a decision to an answer: attempts, one retry, and the fallback to the live pool.
//!
//! ```text
//! chosen pool --ok--> answer
//!      | nothing received, may be sent again: once more on a fresh connection, elsewhere if there is elsewhere
//!      | candidate or holdback failed, timed out or said 5xx: the live pool answers instead
//!      v
//!    502, 503 or 504
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::answer;
use super::attempt::Attempt;
use super::body::ResponseBody;
use super::headers::{self, X_SWITCHBACK_POOL};
use super::replay::{Replay, RequestBody};
use super::routes::RouteWorker;
use super::split::Chosen;
use super::upstream::Failure;
use crate::vocabulary::PoolIndex;

/// One query on its way through its attempts.
struct Journey {
    route: Rc<RouteWorker>,
    head: Parts,
    body: Option<Rc<RefCell<Replay>>>,
    deadline: Instant,
    is_replayable: bool,
}

/// What an attempt came to.
type Answer = (Response<Incoming>, Attempt);

/// Has the query answered by the chosen pool, or by the live one in its place.
pub(crate) async fn forward(
    route: Rc<RouteWorker>,
    chosen: Chosen,
    live: PoolIndex,
    head: Parts,
    incoming: Incoming,
) -> Response<ResponseBody> {
    let is_replayable = route.config.replayable_methods.contains(&head.method);
    let body = (!http_body::Body::is_end_stream(&incoming)).then(|| Replay::new(incoming, route.replay_bytes, route.body_idle_timeout));
    let deadline = Instant::now() + route.config.timeouts.total;
    let journey = Journey { route, head, body, deadline, is_replayable };
    let first = journey.ask_pool(chosen.pool, true).await;
    let must_fall_back =
        chosen.may_fall_back && first.as_ref().map_or_else(calls_for_fallback, |(response, _)| response.status().is_server_error());
    if must_fall_back && journey.can_send_again() {
        return Box::pin(journey.fall_back(chosen.pool, live, first)).await;
    }
    journey.finish(chosen.pool, first)
}

/// The client's own failure would only happen again.
fn calls_for_fallback(failure: &Failure) -> bool {
    !matches!(failure, Failure::Client)
}

impl Journey {
    /// The live pool answers instead; if it cannot, the first pool's 5xx is better than nothing.
    async fn fall_back(self, failed: PoolIndex, live: PoolIndex, first: Result<Answer, Failure>) -> Response<ResponseBody> {
        if let Some(counters) = self.route.counters().pools.get(failed.get()) {
            counters.fallbacks.increment();
        }
        if let Ok((_, attempt)) = &first {
            // Counted by its status now; its connection is not worth draining an error for.
            attempt.abandoned();
        }
        match self.ask_pool(live, false).await {
            Ok(answer) => self.finish(live, Ok(answer)),
            Err(failure) => match first {
                Ok(answer) => self.finish(failed, Ok(answer)),
                Err(_) => self.finish(live, Err(failure)),
            },
        }
    }

    /// One attempt, and one more where that is safe and within the budget.
    async fn ask_pool(&self, pool: PoolIndex, is_counted: bool) -> Result<Answer, Failure> {
        let attempt = Attempt::start(&self.route, pool, None, is_counted)?;
        let failure = match self.run(&attempt, false).await {
            Ok(response) => return Ok((response, attempt)),
            Err(failure) => failure,
        };
        attempt.ended(&failure);
        // Held until the second attempt has its answer.
        let permit = self.route.pool(pool).and_then(super::pool::Pool::permit_retry);
        if permit.is_none() || !failure.may_retry() || !self.can_send_again() {
            return Err(failure);
        }
        Box::pin(self.ask_again(pool, &attempt, is_counted)).await
    }

    /// The second attempt, elsewhere if there is elsewhere, and on a fresh connection.
    async fn ask_again(&self, pool: PoolIndex, attempt: &Attempt, is_counted: bool) -> Result<Answer, Failure> {
        if let Some(counters) = self.route.counters().pools.get(pool.get()) {
            counters.retries.increment();
        }
        let again = Attempt::start(&self.route, pool, Some(attempt.endpoint_index()), is_counted)?;
        match self.run(&again, true).await {
            Ok(response) => Ok((response, again)),
            Err(failure) => {
                again.ended(&failure);
                Err(failure)
            }
        }
    }

    /// Connects, sends, and waits for the head, within the attempt's time and the query's.
    async fn run(&self, attempt: &Attempt, wants_fresh: bool) -> Result<Response<Incoming>, Failure> {
        let deadline = self.deadline.min(Instant::now() + self.route.config.timeouts.attempt);
        let exchange = async {
            let mut connection = attempt.connect(wants_fresh).await?;
            let response = connection.send(self.request()).await?;
            attempt.answered(response.status(), connection);
            Ok(response)
        };
        let result = timeout_at(deadline, exchange).await.unwrap_or(Err(Failure::Timeout));
        let client_failed = self.body.as_ref().is_some_and(|body| body.borrow().failure().is_some());
        if result.is_err() && client_failed { Err(Failure::Client) } else { result }
    }

    fn request(&self) -> Request<RequestBody> {
        let body = self.body.as_ref().map_or(RequestBody::Empty, RequestBody::of);
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() = self.head.headers.clone();
        request
    }

    fn can_send_again(&self) -> bool {
        self.is_replayable && self.body.as_ref().is_none_or(|body| body.borrow().is_replayable())
    }

    fn finish(self, pool: PoolIndex, result: Result<Answer, Failure>) -> Response<ResponseBody> {
        let (response, attempt) = match result {
            Ok(answer) => answer,
            Err(failure) => {
                self.route.counters().unanswered.increment();
                if self.route.log_limit.allows(Instant::now()) {
                    tracing::warn!(route = self.route.config.name, %failure, "query not answered");
                }
                return answer::unanswered(&failure);
            }
        };
        let (mut head, incoming) = response.into_parts();
        headers::prepare_response(&mut head.headers);
        if self.route.config.expose_pool
            && let Some(name) = self.route.pool_name(pool)
        {
            head.headers.insert(X_SWITCHBACK_POOL, name);
        }
        Response::from_parts(head, ResponseBody::passed(incoming, attempt))
    }
}
