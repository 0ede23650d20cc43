//! From a decision to an answer: attempts, one retry, and the fallback to the live pool.
//!
//! ```text
//! chosen pool --ok--> answer
//!      | nothing sent, or nothing received (or a probe's 5xx) and may be sent again: once more on a fresh connection, elsewhere if there is elsewhere
//!      | and once more again, if there was no connection
//!      | candidate or holdback failed, timed out or said 5xx: the live pool answers instead
//!      v
//!    502, 503 or 504
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::again::{Again, say_length};
use super::answer;
use super::attempt::Attempt;
use super::body::ResponseBody;
use super::expose;
use super::forwarded::ClientFields;
use super::head::{Head, Outgoing};
use super::headers;
use super::incoming::Incoming;
use super::interim::{Hearer, expects_continue};
use super::issue;
use super::mirror;
use super::pair::Pair;
use super::replay::{Replay, RequestBody};
use super::routes::RouteWorker;
use super::seen::Seen;
use super::split::{Chosen, Counted};
use super::tunnel::{End, Tunnel};
use super::upstream::{Connection, Failure, Hearers, Purpose};
use crate::config::Expose;
use crate::quality::{Broken, Outcome};
use crate::vocabulary::PoolIndex;

/// What was decided about a query.
pub(crate) struct Plan {
    pub(crate) route: Rc<RouteWorker>,
    pub(crate) chosen: Chosen,
    pub(crate) live: PoolIndex,
    /// Of a query that is copied.
    pub(crate) mirror: Option<Rc<Pair>>,
    pub(crate) tunnel: Option<Box<Tunnel>>,
    pub(crate) client: Rc<ClientFields>,
    /// What the response says of the decision.
    pub(crate) expose: Expose,
    /// The client can have interim responses: it speaks no HTTP/1.0.
    pub(crate) hears_interim: bool,
    /// Where they go, if not where they go for its whole connection.
    pub(crate) hearer: Option<Hearer>,
}

/// One query on its way through its attempts.
pub(crate) struct Journey {
    route: Rc<RouteWorker>,
    chosen: Chosen,
    live: PoolIndex,
    mirror: Option<Rc<Pair>>,
    /// Until an attempt sends it.
    first: Cell<Option<Outgoing>>,
    /// For further attempts; `None` where there can be none.
    again: Option<Again>,
    body: Option<Rc<RefCell<Replay>>>,
    /// What the client wants the connection to become, until the backend agrees.
    tunnel: Cell<Option<Box<Tunnel>>>,
    purpose: Purpose,
    client: Rc<ClientFields>,
    expose: Expose,
    hears_interim: bool,
    hearer: Option<Hearer>,
    started: Instant,
}

/// The client's body for the next attempt.
fn request_body(body: Option<&Rc<RefCell<Replay>>>) -> RequestBody {
    body.map_or(RequestBody::Empty, RequestBody::of)
}

/// What an attempt came to.
struct Answer {
    response: Response<Incoming>,
    /// Of its head.
    seen: Seen,
    attempt: Box<Attempt>,
}

/// The client's own failure would only happen again.
fn calls_for_fallback(failure: &Failure) -> bool {
    !failure.is_clients()
}

impl Journey {
    /// A query that is about to be sent to the chosen pool. `head` is as a backend shall have it, `raw` as the client sent it, and in
    /// which version; what came in HTTP/2 is as HTTP/1.1 would have it.
    pub(crate) fn new(plan: Plan, raw: Option<(Bytes, Version)>, mut head: Box<Head>, incoming: Incoming) -> Journey {
        let Plan { route, chosen, live, mirror, tunnel, client, expose, hears_interim, hearer } = plan;
        let started = Instant::now();
        let body = (!http_body::Body::is_end_stream(&incoming)).then(|| {
            let expects = hears_interim && expects_continue(head.fields.get(&EXPECT));
            Replay::new(incoming, &route.request_body, expects, started)
        });
        let first_body = request_body(body.as_ref());
        say_length(&mut head.fields, &first_body);
        let again = route.config.replayable_methods.contains(&head.method).then(|| match raw {
            Some((bytes, version)) if tunnel.is_none() => Again::Raw(bytes, version),
            _ => Again::prepared(&head),
        });
        let first = Cell::new(Some(Outgoing { head, body: first_body }));
        Journey {
            route,
            chosen,
            live,
            mirror,
            first,
            again,
            body,
            purpose: if tunnel.is_some() { Purpose::Upgrade } else { Purpose::Queries },
            tunnel: Cell::new(tunnel),
            client,
            expose,
            hears_interim,
            hearer,
            started,
        }
    }

