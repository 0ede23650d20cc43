//! However many events come: each is accepted or refused and counted, and no query beside them fails or waits for them.
//!
//! In a run of all tests there are 200,000; with `SWITCHBACK_FULL=1` it is a million in a minute, the number that is promised. The routers' limits
//! are the defaults, but for that of one address: here one address sends for all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchback::config;
use switchback::quality::{Token, TokenKeys, token_secrets, version_id};
use switchback_tests::{Backend, Load, Setup};

const SENDERS: u64 = 4;
const BATCH: u64 = 500;
/// Queries a second beside the events.
const QUERIES: u32 = 500;

/// A keep-alive connection that sends batches and reads the answers.
struct Sender {
    stream: BufReader<TcpStream>,
}

impl Sender {
    fn new(address: SocketAddr) -> Sender {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Sender { stream: BufReader::new(stream) }
    }

    /// What the answer says.
    fn send(&mut self, body: &str) -> serde_json::Value {
        let head = format!("POST /_switchback/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

/// Sends this many: three with each token, of which two are repeats, and one in ten of an action that nobody knows. Answers how many were accepted, counted and refused.
fn flood(address: SocketAddr, keys: &TokenKeys, sender: u64, events: u64, within: Duration) -> [u64; 3] {
    let (began, mut sender_of, mut sums) = (Instant::now(), Sender::new(address), [0; 3]);
    for batch in 0..events / BATCH {
        let window = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let mut body = String::new();
        for event in 0..BATCH {
            let nonce = (sender << 40) | (batch << 16) | (event - event % 3);
            let token = Token { epoch: 1, pool: 0, is_counted: true, version: version_id("blue", "1"), arm: 0, window, group: 0, nonce };
            let token = keys.issue(&token).unwrap();
            let action = if event % 10 == 9 { "hover" } else { "click" };
            body.push_str(&format!(
                "{{\"action_name\":\"{action}\",\"query_id\":\"{}\",\"position\":1}}\n",
                std::str::from_utf8(&token).unwrap()
            ));
        }
        let answer = sender_of.send(&body);
        let refused = answer["refused"].as_object().unwrap().values();
        let of_request = answer["refusals"].as_array().unwrap().iter().any(|told| told["event"] == 0);
        // A request that is refused as a whole is one refusal, and all of its events.
        let refused = if of_request { BATCH } else { refused.map(|count| count.as_u64().unwrap()).sum() };
        let said = [answer["accepted"].as_u64().unwrap(), answer["counted"].as_u64().unwrap(), refused];
        assert_eq!(said[0] + said[2], BATCH, "every event is accepted or refused: {answer}");
        sums.iter_mut().zip(said).for_each(|(sum, more)| *sum += more);
        // At a steady rate where there is a time for it.
        let due = within.mul_f64((batch + 1) as f64 / (events / BATCH) as f64);
        while began.elapsed() < due {
            std::thread::park_timeout(due - began.elapsed().min(due));
        }
    }
    sums
}

#[test]
fn a_flood_is_accepted_or_refused_to_the_last_one_and_slows_no_query() {
    let is_full = std::env::var("SWITCHBACK_FULL").is_ok_and(|value| value == "1");
    let (events, within) = if is_full { (1_000_000, Duration::from_secs(60)) } else { (200_000, Duration::from_secs(8)) };
    let blue = Backend::start("blue");
    let limits = "[events]\nrate_per_address = 20000";
    let router = Setup::default().pool("blue", &[&blue]).top(limits).workers(2).start();
    let keys = TokenKeys::of("search", &token_secrets(&config::load(&router.config()).unwrap()).unwrap());
    let quiet = Load::new(router.traffic, QUERIES).start();
    quiet.wait_for(1_000);
    let quiet = quiet.stop();
    let beside = Load::new(router.traffic, QUERIES).start();
    let address = router.traffic;
    let floods: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let keys = keys.clone();
            std::thread::spawn(move || flood(address, &keys, sender, events / SENDERS, within))
        })
        .collect();
    let sums: Vec<[u64; 3]> = floods.into_iter().map(|flood| flood.join().unwrap()).collect();
    let beside = beside.stop();
    let sum = |place: usize| sums.iter().map(|sums| sums[place]).sum::<u64>();
    let (accepted, counted, refused) = (sum(0), sum(1), sum(2));
    assert_eq!(accepted + refused, events, "to the last one");
    assert!(counted > events / 20, "{counted} counted, {accepted} accepted, {refused} refused");
    let metric = |labels: &[&str]| router.metric("switchback_events_total", labels);
    assert_eq!((metric(&[]), metric(&["counted=\"true\""])), (accepted as f64, counted as f64), "the router's own books say the same");
    assert_eq!(beside.failures(), 0, "{:?}", beside.failed);
    assert!(beside.sent > 1_000, "{}", beside.sent);
    // The machine is busy with senders, users and backend too, so the middle may be some milliseconds later; a query that had to wait for
    // events would be hundreds late.
    let (before, during) = (quiet.quantile(0.5), beside.quantile(0.5));
    assert!(during <= before * 3 + Duration::from_millis(5), "the middle query took {during:?}, and {before:?} before");
    println!(
        "{events} events in {within:?}: {accepted} accepted, {counted} counted, {refused} refused; queries p50 {before:?} -> {during:?}, p99 {:?} -> {:?}",
        quiet.quantile(0.99),
        beside.quantile(0.99)
    );
}
