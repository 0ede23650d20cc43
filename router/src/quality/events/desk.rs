//! Where bodies with events are handed in: a thread of its own reads and books them, behind a bounded queue.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::book::{Rules, book};
use super::counts::{Cell, EventCounts};
use super::rate::{RateLimits, Rates};
use super::read::{Batch, Reading, read};
use super::refusal::EventRefusal;
use super::repeats::Repeats;
use super::report::Report;
use crate::config::{self, Config};
use crate::quality::{Counts, FleetClock, Secret};

/// Bodies that may wait to be read.
const QUEUE: usize = 256;
/// What all bodies together may hold while they come in and wait, unless a single one may be larger.
const BUFFERED_BYTES: usize = 64 << 20;
/// A body costs an event for each of these, whatever is in it: reading it takes time.
const BYTES_PER_EVENT: usize = 1 << 10;

/// The desk; clones are the same one.
#[derive(Debug, Clone)]
pub struct EventsDesk {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Delivery>,
}

#[derive(Debug)]
struct Shared {
    /// Tells whether a token has expired.
    clock: FleetClock,
    in_force: ArcSwap<InForce>,
    books: Mutex<Books>,
    refusals: [AtomicU64; EventRefusal::ALL.len()],
    buffered: AtomicUsize,
}

/// What a config says of events.
#[derive(Debug)]
struct InForce {
    config: config::Events,
    rules: Rules,
}

#[derive(Debug, Default)]
struct Books {
    repeats: Repeats,
    rates: RateLimits,
    counts: EventCounts,
    /// By route, action and whether they were counted.
    accepted: BTreeMap<(u32, &'static str, bool), u64>,
}

/// A body on its way to the thread.
#[derive(Debug)]
struct Delivery {
    from: IpAddr,
    body: Vec<Bytes>,
    _buffered: Buffered,
    reply: oneshot::Sender<Report>,
}

/// A body's share of what all bodies may hold; given back when it is dropped.
#[derive(Debug)]
pub struct Buffered {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Buffered {
    /// Takes more. False when there is no more.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let most = BUFFERED_BYTES.max(self.shared.in_force.load().config.max_body);
        self.bytes += more;
        self.shared.buffered.fetch_add(more, Ordering::Relaxed) + more <= most
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.shared.buffered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Events that were accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The route's name.
    pub route: String,
    /// As [`super::Action::label`] has it.
    pub action: &'static str,
    /// Whether they moved a metric.
    pub is_counted: bool,
    /// How many.
    pub events: u64,
}

/// What metrics show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Of the routes of this config, every action that there was.
    pub accepted: Vec<Accepted>,
    /// In the order of [`EventRefusal::ALL`].
    pub refused: Vec<(EventRefusal, u64)>,
    /// Tokens whose repeats are known.
    pub remembered_tokens: usize,
    /// Windows that nobody took in time.
    pub dropped_windows: u64,
}

impl EventsDesk {
    /// Opens it, with a thread of its own that ends when the last clone is gone.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open(config: &Config, secrets: &[Secret], clock: &FleetClock) -> std::io::Result<EventsDesk> {
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            in_force: ArcSwap::from_pointee(InForce::of(config, secrets)),
            books: Mutex::default(),
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            buffered: AtomicUsize::new(0),
        });
        let (queue, mut deliveries) = mpsc::channel::<Delivery>(QUEUE);
        let at_work = shared.clone();
        let work = move || {
            while let Some(delivery) = deliveries.blocking_recv() {
                let report = at_work.take_in(delivery.from, &delivery.body.concat());
                // A client that has gone away hears nothing.
                let _ = delivery.reply.send(report);
            }
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(work)?;
        Ok(EventsDesk { shared, queue })
    }

    /// From now on events are held to this config. What was counted, and what is known of repeats, stays.
    pub fn succeed(&self, config: &Config, secrets: &[Secret]) {
        self.shared.in_force.store(Arc::new(InForce::of(config, secrets)));
    }

    /// For the body of one request, before it comes in.
    #[must_use]
    pub fn buffered(&self) -> Buffered {
        Buffered { shared: self.shared.clone(), bytes: 0 }
    }

    /// Hands in a body, and waits for what becomes of it: on no thread that would be blocked.
    pub async fn deliver(&self, from: IpAddr, body: Vec<Bytes>, buffered: Buffered) -> Report {
        let (reply, report) = oneshot::channel();
        if self.queue.try_send(Delivery { from, body, _buffered: buffered, reply }).is_err() {
            return self.refuse(EventRefusal::QueueFull);
        }
        match report.await {
            Ok(report) => report,
            Err(_) => self.refuse(EventRefusal::QueueFull),
        }
    }

    /// Refuses a whole request, and counts that.
    #[must_use]
    pub fn refuse(&self, refusal: EventRefusal) -> Report {
        self.shared.count(refusal, 1);
        Report::refused(refusal)
    }

    /// Takes the counts of these windows, in seconds since 1970: see [`EventCounts::drain`].
    #[must_use]
    pub fn drain(&self, windows: impl RangeBounds<u32>) -> Vec<(Cell, Counts)> {
        self.shared.books().counts.drain(windows)
    }

    /// What metrics show.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let in_force = self.shared.in_force.load();
        let books = self.shared.books();
        let mut accepted = Vec::new();
        for (id, name) in in_force.rules.route_names() {
            let of_route = books.accepted.range((id, "", false)..).take_while(|((route, ..), _)| *route == id);
            accepted.extend(of_route.map(|((_, action, is_counted), events)| Accepted {
                route: name.to_owned(),
                action,
                is_counted: *is_counted,
                events: *events,
            }));
        }
        let refused = EventRefusal::ALL.iter().zip(&self.shared.refusals).map(|(refusal, count)| (*refusal, count.load(Ordering::Relaxed)));
        Totals { accepted, refused: refused.collect(), remembered_tokens: books.repeats.tokens(), dropped_windows: books.counts.dropped() }
    }
}

