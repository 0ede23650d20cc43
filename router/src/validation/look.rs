//! What the process that looks at a model does, check after check; it stops at the first that makes the next ones senseless.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use model_files::onnx::{OnnxShape, Opsets};
use model_files::{Limits, Malformed, Trees, lightgbm, pickle, xgboost};

use super::Live;
use super::child::{Line, Request};
use super::judged::{JUDGED_BYTES, Judged};
use super::onnx::{self, Scored};
use super::report::{Check, Outcome};
use crate::onnx::{Library, LibraryError, Model};
use crate::registry::{Format, Tensor, looks_like};

/// ONNX Runtime, or why it cannot be used.
type Loaded = Result<&'static Library, LibraryError>;

/// Why nothing more is said.
pub(super) enum Stop {
    /// The checks say all there is to say.
    Told,
    /// Nobody listens, or ONNX Runtime or the live model cannot be used.
    Unusable(String),
    /// The judged queries are none.
    Usage(String),
}

/// Says what is found, as it is found.
struct Teller<W> {
    out: W,
    /// That it is of another format than the live model: told with what its own format says, in one check.
    other_format: Option<Check>,
}

impl<W: std::io::Write> Teller<W> {
    fn say(&mut self, line: &Line) -> Result<(), Stop> {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        self.out.write_all(&text).and_then(|()| self.out.flush()).map_err(|error| Stop::Unusable(error.to_string()))
    }

    /// Begins with a check, and says what came of it. One that is refused is the last.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Check) -> Result<(), Stop> {
        self.begin(name)?;
        self.done(check())
    }

    fn begin(&mut self, name: &str) -> Result<(), Stop> {
        self.say(&Line::Begin(name.to_owned()))
    }

    /// Says it, and goes on whatever it is.
    fn tell(&mut self, check: Check) -> Result<(), Stop> {
        let other = if check.name == "format" { self.other_format.take() } else { None };
        self.say(&Line::Done(match other {
            Some(other) => both(&check, &other),
            None => check,
        }))
    }

    fn done(&mut self, check: Check) -> Result<(), Stop> {
        let is_refused = check.outcome == Outcome::Refused;
        self.tell(check)?;
        if is_refused { Err(Stop::Told) } else { Ok(()) }
    }

    fn refuse(&mut self, name: &str, why: impl Into<String>) -> Stop {
        match self.tell(Check::new(name, Outcome::Refused, why)) {
            Ok(()) => Stop::Told,
            Err(stop) => stop,
        }
    }
}

/// Looks, and says what there is. `Err`: why it cannot be told.
pub(super) fn look(request: &Request, library: Option<Loaded>, out: impl std::io::Write) -> Result<(), String> {
    let mut teller = Teller { out, other_format: None };
    match all(request, library, &mut teller) {
        Ok(()) | Err(Stop::Told) => {}
        // Who does not hear it sees that the last line is missing.
        Err(Stop::Unusable(why)) => {
            let _ = teller.say(&Line::Unusable(why.clone()));
            return Err(why);
        }
        Err(Stop::Usage(why)) => {
            let _ = teller.say(&Line::Usage(why.clone()));
            return Err(why);
        }
    }
    // A pickle has no check of its own format, and another one may not have come to it.
    let left = teller.other_format.take();
    let told = left.map_or(Ok(()), |check| teller.tell(check));
    told.and_then(|()| teller.say(&Line::End)).map_err(|_| "nobody listens".to_owned())
}

fn all<W: std::io::Write>(request: &Request, library: Option<Loaded>, teller: &mut Teller<W>) -> Result<(), Stop> {
    let library = library.transpose().map_err(|error| Stop::Unusable(error.to_string()))?;
    teller.begin("size")?;
    let bytes = match read(&request.file, request.criteria.artefact_bytes) {
        Ok(bytes) => bytes,
        Err(why) => return Err(teller.refuse("size", why)),
    };
    if bytes.is_empty() {
        return Err(teller.refuse("size", "the file is empty"));
    }
    let most = request.criteria.artefact_bytes;
    teller.tell(Check::new("size", Outcome::Passed, format!("{} bytes; up to {most} are allowed", bytes.len())))?;
    teller.other_format = other_format(request);
    if request.format != Format::Onnx {
        unknown_quality(request, teller)?;
    }
    match request.format {
        Format::Onnx => match library {
            Some(library) => run(request, library, bytes, teller),
            None => Err(Stop::Unusable("ONNX Runtime was not loaded".to_owned())),
        },
        Format::Pickle => walk(request, &bytes, teller),
        Format::LightGbm => trees(request, teller, lightgbm::read(&bytes, &Limits::default())),
        Format::XgBoost => trees(request, teller, xgboost::read(&bytes, &Limits::default())),
        Format::Opaque => opaque(request, &bytes, teller),
    }
}