    /// Has the query answered by the chosen pool, or by the live one in its place.
    pub(crate) async fn forward(&self) -> Response<ResponseBody> {
        let Chosen { pool, may_fall_back, ref counts, .. } = self.chosen;
        let first = match may_fall_back && self.is_unhealthy(pool) {
            false => self.ask_pool(pool, counts.as_ref(), self.started).await,
            true => Err(self.passed_over(pool, counts.as_ref())),
        };
        let must_fall_back =
            may_fall_back && first.as_ref().map_or_else(calls_for_fallback, |answer| answer.response.status().is_server_error());
        if must_fall_back && self.can_be_sent() {
            return Box::pin(self.fall_back(first)).await;
        }
        self.finish(pool, first)
    }

    /// No endpoint of the pool may have traffic, for all that health checks know: nobody shall wait for it where another pool can answer.
    fn is_unhealthy(&self, pool: PoolIndex) -> bool {
        self.route.pool(pool).is_some_and(|pool| !pool.shared.has_healthy_endpoint())
    }

    /// Counts what was not tried as the failure that it would have been.
    #[cold]
    fn passed_over(&self, pool: PoolIndex, counts: Option<&Counted>) -> Failure {
        if let (Some(counted), Some(counters)) = (counts, self.route.counters().pools.get(pool.get())) {
            counters.failures.increment();
            counted.outcomes(counters).ended(self.route.quarter(), counted.group, Outcome::Error);
        }
        Failure::Unhealthy
    }

    /// The live pool answers instead; if it cannot, the first pool's 5xx is better than nothing.
    async fn fall_back(&self, first: Result<Answer, Failure>) -> Response<ResponseBody> {
        let (failed, live) = (self.chosen.pool, self.live);
        if let Some(counters) = self.route.counters().pools.get(failed.get()) {
            counters.fallbacks.increment();
        }
        if let Ok(answer) = &first {
            // Counted by its status now; its connection is not worth draining an error for.
            answer.attempt.abandoned();
        }
        match self.ask_pool(live, None, Instant::now()).await {
            Ok(answer) => self.finish(live, Ok(answer)),
            Err(failure) => match first {
                Ok(answer) => self.finish(failed, Ok(answer)),
                Err(_) => self.finish(live, Err(failure)),
            },
        }
    }

    /// One attempt, and further ones where that is safe and within the budget.
    async fn ask_pool(&self, pool: PoolIndex, counts: Option<&Counted>, now: Instant) -> Result<Answer, Failure> {
        let attempt = Attempt::start(&self.route, pool, None, counts.cloned(), now)?;
        let failure = match self.run(&attempt, false).await {
            Ok((response, seen)) if response.status().is_server_error() && attempt.is_probe() => {
                return Ok(Box::pin(self.instead_of_probe(pool, Answer { response, seen, attempt }, counts)).await);
            }
            Ok((response, seen)) => return Ok(Answer { response, seen, attempt }),
            Err(failure) => failure,
        };
        let is_worth_it = failure.may_retry() && self.can_be_sent();
        let now = Instant::now();
        // What did not reach a backend, or was refused, has cost it nothing, and costs no budget: a worker that has just started saved none,
        // and has yet to find out which endpoints are down.
        let may_retry = failure.cost_nothing() || self.is_unsent() || self.route.pool(pool).is_some_and(|pool| pool.may_retry(now));
        if !is_worth_it || !may_retry {
            attempt.ended(&failure);
            return Err(failure);
        }
        attempt.is_followed_by_another(&failure);
        Box::pin(self.ask_again(pool, attempt.endpoint_index(), counts, now)).await
    }

    /// A probe was answered with a 5xx, as its endpoint's queries were before: another endpoint is asked where a probe without an answer
    /// would have it so. If that fails, the 5xx is better than nothing.
    #[cold]
    async fn instead_of_probe(&self, pool: PoolIndex, first: Answer, counts: Option<&Counted>) -> Answer {
        let now = Instant::now();
        if !self.can_be_sent_again() || !self.route.pool(pool).is_some_and(|pool| pool.may_retry(now)) {
            return first;
        }
        let avoid = first.attempt.endpoint_index();
        first.attempt.abandoned();
        self.ask_again(pool, avoid, counts, now).await.unwrap_or(first)
    }

