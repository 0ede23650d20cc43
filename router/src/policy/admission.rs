//! What a plugin must show before it can be put in force.
//!
//! In this order, the cheap checks first: size, digest, that it is a component, that it compiles, its exports and imports, and then
//! a trial: the golden questions, their answers twice, and the time they take. Pure but for the cache: the same bytes and
//! limits give the same verdict (but for [`Rejection::Slow`], which depends on the machine).

use std::collections::BTreeSet;
use std::time::Duration;
use std::{panic, thread};

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::artefact::ArtefactCache;
use super::engine::PolicyEngine;
use super::failure::printable;
use super::golden::{self, Trial};
use super::host_v0::SplitProgram;
use super::host_v0_rollback::RollbackProgram;
use super::instance::SplitInstance;
use super::rejection::Rejection;
use crate::config::{self, Config};

/// Configs that a plugin is tried with. Each costs a few milliseconds.
const MOST_CONFIGS: usize = 16;
/// Where both want the same processor, the compiler gets a tenth of what a worker does.
const NICE: i32 = 10;

/// What an admission may take, beside the limits of every call.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Size of the file.
    pub(crate) file_bytes: u64,
    /// Mean time of a decision.
    pub(crate) decision_budget: Duration,
    /// Time for the whole trial.
    pub(crate) trial_timeout: Duration,
    /// The configs that it will meet.
    pub(crate) settings: Vec<Setting>,
}

/// A `split_config`, and the pools of the route that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setting {
    /// JSON text.
    pub(crate) split_config: String,
    /// Their names, in the route's order.
    pub(crate) pools: Vec<String>,
}

impl Terms {
    /// As the config says: with the `split_config` and pools of every route, and without one.
    pub(crate) fn of(config: &Config) -> Terms {
        let setting = |route: &config::Route| Setting {
            split_config: route.split_config.clone(),
            pools: route.pools.iter().map(|pool| pool.name.clone()).collect(),
        };
        // A config that says nothing is the same for every route, whatever its pools.
        const NOTHING: &str = "{}";
        let said = config.routes.iter().map(setting).filter(|setting| setting.split_config != NOTHING);
        let nothing = Setting { split_config: NOTHING.to_owned(), pools: Vec::new() };
        let mut settings: Vec<Setting> = said.chain([nothing]).collect();
        settings.sort();
        settings.dedup();
        settings.truncate(MOST_CONFIGS);
        let config::Policies { file_bytes, decision_budget, trial_timeout, .. } = config.policies;
        Terms { file_bytes, decision_budget, trial_timeout, settings }
    }

    /// With this config instead of the routes', and the pools of all of them.
    pub(crate) fn set(&mut self, split_config: &str) {
        let pools: BTreeSet<String> = self.settings.iter().flat_map(|setting| setting.pools.clone()).collect();
        let pools = pools.into_iter().collect();
        self.settings = vec![Setting { split_config: split_config.to_owned(), pools }];
    }
}

/// Which world a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// It routes queries.
    SplitPolicy,
    /// It judges candidates.
    RollbackPolicy,
}

/// What was found out about a plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// SHA-256 of the file, 64 hex digits.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// Its world.
    pub world: World,
    /// The interface it exports, with its version.
    pub exports: String,
    /// Everything that it imports.
    pub imports: Vec<String>,
    /// Time to compile it, in milliseconds; about 1 when it came from the cache.
    pub compile_ms: f64,
    /// Whether the compiled code came from the cache.
    pub was_cached: bool,
    /// Trial decisions that were checked, each twice.
    pub decisions: usize,
    /// Trial configurations.
    pub snapshots: usize,
    /// How many of them it refused in its own words.
    pub snapshots_refused: usize,
    /// Mean time of a trial decision, in nanoseconds, in the fastest batch.
    pub decision_ns: f64,
}

/// A plugin that may be put in force.
pub(crate) struct Admitted {
    /// What was found out about it.
    pub(crate) report: Report,
    /// The policy; `None` for a rollback policy.
    pub(crate) split: Option<SplitProgram>,
    /// The policy; `None` for a split policy.
    pub(crate) rollback: Option<RollbackProgram>,
}

