//! The process that looks at a model: whatever the file does to it, it is this process and no other that is slow, large, or dead.
//!
//! It is this program again. It gets one line on standard input, sets its own limits before it opens a file, and says a line for each check that it begins and
//! ends. So its parent knows what it was doing when it died.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::Live;
use super::report::{Check, Outcome};
use crate::config::{Cost, Criteria};
use crate::registry::{Format, Tensor};

/// The longest line that a child says: scores of golden queries.
const LINE_BYTES: u64 = 64 << 20;
/// What is kept of what it says on stderr.
const STDERR_BYTES: u64 = 64 << 10;
/// Files that it may have open.
const FILES: u64 = 64;

/// What a child is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The artefact.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
    /// The live model.
    pub live: Option<Live>,
    /// Judged queries.
    pub judged: Option<PathBuf>,
    /// ONNX Runtime's library, where somebody named one.
    pub onnxruntime: Option<PathBuf>,
    /// What is asked of the model.
    pub criteria: Criteria,
}

/// What a child says, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// It begins with this.
    Begin(String),
    /// This is what came of it.
    Done(Check),
    /// What the model takes and gives, and what a pickle names.
    Facts {
        /// What goes in.
        inputs: Vec<Tensor>,
        /// What comes out.
        outputs: Vec<Tensor>,
        /// Globals.
        globals: Vec<String>,
    },
    /// Golden queries with the model's scores, as JSON lines.
    Golden(String),
    /// ONNX Runtime is missing, or cannot be used; nothing is known of the model.
    Unusable(String),
    /// The judged queries make no sense; nothing is known of the model.
    Usage(String),
    /// There is no more to say.
    End,
}

/// All that a child said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) checks: Vec<Check>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) globals: Vec<String>,
    pub(super) golden: Option<Vec<u8>>,
    pub(super) unusable: Option<String>,
    pub(super) usage: Option<String>,
    /// What it was doing, at last.
    doing: String,
    is_whole: bool,
}

/// Why no child could be asked.
#[derive(Debug, thiserror::Error)]
#[error("the process that looks at models cannot be started")]
pub struct NoChild(#[from] std::io::Error);

/// Asks one, and waits for its end.
pub(super) async fn ask(request: &Request, begins: &(dyn Fn(&str) + Sync)) -> Result<Said, NoChild> {
    let cost = &request.criteria.cost;
    let until = Instant::now() + cost.time();
    let mut child = spawn()?;
    let mut said = Said { doing: "start".to_owned(), ..Said::default() };
    let stdin = child.stdin.take();
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, child.stdout.take(), child.stderr.take()) else {
        return Err(NoChild(std::io::Error::other("no pipes")));
    };
    let mut line = serde_json::to_vec(request).map_err(std::io::Error::other)?;
    line.push(b'\n');
    // It may be dead already; its end says so. Its standard input stays open: when it is closed, the child ends.
    let _ = stdin.write_all(&line).await;
    let listened = timeout_at(until, async { tokio::join!(listen(stdout, &mut said, begins), tail(stderr)) }).await;
    let (wrong, stderr) = match listened {
        Ok((Ok(()), stderr)) => (None, stderr),
        Ok((Err(wrong), stderr)) => (Some(wrong), stderr),
        Err(_) => (Some(format!("it took longer than {} s", cost.time().as_secs_f64())), String::new()),
    };
    if wrong.is_some() {
        child.start_kill()?;
    }
    let status = match timeout_at(until, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            child.start_kill()?;
            child.wait().await?
        }
    };
    drop(stdin);
    if !said.is_whole && said.unusable.is_none() && said.usage.is_none() {
        let why = wrong.unwrap_or_else(|| died(status, &stderr, cost));
        let doing = std::mem::take(&mut said.doing);
        said.checks.push(Check::new("limits", Outcome::Refused, format!("while looking at \"{doing}\": {why}")));
    }
    Ok(said)
}

fn spawn() -> Result<Child, NoChild> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["model", "look"]).env_clear().env("ORT_DISABLE_TELEMETRY", "1");
    for name in ["ORT_DYLIB_PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?)
}

/// Reads lines until there are no more. `Err`: it says what no child says.
async fn listen(stdout: impl AsyncRead + Unpin, said: &mut Said, begins: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(());
        }
        match serde_json::from_slice(&line).map_err(|error| format!("it says what makes no sense: {error}"))? {
            Line::Begin(name) => {
                begins(&name);
                said.doing = name;
            }
            Line::Done(check) => said.checks.push(check),
            Line::Facts { inputs, outputs, globals } => (said.inputs, said.outputs, said.globals) = (inputs, outputs, globals),
            Line::Golden(text) => said.golden = Some(text.into_bytes()),
            Line::Unusable(why) => said.unusable = Some(why),
            Line::Usage(why) => said.usage = Some(why),
            Line::End => said.is_whole = true,
        }
    }
}

/// The last line of it; the rest is read and forgotten.
async fn tail(stderr: impl AsyncRead + Unpin) -> String {
    let mut reader = BufReader::new(stderr);
    let (mut last, mut line) = (String::new(), Vec::new());
    loop {
        line.clear();
        match (&mut reader).take(STDERR_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) => {
                let text = String::from_utf8_lossy(&line);
                if !text.trim().is_empty() {
                    text.trim().clone_into(&mut last);
                }
            }
            Ok(0) | Err(_) => return last,
        }
    }
}

fn died(status: ExitStatus, stderr: &str, cost: &Cost) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGXCPU: i32 = 24;
    const SIGKILL: i32 = 9;
    let last = if stderr.is_empty() { String::new() } else { format!("; it said last: {stderr}") };
    match status.signal() {
        Some(SIGXCPU) => format!("it took more than {} s of processor time", cost.cpu_s),
        Some(SIGKILL) => format!("it was killed, as the system does when memory runs out{last}"),
        _ if stderr.contains("memory allocation of") => format!("it took more than {} bytes of memory{last}", cost.memory_bytes),
        Some(signal) => format!("it died of signal {signal}{last}"),
        None => format!("it ended ({status}){last}"),
    }
}

/// Takes the limits upon this process: after its own libraries are loaded, and before anything of outside is opened.
///
/// # Errors
/// The system refuses.
pub(super) fn limit(cost: &Cost) -> Result<(), std::io::Error> {
    let set = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    // What this program maps by itself, most of which it never touches, is no part of it.
    set(Resource::As, address_space().saturating_add(cost.memory_bytes))?;
    // One second more is where the system kills: the soft limit says why.
    setrlimit(Resource::Cpu, Rlimit { current: Some(cost.cpu_s), maximum: Some(cost.cpu_s.saturating_add(1)) })?;
    set(Resource::Core, 0)?;
    set(Resource::Fsize, 0)?;
    set(Resource::Nofile, FILES)?;
    Ok(())
}

/// What this process has mapped, in bytes; 0 where the system does not say.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split_whitespace().next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}
