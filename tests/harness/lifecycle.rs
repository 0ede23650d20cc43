//! A router's life as an operator has it: signals, another config, a new process.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{Router, Setup, eventually, http};

/// Far longer than a reload or a hand-over takes.
const SOON: Duration = Duration::from_secs(20);

impl Router {
    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap().success());
    }

    /// Puts another config in the file's place, whole, and tells nobody.
    pub fn write_config(&self, setup: &Setup) {
        self.write_config_text(&setup.toml(&self.data_dir));
    }

    /// The same with this text.
    pub fn write_config_text(&self, text: &str) {
        let beside = self.folder.path().join("switchback.toml.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.config()).unwrap();
    }

    /// Waits until it has ended by itself; answers how.
    pub fn child_status(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// `GET /api/v1/status`, parsed; `None` while nobody answers.
    pub fn status(&self) -> Option<Value> {
        let (status, body) = http::get(self.admin, "/api/v1/status").ok()?;
        if status == 200 { serde_json::from_str(&body).ok() } else { None }
    }

    /// What is in force, counted from 1: each reload, and each change of a pool's version by the flags.
    pub fn generation(&self) -> u64 {
        eventually("the status is told", SOON, || self.status()?["generation"].as_u64())
    }

    /// Puts another config in force with the CLI; answers what that printed.
    pub fn reload(&self, setup: &Setup) -> String {
        self.write_config(setup);
        let (code, out, error) = self.run(&["reload"]);
        assert_eq!(code, 0, "{out}{error}");
        out
    }

    /// Asks for a hand-over and waits until a new process serves and the old one has ended; answers how that ended.
    pub fn hand_over(&mut self) -> std::process::ExitStatus {
        let old = self.pid();
        self.signal("USR2");
        let new = eventually("a new process serves", SOON, || {
            let pid = self.status()?["pid"].as_u64()?;
            (pid != u64::from(old)).then(|| u32::try_from(pid).unwrap())
        });
        let status = match self.successor {
            None => self.child.wait().unwrap(),
            // An orphan: nobody here may wait for it.
            Some(_) => {
                eventually("the old process has ended", SOON, || (!is_running(old)).then_some(()));
                std::process::ExitStatus::default()
            }
        };
        self.successor = Some(new);
        status
    }
}

/// Whether a process runs; one that has ended and that nobody has waited for does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