/// SHA-256 of a plugin, 64 lower-case hex digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Judges a plugin. Takes 15 ms to seconds: never on a worker.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn admit(engine: &PolicyEngine, cache: Option<&ArtefactCache>, terms: &Terms, bytes: &[u8]) -> Result<Admitted, Rejection> {
    check_size(bytes.len() as u64, terms.file_bytes)?;
    check_layer(bytes)?;
    let digest = digest(bytes);
    let began = Instant::now();
    let (component, was_cached) = compile(engine, cache, &digest, bytes)?;
    let compile_ms = began.elapsed().as_secs_f64() * 1e3;
    let surface = Surface::of(engine, &component);
    let (world, exports) = surface.world()?;
    surface.check_imports()?;
    let mut report = Report {
        digest,
        bytes: bytes.len() as u64,
        world,
        exports,
        imports: surface.imports,
        compile_ms,
        was_cached,
        decisions: 0,
        snapshots: 0,
        snapshots_refused: 0,
        decision_ns: 0.0,
    };
    let wrong_types = |error: wasmtime::Error| Rejection::Types { reason: printable(&format!("{error:#}")) };
    if world == World::RollbackPolicy {
        let rollback = RollbackProgram::link(engine, &component).map_err(wrong_types)?;
        rollback.check()?;
        return Ok(Admitted { report, split: None, rollback: Some(rollback) });
    }
    let split = SplitProgram::link(engine, &component).map_err(wrong_types)?;
    let trial = try_split(&split, terms)?;
    report.decisions = trial.decisions;
    report.snapshots = trial.snapshots;
    report.snapshots_refused = trial.refused;
    report.decision_ns = trial.decision_time.as_nanos() as f64;
    Ok(Admitted { report, split: Some(split), rollback: None })
}

/// # Errors
/// [`Rejection::TooLarge`].
pub(crate) fn check_size(bytes: u64, limit: u64) -> Result<(), Rejection> {
    if bytes > limit { Err(Rejection::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// A component says so in its eight-byte header: `\0asm`, a version, and the layer 1. A core module has layer 0.
fn check_layer(bytes: &[u8]) -> Result<(), Rejection> {
    let start = bytes.get(..8).unwrap_or(bytes);
    match start {
        [0, b'a', b's', b'm', _, _, 1, 0] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0] => Err(Rejection::CoreModule),
        _ => Err(Rejection::NotWasm { start: if start.is_empty() { "none".to_owned() } else { hex::encode(start) } }),
    }
}

fn compile(engine: &PolicyEngine, cache: Option<&ArtefactCache>, digest: &str, bytes: &[u8]) -> Result<(Component, bool), Rejection> {
    let engine = engine.engine();
    if let Some(component) = cache.and_then(|cache| cache.load(engine, digest)) {
        return Ok((component, true));
    }
    let invalid = |error: wasmtime::Error| Rejection::Invalid { reason: printable(&format!("{error:#}")) };
    let component = compile_after_queries(engine, bytes).map_err(invalid)?;
    if let Some(cache) = cache {
        cache.store(digest, &component.serialize().map_err(invalid)?);
    }
    Ok((component, false))
}

/// What a component exports and imports, by name.
/// Compiles on a thread that is less important than those that serve queries: 150 ms of a processor would be felt where there is none to spare. The
/// priority of a thread cannot be raised again, so that it is a thread of its own.
fn compile_after_queries(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    thread::scope(|scope| {
        let compiler = thread::Builder::new().name("policy-compile".to_owned()).spawn_scoped(scope, || {
            // Refused, it compiles with the priority of the others.
            let _ = setpriority_process(Some(gettid()), NICE);
            Component::from_binary(engine, bytes)
        });
        match compiler {
            Ok(compiler) => compiler.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(_) => Component::from_binary(engine, bytes),
        }
    })
}

struct Surface {
    exports: Vec<String>,
    imports: Vec<String>,
}

impl Surface {
    fn of(engine: &PolicyEngine, component: &Component) -> Surface {
        let kind = component.component_type();
        let engine = engine.engine();
        Surface {
            exports: kind.exports(engine).map(|(name, _)| name.to_owned()).collect(),
            imports: kind.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }

    fn world(&self) -> Result<(World, String), Rejection> {
        let mut other_version = None;
        for export in &self.exports {
            let Some((interface, version)) = our_interface(export) else { continue };
            let world = match interface {
                "split" => World::SplitPolicy,
                "rollback" => World::RollbackPolicy,
                _ => continue,
            };
            if is_spoken(version) {
                return Ok((world, export.clone()));
            }
            other_version = Some(export.clone());
        }
        match other_version {
            Some(found) => Err(Rejection::Version { found }),
            None => Err(Rejection::NoPolicy { exports: self.exports.clone() }),
        }
    }

    fn check_imports(&self) -> Result<(), Rejection> {
        for name in &self.imports {
            let is_ours = our_interface(name)
                .is_some_and(|(interface, version)| matches!(interface, "log" | "split-types" | "rollback-types") && is_spoken(version));
            if !is_ours && !name.starts_with("wasi:") {
                return Err(Rejection::Import { name: printable(name) });
            }
        }
        Ok(())
    }
}

/// `switchback:policy/INTERFACE@VERSION`, taken apart.
fn our_interface(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("switchback:policy/")?.split_once('@')
}

/// Whether a version is one of 0.1.x: the same types by the growth rules in wit/README.md. Pre-releases never match.
fn is_spoken(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

fn try_split(split: &SplitProgram, terms: &Terms) -> Result<Trial, Rejection> {
    let instantiate = |snapshot: &_| SplitInstance::wasm(split.instantiate_for_trial()?, snapshot);
    golden::try_split(instantiate, terms)
}
