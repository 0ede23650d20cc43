//! `switchback deploy`: from a file to all users, in one command that may be killed anywhere and run again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use super::admin_client::{AdminAt, AdminClient};
use super::deploy_check::{Exam, Examined, live_version};
use super::deploy_decide::{Ended, IfBusy, Next, RolloutSeen, Scene, Until, other_model};
use super::deploy_follow::Followed;
use super::deploy_push::Wanted;
use super::deploy_start::{Begun, Order, Patient};
use super::deploy_told::{Account, Told};
use super::model_push::Described;
use super::registry_args::{RegistryAt, failed, trusted};
use super::stopped::unless_stopped;
use super::validating::{asked_by, named, refusals, unusable};
use super::{Failure, again, block_on, deploy_alias, deploy_push, evidence, flag, free_text, print};
use crate::admin::now_unix_ms;
use crate::config::{self, Config, Validation, rollout_steps, units};
use crate::flags::TEXT_CHARS;
use crate::registry::{Name, Registry, TrustedKey, Version};
use crate::validation::{Outcome, Report, digest};

/// The longest that a deployment may be followed.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

const AFTER_HELP: &str = "\
In this order: the file is pushed (unless the registry has it already), the version is validated (unless its newest report is of this comparison), its rollout begins (unless it is under way), and with --wait it is followed. Each is done once, however often the command is killed and run again. docs/model-deployment-guide.md has every option and phase.

Examples:
  switchback deploy --route search --model search --file ranker.onnx --config switchback.toml --wait
  switchback deploy --route search --model search --version 12 --steps 1,10,50 --why \"tonight's model\"
  switchback deploy --route search --model search --file ranker.onnx --wait --if-busy=supersede --timeout 6h --json
  switchback deploy --route search --model search --file ranker.onnx --dry-run

Exit codes: 0 done (with --wait: live), 2 refused or rolled back, 64 bad usage or config, 69 the registry or the router is away, 75 still under way at --timeout, 130 interrupted.";

/// Deploy a model: push, validate, roll out step by step, and wait until it is live.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["version", "file"]))]
pub(super) struct DeployArgs {
    /// The route whose users get it.
    #[arg(long, value_name = "ROUTE")]
    pub(super) route: String,
    /// The model's name in the registry.
    #[arg(long, value_name = "NAME")]
    pub(super) model: Name,
    /// The version to deploy.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) version: Option<u64>,
    /// A file to deploy: it is pushed as the next version, unless the registry has it already.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) described: Described,
    /// Judged queries that it is validated on: JSON lines [default: route.validation.judged of --config].
    #[arg(long, value_name = "FILE")]
    judged: Option<PathBuf>,
    /// Inputs and outputs may be others than the live model's.
    #[arg(long)]
    signature_change: bool,
    /// The candidate's shares in percent, rising, like 1,5,25 [default: those of the route's plan].
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',')]
    pub(super) steps: Option<Vec<String>>,
    /// Where another rollout is under way: refuse, supersede (abort it) or queue (wait until it is over; in no order, but never over a newer version that goes live meanwhile).
    #[arg(long, value_name = "WHAT", default_value = "refuse", hide_possible_values = true)]
    pub(super) if_busy: IfBusy,
    /// What was live when this was first wanted, where an earlier try failed: with --if-busy=queue a newer version that went live since is not replaced.
    #[arg(long, value_name = "VERSION", hide = true)]
    before: Option<String>,
    /// Follow the rollout until it is over.
    #[arg(long)]
    wait: bool,
    /// How far to follow it: live (a holdback stays on the version before), or done (everybody is on it).
    #[arg(long, value_name = "WHAT", default_value = "done", hide_possible_values = true, requires = "wait")]
    until: Until,
    /// For so long at most from the beginning of the command on, like 2h; the rollout goes on all the same.
    #[arg(long, value_name = "DURATION", default_value = "24h", allow_hyphen_values = true)]
    timeout: String,
    /// Why, for the manifest and the ledger.
    #[arg(long, default_value = "")]
    why: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminAt,
    #[command(flatten)]
    registry: RegistryAt,
    /// A router's config: its admin address and token, its registry and keys, and what the route asks of its models.
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
    /// Print one JSON object at the end, and events on stderr, an object a line.
    #[arg(long)]
    json: bool,
}

/// What was asked, when all of it makes sense.
pub(super) struct Deployment<'a> {
    pub(super) args: &'a DeployArgs,
    pub(super) registry: config::Registry,
    /// The model that the route's servers load, as the config says.
    loads: Option<String>,
    pub(super) keys: Vec<TrustedKey>,
    pub(super) exam: Exam,
    pub(super) patient: Patient,
    pub(super) deadline: Instant,
}

