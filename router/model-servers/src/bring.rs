//! All endpoints of a pool: stage after stage, and back again when one of them fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt};
use reqwest::{Client, Url};

use crate::call::Caller;
use crate::fault::{Fault, Trouble};
use crate::folder::{Folder, blocking};
use crate::hooks::Hooked;
use crate::server::{Server, Way};
use crate::settings::{EndpointReport, Hooks, Progress, Protocol, Report, Settings, Stage, Wanted};
use crate::warm::{Rounds, warm};
use crate::{NAME_RULE, is_name};

/// What the functions here have in hand.
struct Run<'a> {
    client: &'a Client,
    settings: &'a Settings,
    wanted: &'a Wanted<'a>,
    folder: Option<(&'a Folder, &'a Path)>,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// Set by the first failure: the other endpoints finish their request, and begin nothing more.
    stop: &'a AtomicBool,
}

impl<'a> Run<'a> {
    fn caller(&self) -> Caller<'a> {
        Caller { client: self.client, stop: Some(self.stop) }
    }

    fn servers(&self, endpoints: &[String]) -> Vec<Server<'a>> {
        endpoints.iter().map(|endpoint| Server::new(self.caller(), self.settings, endpoint)).collect()
    }

    fn hooked(&self, hooks: &'a Hooks, endpoints: &[String]) -> Vec<Hooked<'a>> {
        let report =
            |endpoint: &String| EndpointReport { endpoint: endpoint.clone(), server: "hooks".to_owned(), ..EndpointReport::default() };
        let hooked = |endpoint| {
            let Run { settings, wanted, .. } = *self;
            Hooked { caller: self.caller(), settings, hooks, wanted, is_touched: false, is_dropped: false, report: report(endpoint) }
        };
        endpoints.iter().map(hooked).collect()
    }

    fn tell(&self, stage: Option<Stage>, done: usize, of: usize) {
        if let Some(stage) = stage {
            (self.progress)(Progress { stage, done, of });
        }
    }

    /// Every task, so many at the same time. None is dropped in the middle: what it asked for would go on on the server.
    async fn each(&self, stage: Option<Stage>, tasks: Vec<impl Future<Output = Result<(), Fault>>>) -> Result<(), Fault> {
        let (mut done, of) = (0, tasks.len());
        self.tell(stage, done, of);
        let mut first = None;
        let mut running = stream::iter(tasks).buffer_unordered(self.settings.parallel.max(1));
        while let Some(ended) = running.next().await {
            match ended {
                Ok(()) => {
                    done += 1;
                    self.tell(stage, done, of);
                }
                Err(fault) => {
                    self.stop.store(true, Ordering::Relaxed);
                    first.get_or_insert(fault);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Brings a version up on every endpoint of a pool that gets no traffic: placed, loaded, ready, warm, right, and the only one.
///
/// Endpoints are `http://host:port`. `folder` is the servers' model repository, where the caller fills it, and the file that the version is.
/// `progress` is told about every step. May be dropped at any point and called again.
///
/// # Errors
/// The first [`Fault`]. What was done is undone by then, as far as the fault says: each endpoint serves what it served, and the folder
/// holds what it held. An endpoint that served the wanted version *beside others* is taken for one where an earlier try was ended in the
/// middle, and goes back to the others.
pub async fn bring_up(
    client: &Client,
    settings: &Settings,
    endpoints: &[String],
    wanted: &Wanted<'_>,
    folder: Option<(&Folder, &Path)>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, Fault> {
    let endpoints = check(settings, endpoints, wanted, folder.map(|(folder, _)| folder))?;
    let own = AtomicBool::new(false);
    let run = Run { client, settings, wanted, folder, progress, stop: wanted.stop.unwrap_or(&own) };
    match &settings.protocol {
        Protocol::V2 => {
            let (mut servers, mut is_begun) = (run.servers(&endpoints), false);
            match forward(&run, &mut servers, &mut is_begun).await {
                Ok(()) => Ok(Report { endpoints: servers.into_iter().map(|server| server.report).collect() }),
                Err(fault) => Err(Fault { undone: back(&run, &mut servers, is_begun).await, ..fault }),
            }
        }
        Protocol::Hooks(hooks) => {
            let mut hooked = run.hooked(hooks, &endpoints);
            match hook(&run, &mut hooked).await {
                Ok(()) => Ok(Report { endpoints: hooked.into_iter().map(|one| one.report).collect() }),
                Err(fault) => Err(Fault { undone: unhook(&run, &mut hooked).await, ..fault }),
            }
        }
    }
}

/// Takes a version away from every endpoint of a pool that gets no traffic, and out of the folder. Where it is not, nothing is done.
///
/// Servers that load by name drop it only when it is their last version, or when the folder is ours.
///
/// # Errors
/// The first [`Fault`]; what was taken away until then stays away. Call again to go on.
pub async fn retire(
    client: &Client,
    settings: &Settings,
    endpoints: &[String],
    wanted: &Wanted<'_>,
    folder: Option<&Folder>,
) -> Result<(), Fault> {
    let endpoints = check(settings, endpoints, wanted, folder)?;
    let own = AtomicBool::new(false);
    let run = Run { client, settings, wanted, folder: None, progress: &|_| {}, stop: wanted.stop.unwrap_or(&own) };
    match &settings.protocol {
        Protocol::V2 => {
            let mut servers = run.servers(&endpoints);
            look(&run, &mut servers).await?;
            if let Some(folder) = folder {
                let version = wanted.version;
                let removed = blocking(folder, move |folder| folder.remove(version)).await;
                removed.map_err(|trouble| trouble.at(&folder.shown()))?;
            }
            let is_ours = folder.is_some();
            let with_it = servers.iter_mut().filter(|server| server.before.contains(&wanted.version));
            let tasks = with_it.map(|server| async move {
                let rest = server.before.iter().copied().filter(|version| *version != wanted.version).collect();
                restore(server, &rest, wanted.version, is_ours).await.map_err(|trouble| trouble.at(&server.report.endpoint))
            });
            run.each(None, tasks.collect()).await
        }
        Protocol::Hooks(hooks) => {
            let mut hooked = run.hooked(hooks, &endpoints);
            let tasks =
                hooked.iter_mut().map(|one| async { one.unload().await.map_err(|trouble| trouble.at(&one.report.endpoint)) }).collect();
            run.each(None, tasks).await
        }
    }
}

/// What makes no sense; the endpoints, each once and without a slash at its end.
fn check(settings: &Settings, endpoints: &[String], wanted: &Wanted<'_>, folder: Option<&Folder>) -> Result<Vec<String>, Fault> {
    if !is_name(&settings.model) {
        return Err(Trouble::refused(format!("the model's name {:?}: must be {NAME_RULE}", settings.model)).at(""));
    }
    if wanted.version == 0 {
        return Err(Trouble::refused("version 0: versions are numbers of 1 or more").at(""));
    }
    if let Some(folder) = folder.filter(|folder| folder.model() != settings.model) {
        return Err(Trouble::refused(format!("the folder is of another model than `{}`", settings.model)).at(&folder.shown()));
    }
    let mut checked: Vec<String> = Vec::new();
    for endpoint in endpoints {
        let plain = endpoint.trim_end_matches('/');
        let is_good = Url::parse(plain).is_ok_and(|url| {
            let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            matches!(url.scheme(), "http" | "https") && is_bare && url.username().is_empty() && url.password().is_none()
        });
        if !is_good {
            return Err(Trouble::refused("must be like http://host:port").at(&crate::fault::quoted(plain)));
        }
        if !checked.iter().any(|known| known == plain) {
            checked.push(plain.to_owned());
        }
    }
    // Names of pools may come to no address for a while.
    if checked.is_empty() { Err(Trouble::away("the pool has no endpoint").at("")) } else { Ok(checked) }
}

async fn look(run: &Run<'_>, servers: &mut [Server<'_>]) -> Result<(), Fault> {
    let tasks =
        servers.iter_mut().map(|server| async { server.look().await.map_err(|trouble| trouble.at(&server.report.endpoint)) }).collect();
    run.each(None, tasks).await
}

/// All stages. `is_begun` is set before anything is changed, when it is known what every server serves.
async fn forward(run: &Run<'_>, servers: &mut [Server<'_>], is_begun: &mut bool) -> Result<(), Fault> {
    let (wanted, version) = (run.wanted, run.wanted.version);
    look(run, servers).await?;
    *is_begun = true;
    let mut is_new = false;
    if let Some((folder, artefact)) = run.folder {
        run.tell(Some(Stage::Placing), 0, servers.len());
        let artefact = artefact.to_owned();
        let put = blocking(folder, move |folder| folder.bring_back().and_then(|()| folder.put(version, &artefact))).await;
        is_new = put.map_err(|trouble| trouble.at(&folder.shown()))?;
        run.tell(Some(Stage::Placing), servers.len(), servers.len());
    }
    let load = |server| load(server, version, is_new);
    run.each(Some(Stage::Loading), servers.iter_mut().map(load).collect()).await?;
    if let Some(golden) = wanted.golden {
        let tasks = servers.iter_mut().map(|server| async move {
            warm(server, wanted, golden, Rounds::UntilWarm).await.map_err(|trouble| trouble.at(&server.report.endpoint))
        });
        run.each(Some(Stage::Warming), tasks.collect()).await?;
    }
    if let Some((folder, _)) = run.folder {
        blocking(folder, move |folder| folder.set_aside(version)).await.map_err(|trouble| trouble.at(&folder.shown()))?;
    }
    let is_ours = run.folder.is_some();
    let tasks = servers
        .iter_mut()
        .map(|server| async move { commit(server, wanted, is_ours).await.map_err(|trouble| trouble.at(&server.report.endpoint)) });
    run.each(Some(Stage::Committing), tasks.collect()).await?;
    if let Some((folder, _)) = run.folder {
        // The version is there and serves; what could not be cleared away is cleared away by the next.
        let _ = blocking(folder, Folder::settle).await;
    }
    Ok(())
}

async fn load(server: &mut Server<'_>, version: u64, is_new: bool) -> Result<(), Fault> {
    server.load_beside(version, is_new).await.map_err(|trouble| trouble.at(&server.report.endpoint))
}

/// Drops the versions beside the wanted one, and sees that it still answers rightly.
async fn commit(server: &mut Server<'_>, wanted: &Wanted<'_>, is_ours: bool) -> Result<(), Trouble> {
    let mut others = server.ready_versions().await?;
    let only = BTreeSet::from([wanted.version]);
    if others.remove(&wanted.version) && others.is_empty() {
        return Ok(());
    }
    if server.way != Way::ByName {
        // One that may not understand is not waited for as long.
        let limits = server.settings;
        let within = if server.way == Way::Unsure { limits.request_timeout.min(limits.load_timeout) } else { limits.load_timeout };
        let is_unsure = server.way == Way::Unsure;
        match server.serve(&only, &others, within).await {
            Err(trouble) if is_unsure && !trouble.is_away() => server.way = Way::ByName,
            done => done?,
        }
    }
    if server.way == Way::ByName {
        if !is_ours {
            server.report.beside = others.into_iter().collect();
            return Ok(());
        }
        server.serve(&only, &others, server.settings.load_timeout).await?;
    }
    match wanted.golden {
        Some(golden) => warm(server, wanted, golden, Rounds::One).await,
        None => Ok(()),
    }
}

/// Undoes what was done; `None` when that was nothing.
async fn back(run: &Run<'_>, servers: &mut [Server<'_>], is_begun: bool) -> Option<Result<(), String>> {
    let version = run.wanted.version;
    let mut sets = former(servers, run.wanted);
    let is_changed = |server: &Server<'_>, set: &BTreeSet<u64>| server.is_touched || server.before != *set;
    let is_same = run.folder.is_none() && servers.iter().zip(&sets).all(|(server, set)| !is_changed(server, set));
    if !is_begun || is_same {
        return None;
    }
    let mut faults = Vec::new();
    if let Some((folder, _)) = run.folder {
        let served: Vec<BTreeSet<u64>> = servers.iter().map(|server| server.before.clone()).collect();
        match blocking(folder, move |folder| take_back(folder, version, &served, sets)).await {
            Ok((possible, lost)) => {
                sets = possible;
                faults.extend(lost.map(|lost| format!("{}: {lost}", folder.shown())));
            }
            // What the servers would take from there is not known.
            Err(trouble) => return Some(Err(format!("{}: {}", folder.shown(), trouble.why))),
        }
    }
    let is_ours = run.folder.is_some();
    let changed = servers.iter_mut().zip(sets).filter(|(server, set)| is_changed(server, set));
    let tasks = changed.map(|(server, set)| async move {
        server.caller.stop = None;
        restore(server, &set, version, is_ours).await.map_err(|trouble| trouble.at(&server.report.endpoint))
    });
    faults.extend(faults_of(run, tasks.collect()).await);
    Some(if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) })
}

/// Every task, and what went wrong.
async fn faults_of(run: &Run<'_>, tasks: Vec<impl Future<Output = Result<(), Fault>>>) -> Vec<String> {
    let ended: Vec<Result<(), Fault>> = stream::iter(tasks).buffer_unordered(run.settings.parallel.max(1)).collect().await;
    ended.into_iter().filter_map(Result::err).map(|fault| fault.to_string()).collect()
}

/// The folder as it was. What each server can go back to: what an earlier try has cleared away for good is not there any more, and then the
/// server keeps what it `served`.
fn take_back(
    folder: &Folder,
    version: u64,
    served: &[BTreeSet<u64>],
    mut sets: Vec<BTreeSet<u64>>,
) -> std::io::Result<(Vec<BTreeSet<u64>>, Option<String>)> {
    folder.bring_back()?;
    let there = folder.versions()?;
    let mut lost = None;
    for (set, served) in sets.iter_mut().zip(served) {
        let gone: Vec<u64> = set.difference(served).filter(|version| !there.contains(version)).copied().collect();
        if !gone.is_empty() {
            lost = Some(format!("version {} is not there any more: the endpoints keep what they served", crate::listed(&gone)));
            *set = served.clone();
        }
    }
    if !sets.iter().any(|set| set.contains(&version)) {
        folder.remove(version)?;
    }
    Ok((sets, lost))
}

/// What each endpoint served before the first try.
///
/// The wanted version beside others is what an earlier try left. Alone it may be what an earlier try committed, or what has always been
/// there: then the caller's word counts, and without one what the other endpoints had. Nothing at all may be what a try left that ended
/// between an unload and a load: then too the caller's word counts. Where the caller says that the pool had the wanted version, who has it keeps it.
fn former(servers: &[Server<'_>], wanted: &Wanted<'_>) -> Vec<BTreeSet<u64>> {
    let without = |set: &BTreeSet<u64>| -> BTreeSet<u64> { set.iter().copied().filter(|version| *version != wanted.version).collect() };
    let told: BTreeSet<u64> = wanted.previous.into_iter().filter(|previous| *previous != wanted.version).collect();
    let elsewhere: BTreeSet<u64> = servers.iter().flat_map(|server| without(&server.before)).collect();
    let of = |server: &Server<'_>| {
        let others = without(&server.before);
        if wanted.previous == Some(wanted.version) && server.before.contains(&wanted.version) {
            server.before.clone()
        } else if !others.is_empty() {
            others
        } else if !told.is_empty() {
            told.clone()
        } else if server.before.is_empty() || elsewhere.is_empty() {
            server.before.clone()
        } else {
            elsewhere.clone()
        }
    };
    servers.iter().map(of).collect()
}

/// Makes one server serve `set` again, without `version` unless that is in it.
async fn restore(server: &mut Server<'_>, set: &BTreeSet<u64>, version: u64, is_ours: bool) -> Result<(), Trouble> {
    let gone: BTreeSet<u64> = [version].into_iter().filter(|version| !set.contains(version)).collect();
    let within = server.settings.load_timeout;
    if server.way == Way::Unsure {
        let done = server.serve(set, &gone, within).await;
        if server.way == Way::Unsure {
            return done;
        }
    }
    if server.way != Way::ByName || is_ours || set.is_empty() {
        return server.serve(set, &gone, within).await;
    }
    let mut ready = server.ready_versions().await?;
    if !set.is_subset(&ready) {
        server.serve(set, &BTreeSet::new(), within).await?;
        ready = server.ready_versions().await?;
    }
    if gone.is_disjoint(&ready) {
        return Ok(());
    }
    Err(Trouble::refused(format!(
        "the server takes every version that is in its folder: version {version} stays beside {} until it is removed there",
        crate::listed(set)
    )))
}

/// Loads on every endpoint, and then has each let go of the version before.
async fn hook(run: &Run<'_>, hooked: &mut [Hooked<'_>]) -> Result<(), Fault> {
    let loads = hooked.iter_mut().map(|one| async { one.load().await.map_err(|trouble| trouble.at(&one.report.endpoint)) }).collect();
    run.each(Some(Stage::Loading), loads).await?;
    let commits = hooked.iter_mut().map(|one| async { one.commit().await.map_err(|trouble| trouble.at(&one.report.endpoint)) }).collect();
    run.each(Some(Stage::Committing), commits).await
}

/// Undoes what was done where anything was.
async fn unhook(run: &Run<'_>, hooked: &mut [Hooked<'_>]) -> Option<Result<(), String>> {
    let touched = hooked.iter_mut().filter(|one| one.is_changed());
    let tasks: Vec<_> = touched
        .map(|one| async {
            one.caller.stop = None;
            one.undo().await.map_err(|trouble| trouble.at(&one.report.endpoint))
        })
        .collect();
    let is_touched = !tasks.is_empty();
    let faults = faults_of(run, tasks).await;
    is_touched.then(|| if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) })
}
