//! `switchback model gc`: retention.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::AdminAt;
use super::model::who;
use super::model_show::bytes;
use super::registry_args::{RegistryArgs, failed};
use super::{Failure, block_on, print};
use crate::config::units;
use crate::registry::{Keep, Name, Plan, Reference, Registry, RegistryError, Which};

/// Remove the artefacts of old versions, and what pushes left that were never done. Manifests stay.
///
/// A version stays while it is in use, has an alias, is one of the newest, or is young. What is in use the router says, whom a dry run asks too. When
/// it does not answer, nothing is removed; where no router uses this registry, say --no-router.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback model gc search --dry-run\n  switchback model gc --keep 20 --younger 90d\n  switchback model gc search --no-router --in-use 12 --in-use 11 --json"
)]
pub(super) struct Gc {
    /// The models [default: all].
    models: Vec<Name>,
    /// So many of the newest stay.
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep: usize,
    /// Those that are younger stay: a duration like 12h or 30d.
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    younger: String,
    /// A version that is in use and stays; may be said again.
    #[arg(long = "in-use", value_name = "N")]
    in_use: Vec<u64>,
    /// No router uses this registry: none is asked what is in use.
    #[arg(long)]
    no_router: bool,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminAt,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing goes when no router answers, and what to do.
const UNKNOWN: &str = "nothing is removed while it cannot be said what is in use: name the router with --admin URL; where no router uses this registry, say --no-router";

/// What became of each model, and what is said of those that cannot be read.
type Collected = (Vec<(Name, Plan)>, Vec<String>);

impl Gc {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (done, broken) = self.collect().map_err(|failure| failure.in_json(self.json))?;
        let json: Vec<Value> = done.iter().map(|(model, plan)| told(model, plan)).collect();
        let lines = || done.iter().map(|(model, plan)| lines(model, plan, self.dry_run)).collect::<String>();
        print(&if self.json {
            format!("{:#}\n", json!({ "dry_run": self.dry_run, "models": json, "unreadable": broken }))
        } else {
            lines()
        })?;
        if broken.is_empty() { Ok(()) } else { Err(Failure::refused(broken.join("\n"))) }
    }

    /// What the pools of a fleet run, and what is on its way, as its flags say.
    async fn labels_in_use(&self) -> Result<Vec<String>, Failure> {
        if self.no_router {
            return Ok(Vec::new());
        }
        let config = self.registry.config()?;
        let asked = match self.admin.client(config.as_ref()) {
            Ok(client) => client.get("/api/v1/routes").await,
            Err(failure) => Err(failure),
        };
        let answer = asked.map_err(|failure| failure.with_hint(UNKNOWN))?;
        let texts = |value: &Value, keys: &[&str]| -> Vec<String> {
            keys.iter().filter_map(|key| value.get(key)?.as_str().map(str::to_owned)).collect()
        };
        let routes = answer.get("routes").and_then(Value::as_array).into_iter().flatten();
        let labels = routes.flat_map(|route| {
            let pools = route.get("pools").and_then(Value::as_object).into_iter().flatten();
            let run = pools.flat_map(|(_, pool)| texts(pool, &["version"])).collect::<Vec<_>>();
            [run, route.get("rollout").map(|rollout| texts(rollout, &["candidate", "control"])).unwrap_or_default()].concat()
        });
        Ok(labels.collect())
    }

    /// That each version which is said to be in use is one: with a slip in its number, another one would go.
    async fn in_use_are_there(&self, registry: &Registry, models: &[Name]) -> Result<(), Failure> {
        let mut there = BTreeSet::new();
        if !self.in_use.is_empty() {
            for model in models {
                there.extend(registry.numbers_there(model).await.map_err(failed)?);
            }
        }
        match self.in_use.iter().find(|number| !there.contains(number)) {
            Some(number) => Err(Failure::usage(format!("--in-use {number}: there is no such version; nothing was removed"))),
            None => Ok(()),
        }
    }

    fn collect(&self) -> Result<Collected, Failure> {
        let younger = younger(&self.younger)?;
        let now_ms = crate::admin::now_unix_ms();
        block_on(async {
            let registry = self.registry.open()?;
            let labels = self.labels_in_use().await?;
            let models = if self.models.is_empty() { registry.models_begun().await.map_err(failed)? } else { self.models.clone() };
            self.in_use_are_there(&registry, &models).await?;
            let (mut done, mut broken) = (Vec::new(), Vec::new());
            for model in models {
                if !self.models.is_empty() {
                    registry.version(&Reference { model: model.clone(), which: Which::Newest }).await.map_err(failed)?;
                }
                let here = labels.iter().filter_map(|label| number_of(&model, label));
                let keep = Keep { newest: self.keep, younger, in_use: self.in_use.iter().copied().chain(here).collect() };
                let mut plan = match registry.plan_removal(&model, &keep, now_ms).await {
                    // What cannot be read might be what is in use: nothing of this model goes.
                    Err(error @ RegistryError::Object { .. }) => {
                        broken.push(format!("nothing of {model} is removed: {error}"));
                        continue;
                    }
                    plan => plan.map_err(failed)?,
                };
                if !self.dry_run {
                    let mut removed = Vec::new();
                    for version in std::mem::take(&mut plan.remove) {
                        let number = version.manifest.version;
                        if registry.remove(&version, &who(), now_ms).await.map_err(failed)? {
                            removed.push(version);
                        } else {
                            plan.keep.push((number, "has an alias"));
                        }
                    }
                    plan.remove = removed;
                    for (path, _) in &plan.orphans {
                        registry.remove_orphan(path).await.map_err(failed)?;
                    }
                }
                done.push((model, plan));
            }
            Ok((done, broken))
        })
    }
}

/// `search:13` of the model `search` is 13.
fn number_of(model: &Name, label: &str) -> Option<u64> {
    let reference: Reference = label.parse().ok()?;
    match reference.which {
        Which::Number(number) if reference.model == *model => Some(number),
        _ => None,
    }
}

/// Days are what people think in here.
fn younger(text: &str) -> Result<Duration, Failure> {
    units::long_duration(text).ok_or_else(|| Failure::usage(format!("--younger {text}: must be a duration like 12h or 30d")))
}

fn told(model: &Name, plan: &Plan) -> Value {
    let removed: Vec<u64> = plan.remove.iter().map(|version| version.manifest.version).collect();
    let kept: Vec<Value> = plan.keep.iter().map(|(version, why)| json!({ "version": version, "why": why })).collect();
    let orphans: Vec<&String> = plan.orphans.iter().map(|(path, _)| path).collect();
    json!({ "model": model, "removed": removed, "kept": kept, "unfinished_pushes": orphans, "bytes": plan.bytes() })
}

fn lines(model: &Name, plan: &Plan, is_dry: bool) -> String {
    let numbers: Vec<String> = plan.remove.iter().map(|version| version.manifest.version.to_string()).collect();
    let verb = if is_dry { "would be removed" } else { "removed" };
    let versions = (!numbers.is_empty()).then(|| format!("the artefacts of {}", numbers.join(", ")));
    let orphans = (!plan.orphans.is_empty()).then(|| format!("{} files of pushes that were never done", plan.orphans.len()));
    let all: Vec<String> = versions.into_iter().chain(orphans).collect();
    let what = if all.is_empty() { "nothing".to_owned() } else { all.join(", and ") };
    format!("{model}: {what} {verb}, {}; {} versions stay\n", bytes(plan.bytes()), plan.keep.len())
}