/// What the live model is, another one is not.
fn other_format(request: &Request) -> Option<Check> {
    let live = request.live.as_ref().filter(|live| live.format != request.format)?;
    let outcome = if request.criteria.signature_change { Outcome::Declared } else { Outcome::Refused };
    let to_do = if outcome == Outcome::Refused { ": declare that with --signature-change" } else { "" };
    let said = format!("{}, and the live model is {}{to_do}", request.format, live.format);
    Some(Check::new("format", outcome, said))
}

/// What a format is by itself, and beside the live model's, in one check.
fn both(own: &Check, other: &Check) -> Check {
    let outcome = if own.outcome == Outcome::Refused { Outcome::Refused } else { other.outcome };
    Check::new("format", outcome, format!("{}; {}", other.said, own.said))
}

/// Only ONNX is run here.
fn unknown_quality<W: std::io::Write>(request: &Request, teller: &mut Teller<W>) -> Result<(), Stop> {
    let why = format!("{} is not run here, so nothing is known of how it ranks", request.format);
    teller.done(onnx::unknown("ndcg@10", &why, &request.criteria))
}

/// How feature names differ, if they do.
pub(super) fn other_names(new: &[String], old: &[String]) -> Option<String> {
    if new == old || old.is_empty() {
        return None;
    }
    if new.is_empty() {
        return Some("it has no feature names, and the live model has".to_owned());
    }
    let pair = (0..).zip(new.iter().zip(old)).find(|(_, (new, old))| new != old);
    let first = pair.map_or_else(String::new, |(place, (new, old))| format!(": feature {place} is {new:?}, and was {old:?}"));
    Some(format!("feature names are others{first}"))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > most {
        return Err(format!("{size} bytes; up to {most} are allowed"));
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX))
        .map_err(|_| format!("{size} bytes are more than the memory that looking at it may take"))?;
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn walk<W: std::io::Write>(request: &Request, bytes: &[u8], teller: &mut Teller<W>) -> Result<(), Stop> {
    teller.begin("globals")?;
    match pickle::examine(bytes, &allowed(request), &pickle::Limits::default()) {
        Err(refused) => Err(teller.refuse("globals", format!("{refused}{}", instead(&refused, bytes)))),
        Ok(found) => known(found, teller),
    }
}

/// Whatever somebody calls it: what of it would be unpickled is walked.
fn opaque<W: std::io::Write>(request: &Request, bytes: &[u8], teller: &mut Teller<W>) -> Result<(), Stop> {
    teller.begin("globals")?;
    // Whatever it is, it may be as large as a model may be here.
    let (most, limits) = (request.criteria.artefact_bytes, pickle::Limits::default());
    let limits = pickle::Limits { bytes: most, unpacked_bytes: limits.unpacked_bytes.max(most.saturating_mul(2)), ..limits };
    match pickle::examine_opaque(bytes, &allowed(request), &limits) {
        Err(refused) => return Err(teller.refuse("globals", refused.to_string())),
        Ok(Some(found)) => known(found, teller)?,
        // A row of its own: it may have been refused before the list had what it names.
        Ok(None) => teller.tell(Check::new("globals", Outcome::Passed, "nothing in it is unpickled"))?,
    }
    teller.tell(Check::new("format", Outcome::Skipped, "opaque: nothing here can read it; its backend has to tell"))
}

fn allowed(request: &Request) -> pickle::Allowed {
    let extra: Vec<&str> = request.criteria.allowed_globals.iter().map(String::as_str).collect();
    pickle::Allowed::with(&extra)
}

/// What it names is all on the list.
fn known<W: std::io::Write>(found: pickle::Examined, teller: &mut Teller<W>) -> Result<(), Stop> {
    let compressed = found.compression.map_or_else(String::new, |how| format!(", {}", format!("{how:?}").to_lowercase()));
    let (pickles, globals) = (found.pickles, found.globals.len());
    let container = format!("{:?}", found.container).to_lowercase();
    let said = format!("{container}{compressed}: {pickles} pickles of protocol {}, all {globals} globals known", found.protocol);
    teller.tell(Check::new("globals", Outcome::Passed, said))?;
    teller.say(&Line::Facts { inputs: Vec::new(), outputs: Vec::new(), globals: found.globals })
}