impl DeployArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut account = Account::of(&self.route, self.model.as_str());
        let done = block_on(unless_stopped(self.deploy(&mut account)));
        let done = done.map_err(|failure| if failure.is_interrupted() { self.interrupted(&account) } else { failure });
        if let Err(failure) = &done {
            account.outcome = account.outcome.or_else(|| failure.is_refused().then_some("refused"));
        }
        let account = account.object(now_unix_ms());
        match done {
            Ok(said) => print(&if self.json { format!("{account:#}\n") } else { said }),
            Err(failure) => Err(failure.with_details(account).in_json(self.json)),
        }
    }

    /// What goes on without whoever stopped it.
    fn interrupted(&self, account: &Account) -> Failure {
        Failure::interrupted(match (account.version, &account.rollout) {
            (Some(version), Some(_)) => {
                format!("interrupted: the rollout goes on by itself; to attach again: {}", self.again(version))
            }
            _ => "interrupted before a rollout was seen to be under way; run it again to go on".to_owned(),
        })
    }

    /// The command that goes on with this.
    fn again(&self, version: u64) -> String {
        let config = again::option("config", self.config.as_deref().map(Path::as_os_str), Some("SWITCHBACK_CONFIG"));
        let said = format!("{config}{}{}", self.admin.again(), self.registry.again());
        format!("switchback deploy --route {} --model {} --version {version} --wait{said}", self.route, self.model)
    }

    /// For people, before the end. Whether or not somebody reads it, the exit code says how it ended.
    pub(super) fn show(&self, text: &str) {
        if !self.json {
            let _ = print(text);
        }
    }

    /// A report that refused, as an end.
    pub(super) fn refused(&self, report: &Report) -> Failure {
        self.show(&report.table());
        Failure::refused(format!("{} is refused by its validation: {}", report.name, refusals(report)))
    }

    /// `sha256` is that of the candidate's artefact, where there is one.
    pub(super) fn order(&self, (candidate, sha256): (String, Option<String>), live: String, deadline: Instant) -> Order {
        let (route, steps, why) = (self.route.clone(), self.steps.clone(), self.why.clone());
        Order { route, candidate, sha256, live, steps, at_once: false, why, if_busy: self.if_busy, deadline }
    }

    /// What was asked.
    ///
    /// # Errors
    /// What makes no sense of it.
    fn deployment(&self) -> Result<Deployment<'_>, Failure> {
        if let (None, Some(option)) = (&self.file, self.described.said()) {
            return Err(Failure::usage(format!("{option} is said of a --file, and --version is there already")));
        }
        let time = units::long_duration(&self.timeout).filter(|time| !time.is_zero() && *time <= MONTH);
        let time =
            time.ok_or_else(|| Failure::usage(format!("--timeout {}: must be from 1ms to 30d, like 90s, 30m, 2h or 1d", self.timeout)))?;
        if let Some(steps) = &self.steps {
            rollout_steps(steps).map_err(|why| Failure::usage(format!("--{why}")))?;
        }
        let config: Option<Config> =
            self.config.as_deref().map(config::load).transpose().map_err(|error| Failure::config(&error.to_string()))?;
        let Validation { judged, mut criteria } = match &config {
            Some(config) => asked_by(config, flag::checked(&self.route)?)?,
            None => Validation::default(),
        };
        criteria.signature_change |= self.signature_change;
        let exam = Exam::new(criteria, self.judged.clone().or(judged), self.json)?;
        if self.why.chars().count() > TEXT_CHARS {
            return Err(Failure::usage(format!("--why: must be up to {TEXT_CHARS} characters")));
        }
        free_text::check("--why", &self.why)?;
        self.file.as_deref().map_or(Ok(()), free_text::check_file)?;
        let loads = config.as_ref().and_then(|config| config.routes.iter().find(|route| route.name == self.route)?.loading.as_ref());
        let loads = loads.map(|loading| loading.model.clone());
        let patient = Patient::new(self.admin.client(config.as_ref())?, flag::checked(&self.route)?);
        let registry = self.registry.named(config)?;
        let keys = trusted(&registry.trusted_keys)?;
        Ok(Deployment { args: self, registry, loads, keys, exam, patient, deadline: Instant::now() + time })
    }

    async fn deploy(&self, account: &mut Account) -> Result<String, Failure> {
        let deployment = self.deployment()?;
        let mut told = Told::new(self.json);
        if self.dry_run { deployment.would(&told, account).await } else { deployment.carry_out(&mut told, account).await }
    }
}