    /// The second attempt, elsewhere if there is elsewhere, and on a fresh connection; and a third, if that could not be had.
    async fn ask_again(&self, pool: PoolIndex, mut avoid: usize, counts: Option<&Counted>, mut now: Instant) -> Result<Answer, Failure> {
        let mut is_last = false;
        loop {
            if let Some(counters) = self.route.counters().pools.get(pool.get()) {
                counters.retries.increment();
            }
            let again = Attempt::start(&self.route, pool, Some(avoid), counts.cloned(), now)?;
            let failure = match self.run(&again, true).await {
                Ok((response, seen)) => return Ok(Answer { response, seen, attempt: again }),
                Err(failure) => failure,
            };
            again.ended(&failure);
            if is_last || !matches!(failure, Failure::Connect { .. }) {
                return Err(failure);
            }
            is_last = true;
            (avoid, now) = (again.endpoint_index(), Instant::now());
        }
    }

    /// Connects, sends, and waits for the head, within the attempt's time and the query's.
    async fn run(&self, attempt: &Attempt, wants_fresh: bool) -> Result<(Response<Incoming>, Seen), Failure> {
        let timeouts = &self.route.config.timeouts;
        let deadline = (self.started + timeouts.total).min(attempt.started() + timeouts.attempt);
        let gate = self.body.as_ref().and_then(|body| body.borrow().gate());
        let client = self.hears_interim.then(|| self.hearer.as_ref().unwrap_or(&self.client.hearer));
        let hearers = Hearers { client, gate: gate.as_ref() };
        let failure = match attempt.connect(self.purpose, wants_fresh, deadline).await {
            Ok(mut connection) => {
                let answer = match &self.again {
                    Some(_) => connection.send(self.request()?, hearers, deadline).await,
                    None => Box::pin(self.send_once(&mut connection, hearers, deadline)).await,
                };
                match answer {
                    Ok((response, seen)) => match self.look_at(&response, seen) {
                        Ok(()) => {
                            attempt.answered(response.status(), connection);
                            return Ok((response, seen));
                        }
                        Err(failure) => failure,
                    },
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        let is_clients_fault = self.body.as_ref().is_some_and(|body| match failure {
            Failure::Timeout => body.borrow().holds_things_up(),
            _ => body.borrow().has_failed(),
        });
        Err(match &self.body {
            Some(body) if body.borrow().is_malformed() => Failure::Malformed,
            Some(body) if body.borrow().is_too_large() => Failure::TooLarge,
            Some(body) if body.borrow().is_late(&failure) => Failure::Late,
            _ if is_clients_fault => Failure::Client,
            _ => failure,
        })
    }

    /// Sends what must not be sent twice. If the connection had closed before a byte of it was sent, it is still there for another.
    async fn send_once(
        &self,
        connection: &mut Connection,
        hearers: Hearers<'_>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Seen), Failure> {
        let request = self.request()?;
        let kept = connection.may_be_refused().then(|| Again::prepared(&request.head));
        let (failure, unsent) = match connection.send_once(request, hearers, deadline).await {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        // What a backend did not begin with is as good as unsent, if it is still here.
        let is_here = matches!(failure, Failure::Refused) && self.body.as_ref().is_none_or(|body| body.borrow().is_replayable());
        let refused = kept.filter(|_| is_here).and_then(|kept| kept.request(request_body(self.body.as_ref()), &self.client));
        self.first.set(unsent.map(|request| *request).or(refused));
        Err(failure)
    }

    /// Refuses a response that a client could read in another way than we do.
    fn look_at(&self, response: &Response<Incoming>, seen: Seen) -> Result<(), Failure> {
        if seen.has_ambiguous_length() {
            return Err(Failure::Broken(Broken::Framing));
        }
        let tunnel = self.tunnel.take();
        let is_wrong = match &tunnel {
            None => response.status() == StatusCode::SWITCHING_PROTOCOLS,
            Some(tunnel) => tunnel.is_not_answered_by(response),
        };
        self.tunnel.set(tunnel);
        if is_wrong {
            return Err(Failure::Broken(Broken::Upgrade));
        }
        if self.route.config.max_response_body.is_some_and(|most| response.body().size_hint().lower() > most) {
            return Err(Failure::Broken(Broken::Size));
        }
        Ok(())
    }

    /// The request of the next attempt. Inlined, so that what is moved here is moved once less.
    #[inline(always)]
    fn request(&self) -> Result<Outgoing, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let again = self.again.as_ref().and_then(|again| again.request(request_body(self.body.as_ref()), &self.client));
        // Nobody asks a second time for what cannot be sent again.
        again.ok_or(Failure::Closed { was_reused: false })
    }

    /// Whether another attempt may send the query: none has sent anything of it yet, or it does no harm twice and all of it is still here.
    fn can_be_sent(&self) -> bool {
        self.is_unsent() || self.can_be_sent_again()
    }

    fn is_unsent(&self) -> bool {
        let first = self.first.take();
        let is_unsent = first.is_some();
        self.first.set(first);
        is_unsent
    }

    fn can_be_sent_again(&self) -> bool {
        self.again.is_some() && self.body.as_ref().is_none_or(|body| body.borrow().is_replayable())
    }

    /// When the query has its answer: sends a copy to the pool that is to get one, and waits for nothing.
    pub(crate) fn mirror(&mut self) {
        if let Some(pair) = self.mirror.take() {
            let again = self.again.take().filter(|again| !again.is_upgrade());
            mirror::send(pair, again, self.client.clone(), self.body.as_ref());
        }
    }

    fn finish(&self, pool: PoolIndex, result: Result<Answer, Failure>) -> Response<ResponseBody> {
        let Answer { response, seen, attempt } = match result {
            Ok(answer) => answer,
            Err(failure) => {
                self.count_unanswered(&failure);
                let mut response = answer::unanswered(&failure);
                if self.body.as_ref().is_some_and(|body| !body.borrow().has_come()) {
                    answer::say_close(&mut response);
                }
                return response;
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(tunnel) = self.tunnel.take()
        {
            return self.open(*tunnel, response, seen, attempt);
        }
        let (mut head, mut incoming) = response.into_parts();
        let mut lines = incoming.take_lines();
        // Who listens looks at the fields.
        let is_compared = self.mirror.as_ref().is_some_and(|pair| pair.is_compared());
        if (self.route.ear.is_some() || is_compared)
            && let Some(passed) = lines.take()
        {
            head.headers = passed.lines.to_map();
        }
        // A backend's own: what a client of HTTP/1.0 gets is its connection's to say.
        head.version = Version::HTTP_11;
        let mut copy = None;
        if seen.has_signals {
            attempt.hear_signals(&head.headers);
        } else if let Some(ear) = &self.route.ear {
            copy = ear.hear(&head, &self.route, pool, &self.chosen);
        }
        if let Some(pair) = self.mirror.as_ref().filter(|_| is_compared) {
            copy = pair.listen(&head, pool == self.live, copy);
        }
        headers::prepare_response(&mut head.headers, seen);
        if self.body.as_ref().is_some_and(|body| body.borrow().is_held_back()) {
            // A body that nobody asked for: whether it comes nevertheless cannot be told from what comes next.
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        issue::issue(&mut head.headers, lines.as_deref_mut(), &self.route, pool, &self.chosen);
        if !self.expose.is_empty() {
            expose::say(&mut head.headers, self.expose, &self.route, pool, &self.chosen);
        }
        let room = self.route.config.max_response_body.unwrap_or(u64::MAX);
        let mut body = ResponseBody::passed(incoming, self.body.clone(), attempt, room).with_lines(lines);
        if let Some(copy) = copy {
            body = body.copied(copy);
        }
        Response::from_parts(head, body)
    }

    /// The backend has agreed: the client is told, and its connection or stream is a tunnel from then on.
    fn open(&self, tunnel: Tunnel, mut response: Response<Incoming>, seen: Seen, attempt: Box<Attempt>) -> Response<ResponseBody> {
        let upgrade = hyper::upgrade::on(&mut response);
        let (mut head, body) = response.into_parts();
        let backend = if let Incoming::Tunnel(io) = body { End::Stream(io) } else { End::Connection(upgrade) };
        tunnel.agree(&mut head, seen, &backend);
        tokio::task::spawn_local(tunnel.run(backend, attempt, self.route.upgrade_idle_timeout));
        Response::from_parts(head, ResponseBody::own(None))
    }

    fn count_unanswered(&self, failure: &Failure) {
        if failure.is_clients() {
            return;
        }
        self.route.counters().unanswered.increment();
        if self.route.log_limit.allows(Instant::now()) {
            tracing::warn!(route = self.route.config.name, %failure, "query not answered");
        }
    }
}
