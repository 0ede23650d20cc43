//! Retention: which versions may go, and their going. A manifest stays, so that a number never means something else.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path as FilePath;
use std::time::{Duration, UNIX_EPOCH};

use super::error::RegistryError;
use super::manifest::FORM;
use super::names::Name;
use super::open::{Registry, is_part};
use super::versions::{Removed, Version};
use crate::config::Place;

/// An artefact without a manifest is of a push that is under way, or of one that ended; after so long it is the latter.
const ORPHAN_AFTER: Duration = Duration::from_secs(2 * 24 * 3_600);
/// A part in a folder to which nothing was written for so long is of a push that ended.
const PART_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Folders of a model are so deep: `versions/7/reports`.
const DEPTH: u32 = 4;

/// What is kept whatever its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub newest: usize,
    /// Those that are younger.
    pub younger: Duration,
    /// Those that are in use, as routers say: live, previous, or in a rollout.
    pub in_use: BTreeSet<u64>,
}

/// What would be removed of a model, and what would stay.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be removed, the oldest first.
    pub remove: Vec<Version>,
    /// To be kept, each with why.
    pub keep: Vec<(u64, &'static str)>,
    /// Artefacts that no version has, and parts of objects in a folder: their pushes ended before they were done. Paths and bytes.
    pub orphans: Vec<(String, u64)>,
}

impl Plan {
    /// What removing all of it gives back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let versions = self.remove.iter().map(|version| version.manifest.bytes);
        versions.chain(self.orphans.iter().map(|(_, bytes)| *bytes)).sum()
    }
}

/// Why a version stays; `None`: it may go.
fn reason(
    version: &Version,
    from_newest: usize,
    (aliased, before): (&BTreeSet<u64>, &BTreeSet<u64>),
    keep: &Keep,
    now_ms: u64,
) -> Option<&'static str> {
    let number = version.manifest.version;
    let age = Duration::from_millis(now_ms.saturating_sub(version.manifest.pushed_ms));
    match () {
        () if keep.in_use.contains(&number) => Some("in use"),
        () if aliased.contains(&number) => Some("has an alias"),
        () if before.contains(&number) => Some("had an alias before"),
        () if from_newest < keep.newest => Some("one of the newest"),
        () if age < keep.younger => Some("young"),
        () => None,
    }
}

/// A part of an object, in a folder.
struct Part {
    /// From the registry's folder on.
    path: String,
    bytes: u64,
    /// When somebody wrote to it, in milliseconds since 1970.
    modified_ms: u64,
}

/// Adds the parts below a folder; one that is not there has none.
fn parts_below(root: &FilePath, below: &str, depth: u32, found: &mut Vec<Part>) -> std::io::Result<()> {
    let entries = match fs::read_dir(root.join(below)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{below}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            parts_below(root, &path, depth - 1, found)?;
        }
        if !kind.is_file() || !is_part(&path) {
            continue;
        }
        // Its push may be done meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        let modified = meta.modified().ok().and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified.map_or(u64::MAX, |modified| u64::try_from(modified.as_millis()).unwrap_or(u64::MAX));
        found.push(Part { path, bytes: meta.len(), modified_ms });
    }
    Ok(())
}

