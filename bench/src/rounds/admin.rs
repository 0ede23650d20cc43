//! What is asked of a router's admin API: that it is ready as a variant wants it, and what an operator does to it under load.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::peer::RouterState;
use super::process::LOOK_EVERY;

/// For one answer, and for a state that is waited for.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two flips of `live`, and between two new plugins.
const FLIP_EVERY: Duration = Duration::from_millis(100);
const FLIPS_A_SWAP: u32 = 5;
/// The plugin that is swapped.
const SWAPPED: &str = "bench-split";

/// No build is like one before it, so that each is compiled.
static BUILDS: AtomicU32 = AtomicU32::new(0);

/// A router's admin listener.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    address: SocketAddr,
    token: PathBuf,
}

/// What was done to a router while it was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Done {
    /// Times that all users went to the other colour.
    pub(crate) flips: u32,
    /// New plugins that were uploaded, compiled and put in force.
    pub(crate) swaps: u32,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr, data: &Path) -> Admin {
        Admin { address, token: data.join("admin.token") }
    }

    /// Has a router begin anew in its data folder: with the flags of its config. Compiled policies stay.
    pub(crate) fn forget(data: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(data) else { return Ok(()) };
        for entry in entries.flatten().filter(|entry| entry.file_name() != "cache") {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let token = fs::read_to_string(&self.token).unwrap_or_default();
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(WITHIN))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            token.trim(),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the admin API broke off")?;
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).context("no status")?;
        Ok((status, answer.split_off(end + 4)))
    }

    /// The body of an answer that says that all is well.
    fn ask_well(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let (status, answer) = self.ask(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    fn set(&self, route: &str, flags: &BTreeMap<String, String>) -> Result<()> {
        let change = json!({ "set": flags, "why": "bench" }).to_string();
        self.ask_well("PATCH", &format!("/api/v1/routes/{route}/flags"), change.as_bytes())?;
        Ok(())
    }

    /// The split policy of a route, as the router tells of it.
    fn policy(&self, route: &str) -> Result<Value> {
        let answer: Value = serde_json::from_slice(&self.ask_well("GET", &format!("/api/v1/routes/{route}"), b"")?)?;
        let policies = answer.get("policies").and_then(Value::as_array).context("a route without policies")?;
        let split = policies.iter().find(|policy| policy.get("kind").is_some_and(|kind| kind == "split"));
        Ok(split.context("a route without a split policy")?.clone())
    }

    /// Waits until the route's policy is the one that is wanted, and `answered_by` decides.
    fn settle(&self, route: &str, answered_by: &str) -> Result<()> {
        let until = Instant::now() + WITHIN;
        loop {
            let policy = self.policy(route)?;
            let is_wanted = policy.get("name") == policy.get("wanted");
            if is_wanted && policy.get("answered_by").is_some_and(|by| by == answered_by) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{answered_by} does not decide: {policy}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Brings the router into a variant's state.
    pub(crate) fn prepare(&self, state: &RouterState, tools: &Path) -> Result<()> {
        let until = Instant::now() + WITHIN;
        while !self.ask("GET", "/readyz", b"").is_ok_and(|(status, _)| status == 200) {
            if Instant::now() > until {
                bail!("it does not become ready");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        if let Some(plugin) = &state.plugin {
            let file = tools.join("policies").join(format!("{plugin}.wasm"));
            let bytes = fs::read(&file).with_context(|| format!("{} is not there (bench/install_peers.sh)", file.display()))?;
            self.ask_well("PUT", &format!("/api/v1/policies/{plugin}"), &bytes)?;
        }
        if let Some((last, first)) = state.flags.split_last() {
            for flags in first {
                self.set(&state.route, flags)?;
                self.settle(&state.route, "policy")?;
            }
            self.set(&state.route, last)?;
        }
        self.settle(&state.route, &state.answered_by)
    }

    /// Flips all users to the other colour and back, and swaps the plugin, until it is told to stop.
    pub(crate) fn operate(&self, route: &str, is_over: &AtomicBool) -> Result<Done> {
        let policy = self.policy(route)?;
        let digest = policy.get("digest").and_then(Value::as_str).context("a policy without a digest")?;
        let shipped = self.ask_well("GET", &format!("/api/v1/plugins/{digest}"), b"")?;
        let mut done = Done::default();
        let mut turn = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            if turn.is_multiple_of(FLIPS_A_SWAP) {
                self.ask_well(
                    "PUT",
                    &format!("/api/v1/policies/{SWAPPED}"),
                    &another_build(&shipped, BUILDS.fetch_add(1, Ordering::Relaxed)),
                )?;
                done.swaps += 1;
            }
            let live = if turn.is_multiple_of(2) { "green" } else { "blue" };
            let flags = [("live", live), ("split_policy", SWAPPED)].map(|(name, value)| (name.to_owned(), value.to_owned()));
            self.set(route, &BTreeMap::from(flags))?;
            done.flips += 1;
            turn += 1;
            std::thread::sleep(FLIP_EVERY.saturating_sub(began.elapsed()));
        }
        Ok(done)
    }
}

/// The same component with a custom section more, which a runtime skips: other bytes, so another plugin. Its name is `build`, its content
/// the build's number and the process's, so that no cache knows it.
fn another_build(component: &[u8], number: u32) -> Vec<u8> {
    let content = format!("{number}-{}", std::process::id());
    let byte = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut build = component.to_vec();
    build.extend([0, byte(1 + 5 + content.len()), 5]);
    build.extend(b"build");
    build.extend(content.as_bytes());
    build
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_differs_by_a_custom_section() {
        let build = another_build(b"\0asm", 7);
        assert!(build.starts_with(b"\0asm\0"));
        assert_eq!(usize::from(build[5]), build.len() - 6);
        assert_ne!(build, another_build(b"\0asm", 8));
    }
}
