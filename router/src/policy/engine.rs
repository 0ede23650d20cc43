//! The WebAssembly engine: one for the process, its clock, and what one guest may take.
//!
//! Invariant: every call into a guest runs under a deadline, a memory limit and a stack limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{Config, Engine, EngineWeak, ResourceLimiter, Store};

use super::failure::printable;
use crate::config;

/// Address space set aside for one linear memory. The default (4 GiB) would make every fresh instance cost more, and a policy
/// has 16 MiB unless the config says otherwise.
const MEMORY_RESERVATION: u64 = 64 << 20;
/// Core modules inside one component: a `wasm32-wasip2` build has an adapter and shims beside the guest itself.
const INSTANCES: usize = 64;
const TABLES: usize = 64;
const MEMORIES: usize = 8;
/// Function pointers of one table; a JavaScript engine has about 10,000.
const TABLE_ELEMENTS: usize = 100_000;
/// Lines a second that one instance may log.
const LOG_LINES: u32 = 20;

/// What a guest may take: the part of `[policies]` that holds at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For one decision.
    pub(crate) deadline: Duration,
    /// For one `configure`, and for making an instance.
    pub(crate) configure_deadline: Duration,
    /// Linear memory of one instance, all its memories together, in bytes.
    pub(crate) memory: usize,
    /// Stack of one call, in bytes.
    pub(crate) stack: usize,
}

impl Limits {
    /// The limits in the config.
    pub(crate) fn of(policies: &config::Policies) -> Limits {
        Limits {
            deadline: policies.deadline,
            configure_deadline: policies.configure_deadline,
            memory: policies.memory,
            stack: policies.stack,
        }
    }
}

/// The engine and the limits that everything made with it obeys.
#[derive(Clone)]
pub(crate) struct PolicyEngine {
    engine: Engine,
    limits: Limits,
    tick: Duration,
    _ticker: Arc<Ticker>,
}

impl PolicyEngine {
    /// Makes the engine and starts its clock.
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly, or gives no thread.
    pub(crate) fn new(limits: Limits) -> wasmtime::Result<PolicyEngine> {
        let mut config = Config::new();
        // Component calls are synchronous; without this each would pay for tasks that nobody uses.
        config.concurrency_support(false);
        config.epoch_interruption(true);
        config.memory_reservation(MEMORY_RESERVATION.max(limits.memory as u64));
        config.max_wasm_stack(limits.stack);
        // A plugin compiles on one core while queries are served on all of them.
        config.parallel_compilation(false);
        let engine = Engine::new(&config)?;
        // Four ticks to a deadline: fine enough for a limit that only hostile guests meet, and few wake-ups.
        let tick = (limits.deadline.min(limits.configure_deadline) / 4).max(Duration::from_millis(1));
        let ticker = Arc::new(Ticker::start(engine.weak(), tick)?);
        Ok(PolicyEngine { engine, limits, tick, _ticker: ticker })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// A deadline in ticks, rounded up: a call has `limit` at least, and two ticks more at most.
    pub(super) fn ticks(&self, limit: Duration) -> u64 {
        let ticks = limit.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX / 2).saturating_add(1)
    }

    /// A store for one guest, under the limits. `label` is what its log lines are labelled with.
    pub(super) fn store(&self, label: Arc<str>) -> Store<Guest> {
        let guest = Guest { limits: self.limits, memory: 0, was_denied_memory: false, label, log: LogAllowance::default() };
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| guest);
        store.epoch_deadline_trap();
        store.set_epoch_deadline(self.ticks(self.limits.configure_deadline));
        store
    }
}

/// The thread that advances the epoch. It ends when the engine is gone.
struct Ticker {
    thread: std::thread::Thread,
}

impl Ticker {
    fn start(engine: EngineWeak, tick: Duration) -> std::io::Result<Ticker> {
        let clock = std::thread::Builder::new().name("policy-clock".to_owned()).spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                // An early wake-up ticks early; deadlines are rounded up by a tick for that.
                std::thread::park_timeout(tick);
            }
        })?;
        Ok(Ticker { thread: clock.thread().clone() })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// What the host knows of one instance while it runs.
pub(crate) struct Guest {
    limits: Limits,
    memory: usize,
    was_denied_memory: bool,
    label: Arc<str>,
    log: LogAllowance,
}

impl Guest {
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn was_denied_memory(&self) -> bool {
        self.was_denied_memory
    }

    /// Answers the `log` import.
    pub(super) fn log(&mut self, level: tracing::Level, message: &str) {
        let Some(dropped) = self.log.take(Instant::now()) else { return };
        let (policy, message) = (&*self.label, printable(message));
        match level {
            tracing::Level::ERROR => tracing::error!(target: "policy", policy, dropped, "{message}"),
            tracing::Level::WARN => tracing::warn!(target: "policy", policy, dropped, "{message}"),
            tracing::Level::INFO => tracing::info!(target: "policy", policy, dropped, "{message}"),
            _ => tracing::debug!(target: "policy", policy, dropped, "{message}"),
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.limits.memory {
            self.was_denied_memory = true;
            // A trap rather than a failed `memory.grow`: allocators answer that with a trap of their own, which tells nobody why.
            return Err(wasmtime::Error::msg("over its memory limit"));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.was_denied_memory = true;
            return Err(wasmtime::Error::msg("over its limit of table elements"));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

/// Counts log lines by the second. Pure: `now` is a parameter.
#[derive(Debug, Default)]
struct LogAllowance {
    second_began: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LogAllowance {
    /// Takes one line: how many were dropped since the last one that passed, or `None` when this one is dropped too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let is_fresh = self.second_began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1));
        if is_fresh {
            self.second_began = Some(now);
            self.lines = 0;
        }
        if self.lines == LOG_LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_lines_a_second_pass_and_the_rest_are_counted() {
        let mut allowance = LogAllowance::default();
        let start = Instant::now();
        let passed = (0..100).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(passed, 20);
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(80));
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(0));
    }
}