impl Registry {
    /// What retention would do with a model.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn plan_removal(&self, model: &Name, keep: &Keep, now_ms: u64) -> Result<Plan, RegistryError> {
        // Artefacts first: one that gets its manifest meanwhile is then seen with it.
        let artefacts = self.below(&self.path(model, "artefacts")).await?;
        let versions = self.versions(model).await?;
        let moves = self.last_moves(model).await?;
        let aliased: BTreeSet<u64> = moves.iter().filter_map(|last| last.version).collect();
        let before: BTreeSet<u64> = moves.iter().filter_map(|last| last.before).collect();
        let mut plan = Plan { remove: Vec::new(), keep: Vec::new(), orphans: Vec::new() };
        let there: Vec<&Version> = versions.iter().filter(|version| version.removed.is_none()).collect();
        for (place, version) in there.iter().enumerate() {
            match reason(version, there.len() - 1 - place, (&aliased, &before), keep, now_ms) {
                Some(why) => plan.keep.push((version.manifest.version, why)),
                None => plan.remove.push((*version).clone()),
            }
        }
        let pushes: BTreeSet<&str> = there.iter().map(|version| version.manifest.push.as_str()).collect();
        let is_before = |modified_ms: u64, after: Duration| Duration::from_millis(now_ms.saturating_sub(modified_ms)) > after;
        for object in artefacts {
            let modified = u64::try_from(object.last_modified.timestamp_millis());
            let is_old = modified.is_ok_and(|modified| is_before(modified, ORPHAN_AFTER));
            let is_orphan = object.location.filename().is_none_or(|push| !pushes.contains(push));
            if is_old && is_orphan {
                plan.orphans.push((object.location.to_string(), object.size));
            }
        }
        let parts = self.parts(model)?.into_iter().filter(|part| is_before(part.modified_ms, PART_AFTER));
        plan.orphans.extend(parts.map(|part| (part.path, part.bytes)));
        Ok(plan)
    }

    /// The parts of objects in a model's folder, which no list has. A bucket keeps them to itself.
    fn parts(&self, model: &Name) -> Result<Vec<Part>, RegistryError> {
        let Place::Folder(root) = &self.config.place else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let listed = parts_below(root, &format!("models/{model}"), DEPTH, &mut found);
        let away = |error: std::io::Error| RegistryError::Away { place: self.place(), why: error.to_string() };
        listed.map_err(away)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Removes a version's artefact. First everybody is told, so that nobody finds a version whose artefact is missing. Whether it was: an alias that was moved
    /// to it meanwhile keeps it.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn remove(&self, version: &Version, who: &str, now_ms: u64) -> Result<bool, RegistryError> {
        let manifest = &version.manifest;
        let removed = Removed { form: FORM, who: who.to_owned(), removed_ms: now_ms };
        let path = self.path(&manifest.model, &format!("versions/{}/removed.json", manifest.version));
        self.create(&path, serde_json::to_vec_pretty(&removed).unwrap_or_default()).await?;
        // Whoever moves an alias looks for this after the move: of the two, one sees the other.
        let aliases = self.last_moves(&manifest.model).await?;
        if aliases.iter().any(|last| [last.version, last.before].contains(&Some(manifest.version))) {
            return self.delete(&path).await.map(|()| false);
        }
        self.delete(&self.path(&manifest.model, &format!("artefacts/{}", manifest.push))).await.map(|()| true)
    }

    /// Removes the parts of an object in a folder whose push ended with an error: there is nothing to go on with. A bucket keeps its own.
    pub(super) fn remove_parts(&self, object: &object_store::path::Path) {
        let Place::Folder(root) = &self.config.place else { return };
        let path = root.join(object.as_ref());
        let (Some(folder), Some(name)) = (path.parent(), object.filename()) else { return };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if is_part(&file) && file.rsplit_once('#').is_some_and(|(whole, _)| whole == name) {
                // Who cannot remove it here finds it by `model gc`.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes an artefact that no version has, or a part.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn remove_orphan(&self, path: &str) -> Result<(), RegistryError> {
        if let Place::Folder(root) = &self.config.place
            && is_part(path)
        {
            return match fs::remove_file(root.join(path)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(RegistryError::Away { place: self.place(), why: format!("{path} cannot be removed: {error}") })
                }
                _ => Ok(()),
            };
        }
        self.delete(&object_store::path::Path::from(path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::manifest::tests::manifest;

    #[test]
    fn what_is_in_use_aliased_new_or_young_stays() {
        let version = |number: u64, pushed_ms| {
            let manifest = crate::registry::Manifest { version: number, pushed_ms, ..manifest() };
            Version { manifest, removed: None, signature: None, signed: Vec::new() }
        };
        let keep = Keep { newest: 2, younger: Duration::from_secs(100), in_use: BTreeSet::from([3]) };
        let why = |number, from_newest, pushed_ms| {
            reason(&version(number, pushed_ms), from_newest, (&BTreeSet::from([4]), &BTreeSet::from([7])), &keep, 1_000_000)
        };
        assert_eq!(why(3, 9, 0), Some("in use"));
        assert_eq!((why(4, 9, 0), why(7, 9, 0)), (Some("has an alias"), Some("had an alias before")));
        assert_eq!((why(5, 1, 0), why(5, 2, 0)), (Some("one of the newest"), None));
        assert_eq!((why(6, 9, 900_001), why(6, 9, 900_000)), (Some("young"), None));
    }
}
