//! Real processes, and what is done to them: routers and Redis with wall clocks of their own, load, a receiver of notifications.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchback_tests::fleet::Fleet;
use switchback_tests::redis::RedisServer;
use switchback_tests::{Act, Backend, Behaviour, Load, Router, Running, Scripted, eventually};

use crate::eyes::{Eyes, look, stage};
use crate::plan::{Fault, Kind, Plan, STAGES};

/// A fault may make a rollout slower, but it has to get there.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(30);
const RATE: u32 = 80;
const FLAGS: &str = "{switchback:search}:flags";

/// A Redis that has written down whatever it has answered. With `appendfsync everysec` a killed one may have lost its last answers, and the entry of the ledger with them.
const KEEPS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

const QUICK: &str = "[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"";
/// A good candidate is through in some fifteen seconds. A machine that has much to do at a time makes no candidate slow.
const ROUTE: &str = "rollout = { steps = [\"10\", \"50\"], dwell = \"1s\", holdback_percent = \"20\", bake = \"3s\", max_step = \"60s\" }\n\
                     rollback_config = { min_samples = 20, min_dwell_seconds = 1, errors = { margin = 0.2, last_margin = 0.2 }, latency = { gated = false, ignore_below_ms = 20000 } }";
/// As in the plan of the route.
pub(crate) const DWELL: Duration = Duration::from_secs(1);
pub(crate) const BAKE: Duration = Duration::from_secs(3);

/// What somebody wrote with redis-cli.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) field: &'static str,
    pub(crate) value: String,
}

/// A router's place: its id and data folder outlive its processes.
struct Seat {
    id: String,
    folder: tempfile::TempDir,
    clock: Clock,
    router: Option<Router>,
    load: Option<Running>,
    /// It was killed or stopped: queries to it may have failed.
    is_hurt: bool,
}

/// All of a run.
pub(crate) struct Scene {
    pub(crate) plan: Plan,
    pub(crate) fleet: Fleet,
    pub(crate) receiver: Scripted,
    pub(crate) edits: Vec<Edit>,
    pub(crate) eyes: Eyes,
    seats: Vec<Seat>,
    redis_clock: Clock,
    started: Instant,
    /// The last router that was seen to move the rollout.
    holder: usize,
}

/// Makes the library of `clock.c`, once.
fn library() -> PathBuf {
    static MADE: Once = Once::new();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rollout_faults_clock.so");
    MADE.call_once(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("rollout_faults/clock.c");
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let made = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&beside).arg(source).status();
        assert!(made.expect("cc: a C compiler is needed").success());
        std::fs::rename(beside, &path).unwrap();
    });
    path
}

/// The wall clock of a process.
struct Clock {
    file: tempfile::NamedTempFile,
}

impl Clock {
    fn right() -> Clock {
        let clock = Clock { file: tempfile::NamedTempFile::new().unwrap() };
        clock.set(0);
        clock
    }

    fn set(&self, ahead_seconds: i64) {
        use std::os::unix::fs::FileExt as _;
        self.file.as_file().write_all_at(&ahead_seconds.to_le_bytes(), 0).unwrap();
    }

    fn environment(&self) -> [(String, String); 2] {
        [
            ("LD_PRELOAD".to_owned(), library().display().to_string()),
            ("SWITCHBACK_TEST_CLOCK".to_owned(), self.file.path().display().to_string()),
        ]
    }
}

