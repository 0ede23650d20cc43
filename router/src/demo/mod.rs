//! The newcomer's first minute: the whole system on this machine, with real models, real queries and users who click.
//!
//! ```text
//! users (cascade clicks) -----> router (child process, WASM policy) --> three rankers (child processes, ONNX) <-- registry (a folder)
//!          |                       ^ flags, plugins       | notices       ^                                            ^
//!          |                     script <--- receiver <---+               |                                            |
//!          |                        +------ job (deploy_model.sh) --------|--------------------------------------------+
//!          +-- a tenth, once more: probe ---------------------------------+
//!
//! record --> summary --> screen, JSON
//! ```
//!
//! Every process is this same binary or the script that calls it, on ports that the system gives out, in a folder that is removed at the end.
//!
//! Invariant: whatever way the demo ends, a SIGKILL included, its processes end with it. (After a SIGKILL the folder stays.)

mod cast;
mod clicks;
mod http;
mod job;
mod offers;
mod plugin;
mod probe;
mod profile;
mod queries;
mod receiver;
mod record;
mod refusals;
mod rollouts;
mod screen;
mod script;
mod summary;
mod users;

use std::sync::Arc;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::cast::Cast;
use self::screen::{Screen, Tone};
use self::script::{Pace, Script};
use self::summary::Summary;
use self::users::{SharedRecord, Users, lock};

/// What to show.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Shorter steps: about half as long.
    pub(crate) is_fast: bool,
    /// The timeline goes to stderr; stdout is for the line of JSON.
    pub(crate) for_machines: bool,
    /// Queries a second. 1..=5000.
    pub(crate) rate: u32,
    /// Different users. 16..=1_000_000.
    pub(crate) users: u32,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// No failed query, no user who changed sides, shares as configured.
    pub(crate) is_good: bool,
    /// The contract's line.
    pub(crate) json: Value,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A file or folder of its own.
    #[error("the demo's own folder cannot be used")]
    Folder(#[source] std::io::Error),
    /// This binary cannot be started a second time.
    #[error("the demo cannot start its own binary")]
    Binary(#[source] std::io::Error),
    /// A process did not come up.
    #[error("{name} did not start: {reason}")]
    Process {
        /// `ranker-blue`, ..., `router`.
        name: String,
        /// Its own last words.
        reason: String,
    },
    /// Something that the nightly job calls.
    #[error("{name} is needed for the nightly job, and is not on the PATH: {from}")]
    Tool {
        /// `sh`, `flock`, ...
        name: &'static str,
        /// How to get it.
        from: &'static str,
    },
    /// The router did not do as told.
    #[error("{0}")]
    Change(String),
    /// The data inside this binary.
    #[error(transparent)]
    Queries(#[from] QueriesBroken),
    /// Somebody wants it to end.
    #[error("stopped; everything that the demo started has ended")]
    Stopped,
}

/// The embedded queries cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct QueriesBroken(String);

impl DemoError {
    fn process(name: &str, reason: &str) -> DemoError {
        DemoError::Process { name: name.to_owned(), reason: reason.trim().to_owned() }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Plays the demo. Inside a tokio runtime.
///
/// # Errors
/// [`DemoError`]; SIGINT and SIGTERM end it with [`DemoError::Stopped`].
pub(crate) async fn run(options: &Options) -> Result<Outcome, DemoError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DemoError::Binary)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DemoError::Binary)?;
    let mut screen = Screen::new(options.for_machines);
    tokio::select! {
        outcome = play(options, &mut screen) => outcome,
        _ = terminate.recv() => Err(DemoError::Stopped),
        _ = interrupt.recv() => Err(DemoError::Stopped),
    }
}

async fn play(options: &Options, screen: &mut Screen) -> Result<Outcome, DemoError> {
    let broken = |error: queries::QueriesError| QueriesBroken(chain(&error));
    let judged = queries::judged().map_err(broken)?;
    let queries = Arc::new(queries::read_all(&judged).map_err(broken)?);
    screen.title("Switchback demo");
    screen.paragraph(
        "A registry with a LambdaMART model, three rankers that serve it, the router with its WebAssembly policy, and search users who click. \
         Every process is this same binary.",
    );
    screen.say("");
    let mut cast = Cast::start(&judged).await?;
    introduce(screen, &cast, options, queries.len());
    let record = SharedRecord::default();
    let (over, is_over) = watch::channel(false);
    let users = Users {
        router: cast.traffic,
        rankers: cast.rankers,
        queries,
        record: record.clone(),
        rate: options.rate,
        units: options.users,
        is_over,
    };
    let tasks = users.start();
    let pace = if options.is_fast { Pace::fast() } else { Pace::usual() };
    let mut script = Script::new(&mut cast, screen, record.clone(), pace);
    let ended = script.play().await;
    let shown = std::mem::take(&mut script.shown);
    over.send_replace(true);
    for task in tasks {
        // A user that panicked would be a failed query; joining tells.
        if task.await.is_err() {
            lock(&record).fail("a user's task died".to_owned());
        }
    }
    screen.clear_status();
    let drained = cast.drain_router().await;
    let (tone, said) = if drained { (Tone::Quiet, "the router drained") } else { (Tone::Bad, "the router did not drain") };
    screen.event(tone, "end", said);
    let summary = Summary::of(&lock(&record), shown, screen.elapsed());
    summary.show(screen);
    let wrong = ended.as_ref().err().map(|error| chain(error));
    if let Some(wrong) = &wrong {
        screen.say("");
        screen.paragraph(&screen.verdict(false, wrong));
    }
    let (is_good, said) = (
        summary.is_good() && drained && wrong.is_none(),
        "no query failed, nobody changed sides, every share as configured; a good model went live, a broken one was rolled back, and five were refused unseen",
    );
    screen.say("");
    screen.paragraph(&screen.verdict(is_good, if is_good { said } else { "not as promised: see what is marked above" }));
    Ok(Outcome { is_good, json: summary.json(wrong.as_deref()) })
}

fn introduce(screen: &mut Screen, cast: &Cast, options: &Options, queries: usize) {
    let (rankers, runtime) = (cast.rankers.map(|ranker| ranker.port().to_string()).join(", "), &cast.onnxruntime);
    let text = format!("search:1 is in it, pushed by this binary, and validated on {queries} judged queries");
    screen.event(Tone::Quiet, "registry", &text);
    screen.event(Tone::Quiet, "rankers", &format!("warm on ports {rankers}; ONNX Runtime from {runtime}"));
    let (traffic, admin) = (cast.traffic, cast.admin);
    screen.event(
        Tone::Quiet,
        "router",
        &format!("ready: traffic on http://{traffic}, admin API on http://{admin}, flags in the embedded store"),
    );
    let (rate, users) = (options.rate, options.users);
    screen.event(Tone::Quiet, "users", &format!("{rate} queries a second from {users} users, out of {queries} judged queries"));
}
