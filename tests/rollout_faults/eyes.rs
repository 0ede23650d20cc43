//! Watches every router for as long as a run takes: what it says of its epochs and of the rollout, some twenty times a second.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchback_tests::http;

use crate::plan::STAGES;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a router says of the route; `None` while it does not answer.
pub(crate) fn look(admin: SocketAddr) -> Option<Value> {
    let (status, body) = http::get(admin, "/api/v1/routes/search").ok()?;
    if status == 200 { serde_json::from_str(&body).ok() } else { None }
}

/// How far the rollout is, as a router sees it.
pub(crate) fn stage(route: &Value) -> Option<usize> {
    let rollout = &route["rollout"];
    match rollout["phase"].as_str()? {
        "canary" => rollout["step"].as_u64().map(|step| step as usize),
        "baking" => Some(2),
        "done" | "rolled_back" | "aborted" => Some(STAGES - 1),
        _ => None,
    }
}

/// Where a router is to be found, and which of its processes that is.
type Seat = Mutex<Option<(SocketAddr, u32)>>;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each stage was first seen on any router.
    pub(crate) stages: [Option<Instant>; STAGES],
    /// What must never be.
    pub(crate) violations: Vec<String>,
    pub(crate) looks: u64,
}

/// A thread for each router.
pub(crate) struct Eyes {
    seats: Vec<Arc<Seat>>,
    seen: Arc<Mutex<Seen>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Eyes {
    pub(crate) fn open(ids: &[String]) -> Eyes {
        let (seen, is_over) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let seats: Vec<Arc<Seat>> = ids.iter().map(|_| Arc::default()).collect();
        let watch = |(id, seat): (&String, &Arc<Seat>)| {
            let (id, seat, seen, is_over) = (id.clone(), seat.clone(), seen.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut known = Known::default();
                while !is_over.load(Ordering::Relaxed) {
                    let at = *seat.lock().unwrap();
                    if let Some((admin, process)) = at
                        && let Some(route) = look(admin)
                    {
                        known.note(&id, process, &route, &mut seen.lock().unwrap());
                    }
                    std::thread::park_timeout(LOOK_EVERY);
                }
            })
        };
        let threads = ids.iter().zip(&seats).map(watch).collect();
        Eyes { seats, seen, is_over, threads }
    }

    /// A router is there from now on, or (`None`) gone.
    pub(crate) fn follow(&self, router: usize, admin: Option<SocketAddr>) {
        let mut seat = self.seats[router].lock().unwrap();
        let process = seat.map_or(0, |(_, process)| process) + 1;
        *seat = admin.map(|admin| (admin, process));
    }

    /// Ends, and answers what was seen.
    pub(crate) fn close(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// What one router has said.
#[derive(Default)]
struct Known {
    process: u32,
    /// Of this process.
    applied: u64,
    stored: u64,
    /// Of any of its processes.
    ever: u64,
}

impl Known {
    fn note(&mut self, id: &str, process: u32, route: &Value, seen: &mut Seen) {
        seen.looks += 1;
        if process != self.process {
            (self.process, self.applied, self.stored) = (process, 0, 0);
        }
        if let Some(stage) = stage(route) {
            seen.stages[stage].get_or_insert_with(Instant::now);
        }
        let number = |field: &str| route[field].as_u64().unwrap_or(0);
        let (applied, stored) = (number("applied_epoch"), number("epoch"));
        if applied < self.applied || stored < self.stored {
            let (before, stored_before) = (self.applied, self.stored);
            seen.violations.push(format!("{id} went back from epoch {before} to {applied} (of the store: {stored_before} to {stored})"));
        }
        // A new process that has not heard the store says so, and sends candidates nobody.
        if route["source"] == "redis" && applied < self.ever {
            seen.violations.push(format!("{id} came back with epoch {applied}, and had applied {}", self.ever));
        }
        (self.applied, self.stored, self.ever) = (applied, stored, self.ever.max(applied));
    }
}

/// What is there to be seen is seen.
#[test]
fn an_epoch_that_goes_back_is_seen() {
    let says = |epoch: u64, source: &str| serde_json::json!({"applied_epoch": epoch, "epoch": epoch, "source": source, "rollout": {"phase": "baking"}});
    let (mut known, mut seen) = (Known::default(), Seen::default());
    known.note("one", 1, &says(5, "redis"), &mut seen);
    known.note("one", 2, &says(3, "disk"), &mut seen);
    known.note("one", 2, &says(5, "redis"), &mut seen);
    assert!(seen.violations.is_empty() && seen.stages[2].is_some());
    known.note("one", 2, &says(4, "redis"), &mut seen);
    known.note("one", 3, &says(4, "redis"), &mut seen);
    assert_eq!(seen.violations.len(), 3, "{:?}", seen.violations);
}
