//! A policy host over a folder of its own, as these tests drive it, and the guests they feed to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use switchback::config::{self, Config};
use switchback::flags::{Flags, PolicyRef, Share};
use switchback::policy::{
    Decision, Policies, PolicyFailure, PolicyState, PolicyStatus, SplitInForce, SplitInstance, SplitPolicy, WeightedSplit, snapshot,
};
use switchback::vocabulary::{PoolIndex, Ppm, RouteIndex};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) const ROUTE: RouteIndex = RouteIndex(0);
pub(crate) const GUESTS: &str = env!("SWITCHBACK_GUESTS");
/// Long enough for a compilation on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A policy host over a folder of its own.
pub(crate) struct Host {
    pub(crate) policies: Arc<Policies>,
    pub(crate) flags: watch::Sender<Arc<Flags>>,
    pub(crate) config: Arc<Config>,
    pub(crate) dir: tempfile::TempDir,
}

impl Host {
    /// Inside a runtime. `policies` is TOML under `[policies]`.
    pub(crate) fn open(policies: &str) -> Host {
        Host::open_in(tempfile::tempdir().unwrap(), policies, |_| ())
    }

    pub(crate) fn open_in(dir: tempfile::TempDir, policies: &str, change: impl FnOnce(&mut Flags)) -> Host {
        let text = format!(
            r#"
            [listen]
            traffic = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            [state]
            data_dir = "{}"
            [policies]
            {policies}
            [[route]]
            name = "search"
            match = {{ path_prefix = "/" }}
            [route.pools.blue]
            endpoints = ["http://127.0.0.1:1"]
            [route.pools.green]
            endpoints = ["http://127.0.0.1:2"]
            [route.pools.canary]
            endpoints = ["http://127.0.0.1:3"]
            "#,
            dir.path().display()
        );
        let config = Arc::new(config::parse("test", &text).unwrap());
        fs::create_dir_all(&config.policies.dir).unwrap();
        let mut initial = Flags::initial(&config.routes[0]);
        change(&mut initial);
        let (flags, receiver) = watch::channel(Arc::new(initial));
        let policies = Policies::open(&config, vec![receiver]).unwrap();
        Host { policies, flags, config, dir }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Flags)) {
        self.flags.send_modify(|flags| {
            let mut changed = Flags::clone(flags);
            change(&mut changed);
            changed.epoch += 1;
            *flags = Arc::new(changed);
        });
    }

    pub(crate) fn want(&self, name: &str, digest: Option<&str>) {
        self.change(|flags| flags.split_policy = PolicyRef { name: name.to_owned(), digest: digest.map(str::to_owned) });
    }

    pub(crate) fn in_force(&self) -> Arc<SplitInForce> {
        self.policies.split(ROUTE).borrow().clone()
    }

    pub(crate) fn status(&self) -> PolicyStatus {
        self.policies.status(ROUTE)
    }

    pub(crate) fn instance(&self) -> Result<SplitInstance, PolicyFailure> {
        let snapshot = snapshot(&self.config.routes[0], &self.flags.borrow());
        self.in_force().instantiate(&snapshot).map(|(instance, _)| instance)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.config.policies.dir.join(format!("{name}.wasm"))
    }

    /// Puts a plugin in the folder at once, by rename.
    pub(crate) fn install(&self, name: &str, bytes: &[u8]) {
        let new = self.dir.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.file(name)).unwrap();
    }

    /// Waits for a status; fails with the last one.
    pub(crate) async fn eventually(&self, what: &str, is_so: impl Fn(&PolicyStatus) -> bool) -> PolicyStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not in time: {what}; last: {status:#?}");
            switchback_tests::look_again().await;
        }
    }

    pub(crate) async fn eventually_in_force(&self, bytes: &[u8]) {
        let digest = digest(bytes);
        self.eventually("in force", |status| status.state == PolicyState::InForce && status.digest == digest).await;
    }

    /// The decision for one query as a worker takes it: the policy's, else the native one. True with it when the policy failed.
    pub(crate) fn decide(&self, worker: &mut Option<SplitInstance>, position: u32) -> (Decision, bool) {
        let native = || {
            let snapshot = snapshot(&self.config.routes[0], &self.flags.borrow());
            WeightedSplit::configure(&snapshot).unwrap().0.route(position)
        };
        let in_force = self.in_force();
        if in_force.health.is_quarantined(Instant::now()) {
            return (native(), false);
        }
        let answer = match worker {
            Some(instance) => instance.route(position),
            None => self.instance().and_then(|mut instance| {
                let answer = instance.route(position);
                *worker = Some(instance);
                answer
            }),
        };
        answer.map(|decision| (decision, false)).unwrap_or_else(|failure| {
            in_force.failed(&failure, Instant::now());
            *worker = None;
            (native(), true)
        })
    }
}

pub(crate) fn guest(name: &str) -> Vec<u8> {
    fs::read(Path::new(GUESTS).join(format!("{name}.wasm"))).unwrap()
}

/// The guest that behaves until it is told not to.
pub(crate) fn sleeper(name: &str) -> Vec<u8> {
    fs::read(Path::new(GUESTS).join("sleepers").join(format!("{name}.wasm"))).unwrap()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    switchback::policy::digest(bytes)
}

pub(crate) fn misbehave(flags: &mut Flags) {
    flags.features = BTreeMap::from([("misbehave".to_owned(), "true".to_owned())]);
}

pub(crate) fn ramp(ppm: u32) -> impl FnOnce(&mut Flags) {
    move |flags| flags.candidate = Share { pool: PoolIndex(2), share: Ppm::new(ppm).unwrap() }
}