impl InForce {
    fn of(config: &Config, secrets: &[Secret]) -> InForce {
        let (routes, events) = (config.routes.iter().map(|route| route.name.as_str()), config.events.clone());
        let rules = Rules::of(routes, secrets, events.token_lifetime_seconds, events.repeat_memory);
        InForce { config: events, rules }
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, refusal: EventRefusal, times: usize) {
        if let Some(count) = self.refusals.get(refusal.place()) {
            count.fetch_add(times as u64, Ordering::Relaxed);
        }
    }

    /// Everything that becomes of a body. Read outside the lock: whoever asks for metrics does not wait for that.
    fn take_in(&self, from: IpAddr, body: &[u8]) -> Report {
        let in_force = self.in_force.load();
        let config = &in_force.config;
        let (rates, now) = (Rates { all: config.rate, address: config.rate_per_address }, Instant::now());
        if !self.books().rates.has_room(rates, from, now) {
            self.count(EventRefusal::RateLimited, 1);
            return Report::refused(EventRefusal::RateLimited);
        }
        let batch = read(body, Reading { max_events: config.max_events, quality_actions: &config.quality_actions });
        let cost = batch.events.len().max(body.len() / BYTES_PER_EVENT).max(1);
        let mut books = self.books();
        let room = books.rates.take(rates, from, now, u32::try_from(cost).unwrap_or(u32::MAX));
        books.take_in(&batch, usize::try_from(room).unwrap_or(usize::MAX), &in_force.rules, self.clock.now_seconds(), |refusal, times| {
            self.count(refusal, times);
        })
    }
}

