//! `switchback explain`: which model served whom at a moment, and why; and all of what there is about it in one file.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a key that it does not have is null")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::admin_client::AdminArgs;
use super::bundle::{self, Bundle, Wanted};
use super::failure::complain;
use super::{Failure, block_on, flag::plain, print};

const AFTER_HELP: &str = "\
The ledger has an entry for each change of flags, by whom and why, and who served whom since; an entry that a rollout wrote has the evidence too. The model versions are those of the config of the router that wrote the entry.

With --bundle all that is needed to understand and to replay it goes into one file: the ledger, the judged windows of every router, the policies, the config, flags and evidence, with a manifest. It holds no salt, token, key or password.

Examples:
  switchback explain search
  switchback explain search --time 2026-08-01T09:30:00Z
  switchback explain search --ago 90m --json
  switchback explain search --time 2026-08-01T09:30:00Z --bundle incident.tar.gz
  switchback explain --from-bundle incident.tar.gz

Exit codes: 0 done, 2 the ledger does not go back so far or the bundle cannot be trusted, 64 bad usage, 69 the router or its store was not reached.";

/// Say which model served whom at a moment, and why.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ExplainArgs {
    /// The route.
    #[arg(required_unless_present = "from_bundle")]
    route: Option<String>,
    /// The moment, as RFC 3339 has it [default: now].
    #[arg(long, value_name = "TIME", conflicts_with = "ago")]
    time: Option<String>,
    /// The moment, so long ago.
    #[arg(long, value_name = "DURATION")]
    ago: Option<String>,
    /// Put all that is needed to understand and to replay it into this file, which must not be there yet.
    #[arg(long, value_name = "FILE.tar.gz")]
    bundle: Option<PathBuf>,
    /// With --bundle: about this rollout, from its first transition to its last one.
    #[arg(long, value_name = "ID", requires = "bundle", conflicts_with_all = ["time", "ago", "from", "to"])]
    rollout: Option<String>,
    /// With --bundle: also what was judged since then [default: the moment].
    #[arg(long, value_name = "TIME", requires = "bundle")]
    from: Option<String>,
    /// With --bundle: also what was judged until then [default: the moment].
    #[arg(long, value_name = "TIME", requires = "bundle")]
    to: Option<String>,
    /// Answer from this bundle, and ask no router.
    #[arg(long, value_name = "FILE.tar.gz", conflicts_with_all = ["bundle", "route"])]
    from_bundle: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.bundle.is_some() {
            return self.pack().map_err(|failure| failure.in_json(self.json));
        }
        let told = self.told().map_err(|failure| failure.in_json(self.json))?;
        print(&if self.json { format!("{told:#}\n") } else { shown(&told) })
    }

    fn told(&self) -> Result<Value, Failure> {
        let moment = self.moment()?;
        if let Some(file) = &self.from_bundle {
            return of_bundle(&bundle::open(file)?, moment);
        }
        let query = moment.map_or_else(String::new, |time_ms| format!("?time_ms={time_ms}"));
        let path = format!("/api/v1/routes/{}/explain{query}", self.route.as_deref().unwrap_or_default());
        block_on(async { self.admin.client()?.get(&path).await })
    }

    fn pack(&self) -> Result<(), Failure> {
        let file = self.bundle.as_deref().unwrap_or(Path::new(""));
        let time = |option: &str, text: &Option<String>| text.as_deref().map(|text| unix_ms(option, text)).transpose();
        let wanted = Wanted {
            route: self.route.clone().unwrap_or_default(),
            at_ms: self.moment()?,
            rollout: self.rollout.clone(),
            from_ms: time("--from", &self.from)?,
            to_ms: time("--to", &self.to)?,
        };
        let bundle = block_on(async { bundle::collect(self.admin.client()?, &wanted).await })?;
        let packed = bundle::pack(&bundle).map_err(|error| Failure::unreachable(format!("the bundle cannot be packed: {error}")))?;
        bundle::put(file, &packed)?;
        let manifest = &bundle.manifest;
        if self.json {
            return print(&format!("{:#}\n", serde_json::json!({ "file": file, "bytes": packed.len(), "manifest": manifest })));
        }
        let windows = manifest.members.iter().filter(|member| member.name.starts_with(bundle::WINDOWS)).count();
        let policies = manifest.members.iter().filter(|member| member.name.starts_with(bundle::POLICIES)).count();
        let missing: String = manifest.missing.iter().map(|missing| format!("  missing: {missing}\n")).collect();
        print(&format!(
            "{}: {} bytes, {} members: the ledger, {windows} log(s) of windows, {policies} policies\n{missing}",
            file.display(),
            packed.len(),
            manifest.members.len()
        ))
    }

    fn moment(&self) -> Result<Option<u64>, Failure> {
        if let Some(text) = &self.time {
            return unix_ms("--time", text).map(Some);
        }
        let Some(text) = &self.ago else { return Ok(None) };
        let ago = crate::config::units::long_duration(text)
            .ok_or_else(|| Failure::usage(format!("--ago {text}: must be like 90s, 15m, 2h or 3d")))?;
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(crate::admin::now_unix_ms().saturating_sub(ago)))
    }
}

