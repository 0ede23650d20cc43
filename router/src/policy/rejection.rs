//! Why a plugin is not admitted, in words that tell its author what to do.

use std::time::Duration;

use super::admission::World;
use super::failure::PolicyFailure;

/// The interface that this router speaks, as people write it.
pub(super) const INTERFACE: &str = "switchback:policy@0.1";

/// A plugin that is not admitted. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The file cannot be read.
    #[error("the file cannot be read: {reason}")]
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// A name that flags cannot say.
    #[error("its name must be NAME.wasm, with 1 to 64 of a-z, 0-9, - and _ for NAME: the router would not look at it")]
    Name,
    /// One file too many.
    #[error("the folder of plugins holds more than the {most} files that are looked at, and this is one of the others: remove one first")]
    Crowded {
        /// How many are looked at.
        most: usize,
    },
    /// Over `policies.file_bytes`.
    #[error("the file has {bytes} bytes; policies.file_bytes allows {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Its digest is not the one that was asked for.
    #[error("its SHA-256 is {found}, but {wanted} was asked for")]
    Digest {
        /// The file's.
        found: String,
        /// The one asked for.
        wanted: String,
    },
    /// Not WebAssembly in binary form.
    #[error("it is not a WebAssembly binary: the first bytes are {start}, and should be 00 61 73 6d")]
    NotWasm {
        /// Its first bytes in hex.
        start: String,
    },
    /// A core module.
    #[error(
        "it is a core WebAssembly module, not a component; build it with `cargo build --target wasm32-wasip2`, or make a component of it \
         with `wasm-tools component new core.wasm -o policy.wasm`"
    )]
    CoreModule,
    /// The bytes do not validate or compile.
    #[error("it is not a valid component: {reason}")]
    Invalid {
        /// The compiler's words.
        reason: String,
    },
    /// It is a policy for another version of the interface.
    #[error(
        "it is made for {found}; this router speaks {INTERFACE} (0.1.0 and later 0.1.x): build it against the wit/ folder of this release"
    )]
    Version {
        /// The export as found, with its version.
        found: String,
    },
    /// It is no policy.
    #[error(
        "it exports neither switchback:policy/split nor switchback:policy/rollback ({INTERFACE}); its exports are: {}; if it was made from a \
         core module, was the WIT embedded in it?",
        list(.exports)
    )]
    NoPolicy {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It asks for something that no policy gets.
    #[error(
        "it imports {name}, which no policy gets; allowed are switchback:policy/log@0.1, the types of {INTERFACE}, and wasi:* \
         (which traps when called)"
    )]
    Import {
        /// The import.
        name: String,
    },
    /// An import or export has the right name and the wrong type.
    #[error("its imports and exports do not have the types of {INTERFACE}: {reason}")]
    Types {
        /// What does not fit.
        reason: String,
    },
    /// It failed a trial call.
    #[error("in a trial ({step}), {failure}")]
    Failed {
        /// Which call.
        step: String,
        /// What went wrong.
        failure: PolicyFailure,
    },
    /// It refused every trial configuration.
    #[error("it refused every trial configuration; the last time it said: {reason}")]
    RefusedAll {
        /// Its own words.
        reason: String,
    },
    /// The same question, another answer.
    #[error("it is not deterministic ({step}): first {first}, then {second}; a unit would change sides between workers")]
    Unsteady {
        /// Which call.
        step: String,
        /// The first answer.
        first: String,
        /// The second answer.
        second: String,
    },
    /// Too slow.
    #[error("a decision takes {} us on average; policies.decision_budget allows {} us", micros(.found), micros(.limit))]
    Slow {
        /// The mean of the fastest batch.
        found: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Not through its trial in time.
    #[error("its trial was not over after policies.trial_timeout ({limit:?})")]
    Late {
        /// The limit.
        limit: Duration,
    },
    /// A policy of the other world.
    #[error("{}", wrong_kind(*.wanted))]
    WrongKind {
        /// The one that is needed.
        wanted: World,
    },
}

fn wrong_kind(wanted: World) -> &'static str {
    match wanted {
        World::SplitPolicy => "it is a rollback policy; split_policy needs one that exports switchback:policy/split",
        World::RollbackPolicy => "it is a split policy; rollback_policy needs one that exports switchback:policy/rollback",
    }
}

fn list(names: &[String]) -> String {
    const MOST: usize = 8;
    match names.len() {
        0 => "none".to_owned(),
        count if count > MOST => format!("{} and {} more", names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", "), count - MOST),
        _ => names.join(", "),
    }
}

fn micros(duration: &Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e6)
}