impl Books {
    /// Books the first `room` events.
    fn take_in(&mut self, batch: &Batch, room: usize, rules: &Rules, now: u32, mut count: impl FnMut(EventRefusal, usize)) -> Report {
        self.repeats.forget(now, rules.lifetime);
        let mut report = Report::new();
        for (place, event) in batch.events.iter().enumerate() {
            let accepted = if place < room { event.as_ref().map_err(|refusal| *refusal) } else { Err(EventRefusal::RateLimited) };
            match accepted.and_then(|event| Ok((event, book(event, &mut self.repeats, rules, now)?))) {
                Ok((event, accepted)) => {
                    let is_counted = accepted.booking.is_some();
                    accepted.booking.iter().for_each(|booking| self.counts.add(booking));
                    *self.accepted.entry((accepted.route, event.action.label(), is_counted)).or_default() += 1;
                    report.accept(is_counted);
                }
                Err(refusal) => {
                    count(refusal, 1);
                    report.refuse(place + 1, refusal, 1);
                }
            }
        }
        count(EventRefusal::TooMany, batch.too_many);
        report.refuse(batch.events.len() + 1, EventRefusal::TooMany, batch.too_many);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::{Number, Token, TokenKeys, route_id, version_id};

    fn config(events: &str) -> Config {
        let text = format!(
            "listen = {{ traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nevents = {{ {events} }}\n\
             [[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n"
        );
        crate::config::parse("test", &text).unwrap()
    }

    fn click(nonce: u64) -> String {
        let window = FleetClock::start().now_seconds();
        let token = Token { epoch: 1, pool: 0, is_counted: true, version: version_id("blue", "1"), arm: 0, window, group: 4, nonce };
        let text = TokenKeys::of("search", &[[7; 32]]).issue(&token).unwrap();
        format!("{{\"action_name\": \"click\", \"query_id\": \"{}\"}}\n", std::str::from_utf8(&text).unwrap())
    }

    fn said(report: &Report) -> serde_json::Value {
        serde_json::from_str(&report.body()).unwrap()
    }

    async fn deliver(desk: &EventsDesk, body: String) -> Report {
        desk.deliver(IpAddr::from([10, 0, 0, 1]), vec![Bytes::from(body)], desk.buffered()).await
    }

    #[tokio::test]
    async fn a_body_is_booked_and_its_counts_can_be_taken() {
        let desk = EventsDesk::open(&config(""), &[[7; 32]], &FleetClock::start()).unwrap();
        let report = deliver(&desk, [click(1), click(2), click(1)].concat()).await;
        assert_eq!((report.status(), said(&report)["refused"].to_string()), (202, "{\"repeated\":1}".to_owned()));
        let totals = desk.totals();
        let accepted = Accepted { route: "search".to_owned(), action: "click", is_counted: true, events: 2 };
        assert_eq!((totals.accepted, totals.remembered_tokens), (vec![accepted], 2));
        assert_eq!(totals.refused.iter().map(|(_, count)| count).sum::<u64>(), 1);
        let drained = desk.drain(..);
        let clicks: u64 = drained.iter().map(|(_, counts)| counts.of_group(4, Number::Clicks)).sum();
        assert_eq!(clicks, 2);
        assert!(drained.iter().all(|(cell, _)| (cell.route, cell.version) == (route_id("search"), version_id("blue", "1"))));
        assert!(desk.drain(..).is_empty());
        // Another config, another key: repeats are still known, the old token is good no more.
        desk.succeed(&config(""), &[[8; 32], [7; 32]]);
        assert_eq!(said(&deliver(&desk, click(1)).await)["refused"].to_string(), "{\"repeated\":1}");
        desk.succeed(&config(""), &[[8; 32]]);
        assert_eq!(said(&deliver(&desk, click(1)).await)["refused"].to_string(), "{\"forged_token\":1}");
    }

    #[tokio::test]
    async fn over_the_rate_the_rest_of_a_request_is_refused_and_then_all_of_the_next() {
        let desk = EventsDesk::open(&config("rate_per_address = 1, burst_per_address = 3"), &[[7; 32]], &FleetClock::start()).unwrap();
        let report = deliver(&desk, (0..5).map(click).collect()).await;
        assert_eq!((&said(&report)["accepted"], said(&report)["refused"].to_string()), (&3.into(), "{\"rate_limited\":2}".to_owned()));
        assert_eq!(said(&report)["refusals"][0]["event"], 4, "the first ones are taken");
        let report = deliver(&desk, click(9)).await;
        assert_eq!((report.status(), report.retry_after()), (429, Some(1)));
    }

    #[test]
    fn what_bodies_hold_is_bounded_and_given_back() {
        let desk = EventsDesk::open(&config(""), &[], &FleetClock::start()).unwrap();
        let (mut one, mut other) = (desk.buffered(), desk.buffered());
        assert!(one.grow(BUFFERED_BYTES) && !other.grow(1));
        drop(other);
        drop(one);
        assert!(desk.buffered().grow(BUFFERED_BYTES));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_refuses_at_once() {
        let (queue, deliveries) = mpsc::channel(1);
        let shared = EventsDesk::open(&config(""), &[], &FleetClock::start()).unwrap().shared;
        let desk = EventsDesk { shared, queue };
        let mut waiting = std::pin::pin!(deliver(&desk, click(1)));
        let is_pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(is_pending, "handed in, and nobody takes it");
        let report = deliver(&desk, click(2)).await;
        drop(deliveries);
        let waiting = waiting.await;
        assert_eq!((waiting.status(), report.status(), report.retry_after()), (503, 503, Some(1)));
        assert_eq!(desk.totals().refused.iter().find(|(refusal, _)| *refusal == EventRefusal::QueueFull).unwrap().1, 2);
    }
}
