//! Users who search and click. Each stays with one router, looks through the ranking that its answer stands for from the top down, and clicks or goes
//! away; clicks go back by token. What each was answered is kept.
//!
//! Queries are due at a steady rate, and nothing is sent twice: what fails here would have failed a user.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Request;

use crate::exchange::Speaks;
use crate::wire::{Answer, Trouble, Wire};

/// Whoever has looked at a result and not clicked looks at the next one with this probability.
const GOES_ON: f64 = 0.8;

/// How attractive each result is, from the top down: the probability that whoever looks at it clicks.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking(pub Vec<f64>);

impl Ranking {
    /// The same results, the best at the end.
    #[must_use]
    pub fn upside_down(&self) -> Ranking {
        Ranking(self.0.iter().rev().copied().collect())
    }

    /// The same results, with the best one so many places further down.
    #[must_use]
    pub fn with_best_at(&self, place: usize) -> Ranking {
        let mut results = self.0.clone();
        results[..=place].rotate_left(1);
        Ranking(results)
    }

    /// The probability that a user clicks.
    #[must_use]
    pub fn clicks(&self) -> f64 {
        let look = |(clicked, looks): (f64, f64), attracts: &f64| (clicked + looks * attracts, looks * (1.0 - attracts) * GOES_ON);
        self.0.iter().fold((0.0, 1.0), look).0
    }

    /// What one user does.
    fn is_clicked(&self, random: &mut Random) -> bool {
        self.0.iter().find_map(|attracts| if random.part() < *attracts { Some(true) } else { (random.part() >= GOES_ON).then_some(false) })
            == Some(true)
    }
}

/// `SplitMix64`: the same seed, the same numbers.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How many, how often, and at which routers.
#[derive(Debug, Clone)]
pub struct Shoppers {
    /// Traffic listeners; users are spread over them.
    pub routers: Vec<SocketAddr>,
    /// Queries a second, of all of them.
    pub rate: u32,
    /// `user0`...
    pub users: u32,
    /// Connections, each with users of its own.
    pub connections: u32,
    /// How long a click takes on average, at most 50 s.
    pub click_delay: Duration,
    /// What users do is drawn from this.
    pub seed: u64,
}

/// What a user was answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// `userN`.
    pub user: u32,
    /// When it was asked.
    pub asked: Instant,
    /// How long it took.
    pub took: Duration,
    /// What the router says of the answer, where `expose` says so.
    pub pool: String,
    /// Its model version.
    pub version: String,
    /// The epoch of the flags that were obeyed.
    pub epoch: u64,
    /// Why this pool.
    pub reason: String,
    /// Whether the user clicks.
    pub is_clicked: bool,
}

/// What became of all of it.
#[derive(Debug, Default)]
pub struct Visits {
    /// In the order in which answers came; each user's in the order in which it asked.
    pub answered: Vec<Answered>,
    /// Queries that were not answered with a 2xx, and why.
    pub failed: Vec<String>,
    /// Clicks that were counted.
    pub clicks: u64,
    /// Clicks that were not, and why.
    pub lost_clicks: Vec<String>,
}

/// Shoppers under way.
pub struct Shopping {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_stopped: AtomicBool,
    is_silent: AtomicBool,
    sent: AtomicU64,
    rankings: Mutex<BTreeMap<String, Ranking>>,
    visits: Mutex<Visits>,
}

impl Shoppers {
    /// Ordinary ones, who click at once.
    #[must_use]
    pub fn new(routers: &[SocketAddr], rate: u32) -> Shoppers {
        Shoppers { routers: routers.to_vec(), rate, users: 4_000, connections: 16, click_delay: Duration::ZERO, seed: 1 }
    }

    /// Starts them on a thread of their own. `rankings` says what an answer with this body shows; what others show is never clicked.
    #[must_use]
    pub fn start(self, rankings: &[(&str, &Ranking)]) -> Shopping {
        let state = Arc::<State>::default();
        let shopping = Shopping { state: state.clone(), thread: None };
        rankings.iter().for_each(|(body, ranking)| shopping.show(body, ranking));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let clients: Vec<_> = (0..self.connections).map(|number| tokio::spawn(Client::new(&self, number, &state).run())).collect();
                for client in clients {
                    client.await.unwrap();
                }
            });
        });
        Shopping { thread: Some(thread), ..shopping }
    }
}

impl Shopping {
    /// From now on an answer with this body shows this ranking.
    pub fn show(&self, body: &str, ranking: &Ranking) {
        self.state.rankings.lock().unwrap().insert(body.to_owned(), ranking.clone());
    }

