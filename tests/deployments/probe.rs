//! One user who asks over and over, and notes how long each answer took and which version gave it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchback_tests::model_pools::query;
use switchback_tests::ranker::Client;
use switchback_tests::{Router, eventually};

use crate::report::Loads;

/// Between two queries.
const EVERY: Duration = Duration::from_millis(5);

struct Seen {
    unix_ms: u64,
    took: Duration,
}

/// The user, at work.
pub(crate) struct Probe {
    is_stopped: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Seen>>,
}

/// What the user saw.
pub(crate) struct Times(Vec<Seen>);

impl Probe {
    /// Of this router.
    pub(crate) fn start(router: &Router) -> Probe {
        let (is_stopped, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (address, stop, count) = (router.traffic.to_string(), is_stopped.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (body, mut seen) = (query(), Vec::new());
                let mut client = Client::connect(&address).await.unwrap();
                let mut ticks = tokio::time::interval(EVERY);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let (unix_ms, began) = (now_ms(), Instant::now());
                    let answer = client.send("POST", "/rank", body.clone()).await.unwrap();
                    assert_eq!(answer.status, 200, "{:?}", answer.body);
                    seen.push(Seen { unix_ms, took: began.elapsed() });
                    count.fetch_add(1, Ordering::Relaxed);
                }
                seen
            })
        });
        Probe { is_stopped, asked, thread }
    }

    /// Waits until it has asked so many times more.
    pub(crate) fn wait_for(&self, queries: u64) {
        let until = self.asked.load(Ordering::Relaxed) + queries;
        eventually("the probe asks", Duration::from_secs(60), || (self.asked.load(Ordering::Relaxed) >= until).then_some(()));
    }

    /// What it saw.
    pub(crate) fn stop(self) -> Times {
        self.is_stopped.store(true, Ordering::Relaxed);
        Times(self.thread.join().unwrap())
    }
}

impl Times {
    /// How long answers took while nothing was under way, and while a version was loaded.
    pub(crate) fn times(&self, loads: &Loads) -> (Vec<Duration>, Vec<Duration>) {
        let within = |is_within: &dyn Fn(u64) -> bool| self.0.iter().filter(|seen| is_within(seen.unix_ms)).map(|seen| seen.took).collect();
        (within(&|at| loads.is_quiet(at)), within(&|at| loads.is_loading(at)))
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