/// What a file looks like that is no pickle at all.
fn instead(refused: &pickle::Unsafe, bytes: &[u8]) -> String {
    let is_whole_file = matches!(refused, pickle::Unsafe::Broken(broken) if broken.place.entry.is_none());
    match looks_like(bytes).filter(|_| is_whole_file) {
        None => String::new(),
        Some(what) => format!("; it is no pickle, but looks like {what}; allowed here are pickles, joblib and torch files, .npy and .npz"),
    }
}

/// Trees, which only their own library runs.
fn trees<W: std::io::Write>(request: &Request, teller: &mut Teller<W>, read: Result<Trees, Malformed>) -> Result<(), Stop> {
    teller.begin("format")?;
    match read {
        Err(malformed) => Err(teller.refuse("format", malformed.to_string())),
        Ok(Trees { trees, leaves, feature_names: names, features, objective }) => {
            let said = format!("{trees} trees with {leaves} leaves, of {features} features, for {objective}");
            if trees > 0 && leaves == trees {
                return Err(teller.refuse("format", format!("{said}: all documents get the same score, and there is no order in that")));
            }
            teller.tell(Check::new("format", Outcome::Passed, said))?;
            let shape = vec![-1, i64::try_from(features).unwrap_or(i64::MAX)];
            let input = Tensor { name: "features".to_owned(), element: "float64".to_owned(), shape };
            teller.say(&Line::Facts { inputs: vec![input], outputs: Vec::new(), globals: Vec::new() })?;
            teller.begin("signature")?;
            teller.done(width(request, features, &names)?)
        }
    }
}

/// Whether it takes the features that the live model and the judged queries have.
fn width(request: &Request, features: usize, names: &[String]) -> Result<Check, Stop> {
    let judged = request.judged.as_deref().map(judged).transpose().map_err(Stop::Usage)?.map(|judged| judged.features);
    if let Some(judged) = judged.filter(|judged| *judged != features) {
        return Ok(Check::new("signature", Outcome::Refused, format!("{features} features, and the judged queries have {judged}")));
    }
    let live = request.live.as_ref().map(|live| features_of(live, request.criteria.artefact_bytes)).transpose();
    let live = live.map_err(|why| Stop::Unusable(format!("the live model: {why}")))?.flatten();
    let Some((there, old)) = live else { return Ok(Check::new("signature", Outcome::Passed, format!("{features} features"))) };
    let other = (there != features).then(|| format!("{features} features; the live model takes {there}"));
    Ok(match other.or_else(|| other_names(names, &old)) {
        None => Check::new("signature", Outcome::Passed, format!("{features} features, as the live model's")),
        Some(said) if request.criteria.signature_change => Check::new("signature", Outcome::Declared, said),
        Some(said) => Check::new("signature", Outcome::Refused, said),
    })
}

/// Features of the live model and their names, where its file says so.
fn features_of(live: &Live, most: u64) -> Result<Option<(usize, Vec<String>)>, String> {
    let (bytes, limits) = (read(&live.file, most)?, Limits::default());
    let features = match live.format {
        Format::LightGbm => lightgbm::read(&bytes, &limits).map(|shape| Some((shape.features, shape.feature_names))),
        Format::XgBoost => xgboost::read(&bytes, &limits).map(|shape| Some((shape.features, shape.feature_names))),
        Format::Onnx => model_files::onnx::read(&bytes, &limits, &Opsets::ONNX_RUNTIME_1_32).map(|shape| {
            let width = shape.inputs.first().and_then(|input| input.shape.as_deref()?.last().copied());
            width.and_then(|width| usize::try_from(width).ok()).map(|width| (width, shape.feature_names))
        }),
        Format::Pickle | Format::Opaque => Ok(None),
    };
    features.map_err(|malformed| malformed.to_string())
}