    /// From now on clicks are told to nobody, or again.
    pub fn be_silent(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Queries sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more queries were sent.
    pub fn wait_for(&self, queries: u64) {
        let until = self.sent() + queries;
        crate::eventually("the users send their queries", Duration::from_secs(600), || (self.sent() >= until).then_some(()));
    }

    /// Waits for an effect, and looks for it once in so many queries.
    pub fn eventually<T>(&self, what: &str, limit: Duration, every: u64, mut look: impl FnMut() -> Option<T>) -> T {
        let mut due = 0;
        crate::eventually(what, limit, || {
            let sent = self.sent();
            if sent < due {
                return None;
            }
            due = sent + every;
            look()
        })
    }

    /// What became of everything since this was asked last.
    #[must_use]
    pub fn take(&self) -> Visits {
        std::mem::take(&mut *self.state.visits.lock().unwrap())
    }

    /// Sends no more, waits for what is under way; what was not taken.
    #[must_use]
    pub fn stop(mut self) -> Visits {
        self.state.is_stopped.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.take()
    }
}

/// Users of one connection to one router, one query at a time.
struct Client {
    of: Shoppers,
    number: u32,
    router: SocketAddr,
    state: Arc<State>,
    wire: Option<Wire>,
    random: Random,
    /// Clicks that are still to come, by when.
    clicks: VecDeque<(Instant, String)>,
}

impl Client {
    fn new(of: &Shoppers, number: u32, state: &Arc<State>) -> Client {
        let router = of.routers[number as usize % of.routers.len()];
        let random = Random(of.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        Client { of: of.clone(), number, router, state: state.clone(), wire: None, random, clicks: VecDeque::new() }
    }

    async fn run(mut self) {
        let each = Duration::from_secs_f64(f64::from(self.of.connections) / f64::from(self.of.rate));
        let start = tokio::time::Instant::now() + each.mul_f64(f64::from(self.number) / f64::from(self.of.connections));
        let mut ticks = tokio::time::interval_at(start, each);
        let mut user = self.number;
        while !self.state.is_stopped.load(Ordering::Relaxed) {
            ticks.tick().await;
            self.click().await;
            user = (user + self.of.connections) % self.of.users;
            self.state.sent.fetch_add(1, Ordering::Relaxed);
            if let Err(why) = self.search(user).await {
                self.state.visits.lock().unwrap().failed.push(format!("{} user{user}: {why}", crate::time_of_day()));
            }
        }
    }

    async fn search(&mut self, user: u32) -> Result<(), String> {
        let asked = Instant::now();
        let head = Request::post("/rank").header("host", "search.test").header("x-user-id", format!("user{user}"));
        let answer = self.ask(head, Bytes::from_static(b"{\"query\":\"red shoes\"}")).await?;
        let took = asked.elapsed();
        if !answer.status.is_success() {
            return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        let said = |name: &str| answer.headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
        let ranking = self.state.rankings.lock().unwrap().get(&*String::from_utf8_lossy(&answer.body)).cloned();
        let is_clicked = ranking.is_some_and(|ranking| ranking.is_clicked(&mut self.random));
        if is_clicked {
            let delay = self.of.click_delay.mul_f64(-(1.0 - self.random.part()).ln()).min(Duration::from_secs(50));
            let due = asked + delay;
            let place = self.clicks.partition_point(|(other, _)| *other <= due);
            self.clicks.insert(place, (due, said("x-switchback-token")));
        }
        let (pool, version, reason) = (said("x-switchback-pool"), said("x-switchback-version"), said("x-switchback-reason"));
        let epoch = said("x-switchback-epoch").parse().unwrap_or(0);
        self.state.visits.lock().unwrap().answered.push(Answered { user, asked, took, pool, version, epoch, reason, is_clicked });
        Ok(())
    }

    /// Tells the clicks that are due.
    async fn click(&mut self) {
        while let Some((_, token)) = self.clicks.pop_front_if(|(due, _)| *due <= Instant::now()) {
            if self.state.is_silent.load(Ordering::SeqCst) {
                continue;
            }
            let event =
                format!("{{\"action_name\":\"click\",\"query_id\":\"{token}\",\"event_attributes\":{{\"position\":{{\"ordinal\":1}}}}}}");
            let answer = self.ask(Request::post("/_switchback/events").header("host", "search.test"), event.into()).await;
            let said = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            let mut visits = self.state.visits.lock().unwrap();
            match said {
                Ok(said) if said.contains("\"counted\":1") => visits.clicks += 1,
                Ok(said) | Err(said) => visits.lost_clicks.push(said),
            }
        }
    }

    async fn ask(&mut self, head: http::request::Builder, body: Bytes) -> Result<Answer, String> {
        let mut wire = match self.wire.take().filter(Wire::is_open) {
            Some(wire) => wire,
            None => Wire::connect(self.router, None, Speaks::Http1).await?,
        };
        let answer = tokio::time::timeout(Duration::from_secs(30), wire.ask(head, body)).await;
        match answer.unwrap_or_else(|_| Err(Trouble::Failed("no answer in 30 s".to_owned()))) {
            Ok(answer) => {
                self.wire = Some(wire);
                Ok(answer)
            }
            Err(Trouble::NotBegun(why) | Trouble::Failed(why)) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Ranking};

    #[test]
    fn users_click_as_often_as_the_cascade_says() {
        let ranking = Ranking(vec![0.16, 0.10, 0.06, 0.05, 0.04]);
        for ranking in [ranking.upside_down(), ranking.with_best_at(2), ranking] {
            let mut random = Random(7);
            let clicked = (0..200_000).filter(|_| ranking.is_clicked(&mut random)).count();
            let rate = clicked as f64 / 200_000.0;
            assert!((rate - ranking.clicks()).abs() < 0.004, "{rate} and {}", ranking.clicks());
        }
    }
}
