//! The policies that the config names: whether each is there, and would be admitted, as `switchback policy check` says it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::cli::policy::read_plugin;
use crate::config::Config;
use crate::policy::{Limits, PolicyEngine, Terms, World, admission, shipped};

const PART: &str = "policies";
/// A trial takes `policies.trial_timeout` at most, and all are tried one after the other.
const LIMIT: Duration = Duration::from_secs(40);

pub(super) fn checks(config: &Shared) -> Vec<Check> {
    let config = config.clone();
    vec![Check::blocking(PART, "policies", move || look(&config)).within(LIMIT)]
}

fn look(config: &Config) -> Vec<Finding> {
    let engine = match PolicyEngine::new(Limits::of(&config.policies)) {
        Ok(engine) => engine,
        Err(error) => {
            let found = format!("the WebAssembly engine cannot start on this machine: {error:#}");
            return vec![Finding::failed(PART, "engine", found, "native decisions go on; look at the memory limits of this process")];
        }
    };
    let terms = Terms::of(config);
    named(config).iter().map(|(world, name)| one(config, &engine, &terms, *world, name)).collect()
}

/// Each once, with what it is to be.
fn named(config: &Config) -> BTreeSet<(bool, String)> {
    let mut named = BTreeSet::new();
    for route in &config.routes {
        let initial = |key: &str| route.initial.get(key).cloned();
        named.extend([(true, route.split_policy.clone()), (false, route.rollback_policy.clone())]);
        named.extend(
            initial("split_policy").map(|name| (true, name)).into_iter().chain(initial("rollback_policy").map(|name| (false, name))),
        );
    }
    named
}

fn one(config: &Config, engine: &PolicyEngine, terms: &Terms, is_split: bool, named: &str) -> Finding {
    let (name, digest) = named.split_once('@').map_or((named, None), |(name, digest)| (name, Some(digest)));
    let in_folder = config.policies.dir.join(format!("{name}.wasm"));
    let kept = digest.map(|digest| config.state.data_dir.join("policies-kept").join(format!("{digest}.wasm")));
    let file = kept.filter(|kept| kept.is_file()).or_else(|| in_folder.exists().then(|| in_folder.clone()));
    let read = match (&file, shipped(name)) {
        (Some(file), _) => read_plugin(file, terms).map_err(|why| format!("{}: {why}", file.display())),
        (None, Some(bytes)) => Ok(bytes.to_vec()),
        (None, None) => Err(format!("there is no {}, and no such policy is shipped", in_folder.display())),
    };
    let to_do = "mend or replace the file, `switchback policy check FILE` says when it is good; until then native decisions go on";
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(why) => return Finding::failed(PART, named, why, to_do),
    };
    if digest.is_some_and(|digest| digest != admission::digest(&bytes)) {
        return Finding::failed(PART, named, "no file here has this digest", "push it: `switchback policy push FILE.wasm`");
    }
    match admission::admit(engine, None, terms, &bytes) {
        Err(rejection) => Finding::failed(PART, named, format!("refused: {rejection}"), to_do),
        Ok(admitted) => {
            let wanted = if is_split { World::SplitPolicy } else { World::RollbackPolicy };
            if admitted.report.world != wanted {
                return Finding::failed(PART, named, "it is a policy of the other kind, and is never put in force", "name another");
            }
            let digest: String = admitted.report.digest.chars().take(12).collect();
            let source = file.map_or_else(|| "shipped".to_owned(), |file| file.display().to_string());
            Finding::ok(PART, named, format!("admitted: {digest}, {source}"))
        }
    }
}
