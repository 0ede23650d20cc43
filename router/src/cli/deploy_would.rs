//! `switchback deploy --dry-run`: what would be done, and nothing of it.

use super::deploy::{Deployment, may_not_begin, takes_others};
use super::deploy_check::{Examined, live_version};
use super::deploy_decide::{Next, Scene};
use super::deploy_push::Wanted;
use super::deploy_told::{Account, Told};
use super::model_push::format;
use super::registry_args::failed;
use super::validating::{named, unusable};
use super::{Failure, deploy_push};
use crate::config::Place;
use crate::registry::{Registry, Version};
use crate::validation::digest;

impl Deployment<'_> {
    /// A line for each thing that would be done.
    ///
    /// # Errors
    /// It would be refused, or what has to be asked is away.
    pub(super) async fn would(&self, told: &Told, account: &mut Account) -> Result<String, Failure> {
        let args = self.args;
        let route = self.patient.first(self.deadline, told).await?;
        let scene = self.scene(&route)?;
        // Who only looks makes no folder.
        let is_there = !matches!(&self.registry.place, Place::Folder(folder) if !folder.is_dir());
        let registry = if is_there || args.file.is_none() { Some(Registry::open(&self.registry).map_err(failed)?) } else { None };
        let version = self.version_there(registry.as_ref(), &scene, told).await?;
        account.version = version.as_ref().map(|version| version.manifest.version);
        let candidate = version.as_ref().map_or_else(|| format!("the next version of {}", args.model), named);
        let examined = match (&version, &args.file) {
            (Some(version), _) => {
                account.would.push(format!("nothing is pushed: {candidate} is there already"));
                version.check_signature(&self.keys).map_err(failed)?;
                Examined::Version(version)
            }
            (None, Some(file)) => {
                account.would.push(format!("{} would be pushed as {candidate}", file.display()));
                deploy_push::would_be_vouched_for(&args.described, &self.keys)?;
                Examined::File(file, format(args.described.format, file)?)
            }
            (None, None) => return Err(Failure::usage("--version or --file is needed")),
        };
        let next = scene.next(&candidate, args.if_busy);
        if !matches!(next, Next::LiveAlready | Next::Attach(_)) {
            self.has_what_the_route_asks_for(&route)?;
        }
        if next != Next::LiveAlready {
            let live = match &registry {
                Some(registry) => live_version(registry, &args.model, &scene.live).await?,
                None => None,
            };
            let report = self.exam.report(registry.as_ref(), examined, live.as_ref(), (false, told)).await?;
            account.report = Some(report.clone());
            if !report.passed {
                return Err(args.refused(&report));
            }
            account.would.extend(takes_others(&report).map(|why| format!("warning: {why}")));
            if let (Some(registry), Some(version)) = (&registry, &version) {
                self.exam.is_clear(registry, version, &report).await?;
            }
            args.show(&report.table());
        }
        account.would.extend(may_not_begin(&route, &self.patient.client).map(|why| format!("warning: {why}")));
        account.would.extend(scene.strays.iter().map(|stray| format!("warning: {stray}")));
        let away = self.in_the_way(&next, &scene, (&candidate, version.as_ref()), told).await?;
        account.would.extend(away.map(|why| format!("warning: the router's registry cannot be asked now: {why}")));
        account.would.push(self.last_line(next, scene, &candidate)?);
        Ok(account.would.iter().map(|line| format!("{line}\n")).collect())
    }

    /// Asks the router what would keep the rollout from beginning. Why its registry cannot be asked, where it cannot.
    async fn in_the_way(
        &self,
        next: &Next,
        scene: &Scene,
        (candidate, version): (&str, Option<&Version>),
        told: &Told,
    ) -> Result<Option<String>, Failure> {
        match (next, version) {
            (Next::LiveAlready, Some(version)) => self.is_this_one(scene, version, told).await.map(|()| None),
            (Next::Attach(_), Some(version)) => {
                scene.of_another_artefact(candidate, Some(&version.manifest.sha256)).map_or(Ok(None), |why| Err(Failure::refused(why)))
            }
            (Next::Start | Next::Supersede(_), _) => self.patient.check(version, self.deadline, told).await.map_err(|failure| {
                let why = format!("no rollout of {candidate} would begin on {}: {}", self.args.route, failure.message());
                if failure.is_refused() { Failure::refused(why) } else { failure }
            }),
            // What is in the way now may be over by then.
            _ => Ok(None),
        }
    }

    fn last_line(&self, next: Next, scene: Scene, candidate: &str) -> Result<String, Failure> {
        let args = self.args;
        let steps = args.steps.as_ref().map_or_else(|| "the steps of the route's plan".to_owned(), |steps| steps.join(" %, ") + " %");
        let begins = format!("a rollout of {candidate} would begin on {}, with {steps}", args.route);
        Ok(match next {
            Next::LiveAlready => format!("nothing would be done: {candidate} is live already on {}", args.route),
            Next::Attach(rollout) => format!("its rollout is under way already: {}", rollout.summary),
            Next::Start => format!("{begins}; live is {}", scene.live),
            Next::Supersede(rollout) => format!("{} would be aborted, and {begins}", rollout.summary),
            Next::Queue(rollout) => format!("{} would be waited for; then {begins}", rollout.summary),
            Next::Refuse(rollout) => return Err(args.order((candidate.to_owned(), None), scene.live, self.deadline).busy(&rollout)),
        })
    }

    /// The version that is there already.
    async fn version_there(&self, registry: Option<&Registry>, scene: &Scene, told: &Told) -> Result<Option<Version>, Failure> {
        let (Some(registry), model) = (registry, &self.args.model) else { return Ok(None) };
        match (&self.args.file, self.args.version) {
            (Some(file), _) => {
                let signs = self.args.described.key()?.is_some();
                let (sha256, _) = digest(file).map_err(unusable)?;
                let wanted = Wanted { keys: &self.keys, signs, in_use: &scene.in_use() };
                deploy_push::already(registry, model, &sha256, (&wanted, told)).await
            }
            (None, Some(number)) => deploy_push::named(registry, model, number).await.map(Some),
            (None, None) => Ok(None),
        }
    }
}