fn run<W: std::io::Write>(request: &Request, library: &Library, bytes: Vec<u8>, teller: &mut Teller<W>) -> Result<(), Stop> {
    teller.check("format", || match model_files::onnx::read(&bytes, &Limits::default(), &Opsets::ONNX_RUNTIME_1_32) {
        Ok(shape) => Check::new("format", Outcome::Passed, written(&shape)),
        Err(malformed) => Check::new("format", Outcome::Refused, malformed.to_string()),
    })?;
    teller.begin("loads")?;
    let model = match onnx::load(library, "model", bytes) {
        Ok(model) => model,
        Err(why) => return Err(teller.refuse("loads", why)),
    };
    teller.tell(Check::new("loads", Outcome::Passed, "ONNX Runtime takes it"))?;
    let (inputs, outputs) = onnx::tensors(&model);
    teller.say(&Line::Facts { inputs, outputs, globals: Vec::new() })?;
    let live = request.live.as_ref().filter(|live| live.format == Format::Onnx);
    let live = live.map(|live| load_live(library, &live.file, request.criteria.artefact_bytes)).transpose();
    let live = live.map_err(|why| Stop::Unusable(format!("the live model {why}")))?;
    teller.check("signature", || onnx::signature(&model, live.as_ref(), &request.criteria))?;
    let judged = request.judged.as_deref().map(judged).transpose().map_err(Stop::Usage)?;
    let queries = match onnx::queries(judged.as_ref(), model.signature.features) {
        Ok(queries) => queries,
        Err(why) => return Err(teller.refuse("scores", why)),
    };
    teller.begin("scores")?;
    let scored = match Scored::new(model, &queries) {
        Ok(scored) => scored,
        Err(check) => return teller.done(check),
    };
    teller.done(scored.finite())?;
    teller.check("deterministic", || scored.deterministic(&queries))?;
    teller.check("independent", || scored.independent(&queries))?;
    if let Some(check) = scored.expected(&queries) {
        teller.done(check)?;
    }
    teller.say(&Line::Golden(String::from_utf8_lossy(&scored.golden(&queries).render()).into_owned()))?;
    compare(request, &scored, live, &queries, teller)
}

/// What the file says of itself.
fn written(shape: &OnnxShape) -> String {
    let opsets: Vec<String> = shape.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    let producer = if shape.producer.is_empty() { "somebody".to_owned() } else { shape.producer.clone() };
    let trees = if shape.trees == 0 { String::new() } else { format!(", {} trees", shape.trees) };
    format!("IR {} by {producer}, opsets {}, {} parameters{trees}", shape.ir_version, opsets.join(", "), shape.parameters)
}

/// What needs the live model. All of it is told, whatever becomes of one.
fn compare<W: std::io::Write>(
    request: &Request,
    scored: &Scored,
    live: Option<Model>,
    queries: &Judged,
    teller: &mut Teller<W>,
) -> Result<(), Stop> {
    let live = live.filter(|live| live.signature.features == queries.features);
    teller.begin("latency")?;
    teller.tell(onnx::latency(&scored.model, live.as_ref(), queries, &request.criteria))?;
    let skipped = |name, why: &str| Check::new(name, Outcome::Skipped, why);
    let Some(live) = live else {
        let why = match &request.live {
            None => "there is no live model to compare it with",
            Some(live) if live.format != Format::Onnx => "the live model is not run here",
            Some(_) => "the live model takes other features",
        };
        for name in ["ndcg@10", "mrr"] {
            teller.tell(onnx::unknown(name, why, &request.criteria))?;
        }
        return teller.tell(skipped("movement", why));
    };
    teller.begin("ndcg@10")?;
    let live = Scored::new(live, queries).map_err(|check| Stop::Unusable(format!("the live model: {}", check.said)))?;
    for check in onnx::quality(scored, &live, queries, &request.criteria) {
        teller.tell(check)?;
    }
    teller.begin("movement")?;
    teller.tell(onnx::movement(scored, &live, request.judged.is_some(), &request.criteria))
}

fn load_live(library: &Library, path: &Path, most: u64) -> Result<Model, String> {
    let bytes = read(path, most)?;
    onnx::load(library, "live", bytes)
}

fn judged(path: &Path) -> Result<Judged, String> {
    let wrong = |why: String| format!("the judged queries ({}): {why}", path.display());
    let bytes = read(path, JUDGED_BYTES).map_err(wrong)?;
    let judged = Judged::read(&bytes).map_err(|fault| wrong(fault.to_string()))?;
    match judged.has_orders() {
        true => Ok(judged),
        false => Err(wrong("no query has two documents; with one document each they say nothing of an order".to_owned())),
    }
}