fn unix_ms(option: &str, text: &str) -> Result<u64, Failure> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| Failure::usage(format!("{option} {text}: must be like 2026-08-01T09:30:00Z: {error}")))?;
    let millis = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
    millis.map_err(|_| Failure::usage(format!("{option} {text}: must be after 1970")))
}

/// As the router would have answered: about the bundle's own moment where none is said. What is wrong with its ledger is told beside.
fn of_bundle(bundle: &Bundle, moment: Option<u64>) -> Result<Value, Failure> {
    let (ledger, manifest) = (bundle.ledger()?, &bundle.manifest);
    for problem in ledger.verify(None).problems {
        complain(&format!("warning: the ledger in the bundle is not as it was written: {problem}"));
    }
    let at_ms = moment.unwrap_or(manifest.at_ms);
    if at_ms > manifest.made_unix_ms.max(manifest.at_ms) {
        let (asked, made) = (at(&at_ms.into()), at(&manifest.made_unix_ms.into()));
        return Err(Failure::usage(format!("{asked}: the bundle is of {made}, and knows nothing of what came later")));
    }
    let held = ledger.held_at(at_ms);
    let oldest = held.oldest_ms.map_or_else(|| "is empty".to_owned(), |oldest| format!("begins at {}", at(&oldest.into())));
    let unknown = || Failure::refused(format!("the ledger does not go back to {}: it {oldest}", at(&at_ms.into())));
    crate::admin::explained(&manifest.route, at_ms, held).ok_or_else(unknown)
}

pub(super) fn at(millis: &Value) -> String {
    let time = millis.as_u64().and_then(|millis| OffsetDateTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis).try_into().ok()?));
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| plain(millis))
}

fn shown(told: &Value) -> String {
    let mut text = format!("{} at {}: epoch {}\n", plain(&told["route"]), at(&told["at_ms"]), plain(&told["epoch"]));
    for serves in told["serves"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "  {} % on {}, which runs {}\n",
            plain(&serves["percent"]),
            plain(&serves["pool"]),
            plain(&serves["version"])
        ));
    }
    let until = if told["until_ms"].is_null() { "now".to_owned() } else { at(&told["until_ms"]) };
    text.push_str(&format!("  from {} to {until}\n", at(&told["since_ms"])));
    let (grounds, why) = (&told["grounds"], plain(&told["why"]));
    let what = grounds["event"].as_str().map_or_else(|| plain(&told["kind"]), |event| format!("rollout {}", event.replace('_', " ")));
    text.push_str(&format!("  by {} ({what}){}\n", plain(&told["who"]), if why.is_empty() { String::new() } else { format!(": {why}") }));
    if let Some(policy) = grounds["policy"].as_str() {
        let (name, digest) = policy.split_once('@').unwrap_or((policy, ""));
        let digest: String = digest.chars().take(12).collect();
        let (candidate, control, evidence) = (plain(&grounds["candidate"]), plain(&grounds["control"]), &grounds["evidence"]);
        let harm = evidence["log_harm"].as_f64().unwrap_or(0.0);
        text.push_str(&format!("  evidence on {candidate} over {control}, by {name}@{digest}: harm {harm:.1}"));
        text.push_str(&evidence["threshold_log"].as_f64().map_or_else(|| "\n".to_owned(), |threshold| format!(" of {threshold:.1}\n")));
    }
    text
}