/// What to know of a version that takes other inputs than the live one, as was declared.
pub(super) fn takes_others(report: &Report) -> Option<String> {
    let declared = report.checks.iter().find(|check| check.name == "signature" && check.outcome == Outcome::Declared)?;
    Some(format!(
        "{}: {}; a query that it refuses (4xx) is no error of it, but while the rollout mirrors (`mirror` of [route.rollout])",
        report.name, declared.said
    ))
}

/// Why whoever asks begins no rollout, where that is so.
pub(super) fn may_not_begin(route: &Value, client: &AdminClient) -> Option<String> {
    let why = client.no_token().map_or_else(|| "this one may read alone (--token-file)".to_owned(), |why| format!("there is none: {why}"));
    (route["role"] == "viewer").then(|| format!("a deployment needs a token with the role operator, and {why}"))
}

impl Deployment<'_> {
    async fn carry_out(&self, told: &mut Told, account: &mut Account) -> Result<String, Failure> {
        let args = self.args;
        // A file is not pushed for a router that is not there, nor for a route of another model.
        let route = self.patient.first(self.deadline, told).await?;
        if let Some(why) = may_not_begin(&route, &self.patient.client) {
            return Err(Failure::refused(format!("{why}; nothing was done")));
        }
        let scene = self.scene(&route)?;
        // Nor into a folder that is not there: it may be one that is not mounted.
        let registry = Registry::open(&self.registry).map_err(failed)?;
        // What would be compared with a version that is not here is not pushed first.
        live_version(&registry, &args.model, &scene.live).await.map_err(|failure| failure.with_hint("nothing was done"))?;
        let version = self.version(&registry, (&route, &scene), told).await?;
        let (number, candidate) = (version.manifest.version, named(&version));
        account.version = Some(number);
        let Some(begun) = self.begun(&registry, &version, args.before.as_deref().unwrap_or(&scene.live), (told, account)).await? else {
            return Ok(format!("{candidate} is live already on {}\n", args.route));
        };
        account.rollout = Some(begun.id.clone());
        account.outcome = Some("running");
        account.note(&begun);
        deploy_alias::is_under_way(&registry, (&args.model, number), (&args.route, &begun.id), told).await;
        let again = args.again(number);
        if !args.wait {
            return Ok(format!("{candidate} is under way on {}: {}; to follow it: {again}\n", args.route, begun.state()));
        }
        let followed = Followed { candidate: &candidate, id: begun.id, until: args.until, deadline: self.deadline, again: &again };
        let ended = followed.to_its_end(&self.patient, told, account).await?;
        self.over(&registry, (&candidate, number), ended, (told, account)).await
    }

    /// Validates it and begins its rollout; `None` where it is live already. `before` was live when it was first wanted.
    async fn begun(
        &self,
        registry: &Registry,
        version: &Version,
        before: &str,
        (told, account): (&mut Told, &mut Account),
    ) -> Result<Option<RolloutSeen>, Failure> {
        let (args, candidate) = (self.args, named(version));
        loop {
            let route = self.patient.first(self.deadline, told).await?;
            let scene = Scene::of(&route);
            match scene.next(&candidate, args.if_busy) {
                Next::LiveAlready => {
                    self.is_this_one(&scene, version, told).await?;
                    self.live_already(registry, &scene, version, (told, account)).await;
                    return Ok(None);
                }
                // What has begun was looked at.
                Next::Attach(_) => {}
                Next::Start | Next::Refuse(_) | Next::Supersede(_) | Next::Queue(_) => self.has_what_the_route_asks_for(&route)?,
            }
            // Whoever waits for a turn does not take users back to an older version.
            if let Some(why) = scene.overtaken(&candidate, before).filter(|_| args.if_busy == IfBusy::Queue) {
                return Err(Failure::refused(why));
            }
            version.check_signature(&self.keys).map_err(failed)?;
            let live = live_version(registry, &args.model, &scene.live).await?;
            let report = self.exam.report(Some(registry), Examined::Version(version), live.as_ref(), (true, told)).await?;
            account.report = Some(report.clone());
            if !report.passed {
                return Err(args.refused(&report));
            }
            self.exam.is_clear(registry, version, &report).await?;
            if let Some(why) = takes_others(&report) {
                told.line("warning", &format!("warning: {why}"));
            }
            let what = (candidate.clone(), Some(version.manifest.sha256.clone()));
            match args.order(what, scene.live, self.deadline).begin(&self.patient, told).await? {
                Begun::UnderWay(begun) => return Ok(Some(*begun)),
                // It waited for another one, or somebody was quick.
                Begun::LiveChanged => told.line("live", "another version is live now: it is compared with that one"),
                Begun::LiveAlready => {}
            }
        }
    }

    /// What is seen of the route, before anything is done.
    ///
    /// # Errors
    /// It is another model's.
    pub(super) fn scene(&self, route: &Value) -> Result<Scene, Failure> {
        let DeployArgs { route: name, model, .. } = self.args;
        match other_model(route, model.as_str(), self.loads.as_deref()) {
            None => Ok(Scene::of(route)),
            Some(why) => Err(Failure::refused(format!("{model} is not the model of the route {name}: {why}; nothing was done"))),
        }
    }

    /// That there are judged queries, where the router lets no candidate on without.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn has_what_the_route_asks_for(&self, route: &Value) -> Result<(), Failure> {
        let is_asked = route.get("needs_judged_queries") == Some(&Value::Bool(true));
        if !is_asked || self.exam.judged.is_some() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "the route {} has candidates tried on judged queries (route.validation.judged of the router's config), and none are named here: say --config FILE \
             (the router's config) or --judged FILE; nothing was done",
            self.args.route
        )))
    }

    /// The version, pushed if it has to be.
    async fn version(&self, registry: &Registry, (route, scene): (&Value, &Scene), told: &Told) -> Result<Version, Failure> {
        let model = &self.args.model;
        let Some(file) = &self.args.file else {
            let number = self.args.version.ok_or_else(|| Failure::usage("--version or --file is needed"))?;
            return deploy_push::named(registry, model, number).await;
        };
        let (sha256, _) = digest(file).map_err(unusable)?;
        let signs = self.args.described.key()?.is_some();
        let wanted = Wanted { keys: &self.keys, signs, in_use: &scene.in_use() };
        let seen = registry.numbers_there(model).await.map_err(failed)?.last().copied().unwrap_or(0);
        if let Some(version) = deploy_push::already(registry, model, &sha256, (&wanted, told)).await? {
            told.line("known", &format!("{} is this file already", named(&version)));
            return Ok(version);
        }
        self.has_what_the_route_asks_for(route)?;
        let trusted = deploy_push::would_be_vouched_for(&self.args.described, &self.keys);
        trusted.map_err(|failure| failure.about(&format!("{} is not pushed", file.display())))?;
        let version = deploy_push::push(registry, model, file, (&self.args.described, &self.args.why), self.args.json).await?;
        let own = named(&version);
        told.line("pushed", &format!("{own} is pushed, SHA-256 {}", version.manifest.sha256));
        let version = deploy_push::first_of(registry, version, seen, &wanted).await?;
        if named(&version) != own {
            told.line("known", &format!("{} is this file too, pushed at the same time: it is deployed, and {own} is not", named(&version)));
        }
        Ok(version)
    }

    /// That what is live by the version's name is this artefact, as far as the record and the router's registry know.
    ///
    /// # Errors
    /// It is another one; or the router is away.
    pub(super) async fn is_this_one(&self, scene: &Scene, version: &Version, told: &Told) -> Result<(), Failure> {
        match scene.of_another_artefact(&named(version), Some(&version.manifest.sha256)) {
            Some(why) => Err(Failure::refused(why)),
            None => self.patient.check(Some(version), self.deadline, told).await.map(drop),
        }
    }

    /// Nothing has to be done, but for what a deployment that was killed had left.
    async fn live_already(&self, registry: &Registry, scene: &Scene, version: &Version, (told, account): (&Told, &mut Account)) {
        account.outcome = Some("live");
        if let Some(last) = scene.rollout.as_ref().filter(|_| scene.is_done(&named(version))) {
            account.rollout = Some(last.id.clone());
            let of = (&self.args.model, version.manifest.version);
            deploy_alias::is_done(registry, of, (&self.args.route, &last.id), told).await;
        }
    }

    /// How it ended, for people and as an exit code.
    async fn over(
        &self,
        registry: &Registry,
        (candidate, number): (&str, u64),
        ended: Ended,
        (told, account): (&Told, &mut Account),
    ) -> Result<String, Failure> {
        let (args, now_ms) = (self.args, now_unix_ms());
        account.outcome = Some(ended.label());
        let why = account.why.clone().unwrap_or_default();
        match ended {
            Ended::Live => {
                if args.until == Until::Done {
                    let rollout = account.rollout.clone().unwrap_or_default();
                    deploy_alias::is_done(registry, (&args.model, number), (&args.route, &rollout), told).await;
                }
                let phases = account.phases_in_words(now_ms);
                Ok(format!("{candidate} is live on {}{}\n", args.route, if phases.is_empty() { phases } else { format!(": {phases}") }))
            }
            Ended::RolledBack | Ended::Aborted => {
                args.show(&evidence::lines(&account.evidence, now_ms));
                let word = if ended == Ended::RolledBack { "was rolled back" } else { "was aborted" };
                Err(Failure::refused(format!("{candidate} {word} on {}: {why}", args.route)))
            }
        }
    }
}