impl Scene {
    /// A rollout that has begun.
    pub(crate) fn start(plan: Plan) -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis_clock = Clock::right();
        let redis = runtime.block_on(RedisServer::start_in(&KEEPS, &redis_clock.environment())).unwrap();
        let fleet = Fleet { runtime, redis, pools: ["blue", "green", "canary"].map(Backend::start) };
        if !plan.is_good {
            fleet.pools[2].behave(Behaviour::EveryOther(500));
        }
        let receiver =
            Scripted::start(if plan.is_deaf { |number| if number % 3 == 1 { Act::Close } else { Act::Answer } } else { |_| Act::Answer });
        let ids: Vec<String> = ["one", "two", "three"].iter().take(plan.routers).map(|id| (*id).to_owned()).collect();
        let seat = |id: &String| Seat {
            id: id.clone(),
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::right(),
            router: None,
            load: None,
            is_hurt: false,
        };
        let (seats, eyes) = (ids.iter().map(seat).collect(), Eyes::open(&ids));
        let mut scene = Scene { plan, fleet, receiver, edits: Vec::new(), eyes, seats, redis_clock, started: Instant::now(), holder: 0 };
        (0..scene.seats.len()).for_each(|index| scene.revive(index));
        for router in scene.routers() {
            let known = || look(router.admin).and_then(|route| route["routers"].as_array().map(Vec::len));
            eventually("all are known", SOON, || (known() == Some(scene.seats.len())).then_some(()));
        }
        let (code, said, error) = scene.any_router().run(&["rollout", "start", "search", "--why", "tonight's model"]);
        assert_eq!(code, 0, "{said}{error}");
        scene.started = Instant::now();
        scene
    }

    /// Those that run and are awake.
    pub(crate) fn routers(&self) -> impl Iterator<Item = &Router> {
        self.seats.iter().filter_map(|seat| seat.router.as_ref())
    }

    pub(crate) fn any_router(&self) -> &Router {
        self.routers().next().expect("a router runs")
    }

    fn left(&self) -> Duration {
        LIMIT.saturating_sub(self.started.elapsed())
    }

    fn look(&self) -> Option<Value> {
        // The one that has heard most.
        self.routers().filter_map(|router| look(router.admin)).max_by_key(|route| route["applied_epoch"].as_u64())
    }

    fn stage(&self) -> Option<usize> {
        self.look().as_ref().and_then(stage)
    }

    fn is_over(&self) -> bool {
        self.stage() == Some(STAGES - 1)
    }

    /// All faults of the plan; answers how long the rollout took to its end.
    pub(crate) fn drive(&mut self) -> Duration {
        for fault in self.plan.faults.clone() {
            let what = format!("stage {} is reached, for: {fault}; {}", fault.stage, self.said());
            eventually(&what, self.left(), || self.stage().filter(|stage| *stage >= fault.stage));
            if fault.after > Duration::ZERO {
                std::thread::park_timeout(fault.after);
            }
            self.inject(&fault);
        }
        let expected = if self.plan.is_good { "done" } else { "rolled_back" };
        let is_at_the_end = |router: &Router| look(router.admin).is_some_and(|route| route["rollout"]["phase"] == expected);
        let deadline = Instant::now() + self.left();
        while !self.routers().all(is_at_the_end) {
            assert!(Instant::now() < deadline, "not {expected} within {LIMIT:?}: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.started.elapsed()
    }

    /// What the routers say of the rollout, for whoever asks why it is not further.
    fn said(&self) -> String {
        let of = |router: &Router| {
            look(router.admin).map_or_else(
                || "no answer".to_owned(),
                |route| format!("{} {}", route["rollout"]["summary"], route["rollout"]["waits_for"]),
            )
        };
        self.routers().map(of).collect::<Vec<_>>().join("; ")
    }

    fn inject(&mut self, fault: &Fault) {
        let which = fault.which % self.seats.len();
        match fault.kind {
            Kind::KillHolder => {
                let holder = self.find_holder();
                self.kill_for(holder, fault.lasts);
            }
            Kind::KillRouter => self.kill_for(which, fault.lasts),
            Kind::KillRedis => {
                self.fleet.redis.kill().unwrap();
                std::thread::park_timeout(fault.lasts);
                self.fleet.runtime.block_on(self.fleet.redis.restart()).unwrap();
            }
            Kind::SleepHolder => self.sleep(fault.lasts),
            Kind::RouterClocks => {
                self.seats.iter().for_each(|seat| seat.clock.set(fault.jump));
                if fault.goes_back {
                    std::thread::park_timeout(fault.lasts);
                    self.seats.iter().for_each(|seat| seat.clock.set(0));
                }
            }
            Kind::StrangeClock => {
                self.kill(which);
                self.seats[which].clock.set(fault.jump);
                self.revive(which);
            }
            Kind::RedisClock => {
                self.redis_clock.set(fault.jump);
                if fault.goes_back {
                    std::thread::park_timeout(fault.lasts);
                    self.redis_clock.set(0);
                }
            }
            Kind::EditFlag => self.edit("flag.note", format!("{}", self.edits.len() + 1)),
            Kind::EditShare => self.edit_share(),
        }
    }

    /// Who moves the rollout; the last one that did where nobody does now.
    fn find_holder(&mut self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(4);
        while Instant::now() < deadline && !self.is_over() {
            let holder = self.look().and_then(|route| route["rollout"]["controller"].as_str().map(str::to_owned));
            if let Some(index) = holder.and_then(|id| self.seats.iter().position(|seat| seat.id == id)) {
                self.holder = index;
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.holder
    }

    fn kill_for(&mut self, index: usize, lasts: Duration) {
        self.kill(index);
        std::thread::park_timeout(lasts);
        self.revive(index);
    }

    fn kill(&mut self, index: usize) {
        self.eyes.follow(index, None);
        let seat = &mut self.seats[index];
        seat.is_hurt = true;
        if let Some(mut router) = seat.router.take() {
            router.kill();
        }
        drop(seat.load.take().map(Running::stop));
    }

    fn revive(&mut self, index: usize) {
        let (seat, url) = (&self.seats[index], self.fleet.redis.url());
        let notify =
            format!("[[notify]]\nname = \"hook\"\nurl = \"{}/hook\"\nretry_base = \"50ms\"\nretry_cap = \"200ms\"\n", self.receiver.url());
        let setup = self.fleet.setup(ROUTE).top(QUICK).top(&notify).redis(&url).state(&format!("router_id = {:?}", seat.id));
        let setup = seat.clock.environment().iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let router = setup.data_dir(seat.folder.path()).start();
        self.eyes.follow(index, Some(router.admin));
        let load = Load::new(router.traffic, RATE).start();
        let seat = &mut self.seats[index];
        (seat.router, seat.load) = (Some(router), Some(load));
    }

    fn sleep(&mut self, lasts: Duration) {
        let holder = self.find_holder();
        self.eyes.follow(holder, None);
        self.seats[holder].is_hurt = true;
        // Nobody asks it while it sleeps.
        let Some(router) = self.seats[holder].router.take() else { return };
        router.signal("STOP");
        std::thread::park_timeout(lasts);
        router.signal("CONT");
        self.eyes.follow(holder, Some(router.admin));
        self.seats[holder].router = Some(router);
    }

    fn edit(&mut self, field: &'static str, value: String) {
        self.fleet.redis.cli(&["HSET", FLAGS, field, &value]).unwrap();
        self.edits.push(Edit { field, value });
    }

    /// It pauses, and goes on when an operator says so.
    fn edit_share(&mut self) {
        match self.stage() {
            Some(0) => self.edit("canary_percent", "12".to_owned()),
            Some(1) => self.edit("canary_percent", "55".to_owned()),
            Some(2) => self.edit("holdback_percent", "15".to_owned()),
            _ => return,
        }
        let is_paused = |route: &Value| route["rollout"]["is_paused"] == true || route["rollout"]["paused"].is_string();
        eventually("it is paused", self.left(), || (self.is_over() || self.look().as_ref().is_some_and(is_paused)).then_some(()));
        eventually("it is resumed", self.left(), || {
            let (code, _, _) = self.any_router().run(&["rollout", "resume", "search", "--why", "as planned"]);
            (code == 0 || self.is_over()).then_some(())
        });
    }

    /// Ends the load; answers which routers failed queries though nothing was done to them.
    pub(crate) fn stop_loads(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        for seat in &mut self.seats {
            let Some(report) = seat.load.take().map(Running::stop) else { continue };
            if report.failures() > 0 && !seat.is_hurt {
                failed.push(format!("{} failed {} queries and was not hurt: {:?}", seat.id, report.failures(), report.described));
            }
        }
        failed
    }
}
