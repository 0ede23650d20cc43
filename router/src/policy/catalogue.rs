//! Which plugins there are, and which one a name means. Pure: no file is touched here.
//!
//! A name means the newest admitted file of that name in the folder, else the shipped plugin. A file that is refused changes
//! nothing: the name goes on meaning what it meant. `name@digest` means exactly those bytes, wherever they came from.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::admission::{Admitted, World};
use super::host_v0::SplitProgram;
use super::host_v0_rollback::RollbackProgram;
use super::rejection::Rejection;
use super::status::{PluginState, PluginStatus, Refusal};
use crate::flags::PolicyRef;

/// Refusals that are remembered, over all names.
const MOST_REFUSALS: usize = 64;
/// Refusals of one name that are shown.
const SHOWN_REFUSALS: usize = 8;

/// All plugins that the router knows.
#[derive(Default, Clone)]
pub(super) struct Catalogue {
    /// Grows with each change.
    revision: u64,
    /// Name to digest.
    shipped: BTreeMap<String, String>,
    /// Shipped plugins that this router does not admit, and why.
    shipped_refused: BTreeMap<String, String>,
    /// The folder, by name.
    files: BTreeMap<String, FileState>,
    /// By digest.
    admitted: HashMap<String, Arc<Admitted>>,
    /// Kept plugins that were refused when they were needed again, by digest.
    broken_kept: HashMap<String, String>,
    /// Newest first.
    refusals: VecDeque<Refusal>,
}

#[derive(Clone)]
struct FileState {
    newest: Newest,
    /// The digest of the last admitted file of this name.
    last_good: Option<String>,
    /// Where that came from.
    good_source: String,
    path: String,
}

#[derive(Clone)]
enum Newest {
    Waiting,
    Admitted,
    Refused { digest: Option<String>, reason: String },
}

/// What a route gets for what its flags name.
pub(super) struct Choice<P = SplitProgram> {
    /// What can be put in force; `None` leaves the one that is.
    pub(super) found: Option<Found<P>>,
    /// Why that is not what the flags name.
    pub(super) trouble: Option<Trouble>,
}

/// A split policy that can be put in force, or a rollback policy.
pub(super) struct Found<P = SplitProgram> {
    pub(super) digest: String,
    pub(super) source: String,
    pub(super) program: P,
}

/// Why what the flags name is not in force: it is still being admitted, or it was refused and somebody has to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is being looked at.
    Admitting,
    /// In words.
    Refused(String),
}

/// What a policy of one world is as a program.
pub(super) trait Program: Clone {
    const WORLD: World;

    /// `None` where the plugin is of the other world.
    fn of(admitted: &Admitted) -> Option<&Self>;
}

impl Program for SplitProgram {
    const WORLD: World = World::SplitPolicy;

    fn of(admitted: &Admitted) -> Option<&SplitProgram> {
        admitted.split.as_ref()
    }
}

impl Program for RollbackProgram {
    const WORLD: World = World::RollbackPolicy;

    fn of(admitted: &Admitted) -> Option<&RollbackProgram> {
        admitted.rollback.as_ref()
    }
}

impl<P> Choice<P> {
    fn nothing(trouble: Trouble) -> Choice<P> {
        Choice { found: None, trouble: Some(trouble) }
    }
}

impl Catalogue {
    /// The same number: nothing that is asked of it has another answer than before.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A plugin of the binary itself.
    pub(super) fn ship(&mut self, name: &str, admitted: Admitted) {
        self.revision += 1;
        let digest = admitted.report.digest.clone();
        self.admitted.insert(digest.clone(), Arc::new(admitted));
        self.shipped.insert(name.to_owned(), digest);
    }

    /// A plugin of the binary itself that is not admitted: the limits of `[policies]` are too tight for it.
    pub(super) fn ship_refused(&mut self, name: &str, reason: String) {
        self.revision += 1;
        self.shipped_refused.insert(name.to_owned(), reason);
    }

    /// A file is new or has changed, and will be looked at.
    pub(super) fn file_waits(&mut self, name: &str, path: String) {
        self.revision += 1;
        let file = self.files.entry(name.to_owned()).or_insert(FileState {
            newest: Newest::Waiting,
            last_good: None,
            good_source: String::new(),
            path: String::new(),
        });
        file.newest = Newest::Waiting;
        file.path = path;
    }

    /// Whether a file of this name is still to be judged.
    pub(super) fn is_waiting(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|file| matches!(file.newest, Newest::Waiting))
    }

    /// A file is gone: its name means the shipped plugin again, if there is one.
    pub(super) fn file_gone(&mut self, name: &str) {
        self.revision += 1;
        self.files.remove(name);
    }

    /// A file holds this plugin, which is known already or has just been admitted. False when it is not known after all: it was
    /// forgotten while the file was read.
    pub(super) fn file_admitted(&mut self, name: &str, digest: &str, admitted: Option<Admitted>) -> bool {
        self.revision += 1;
        if let Some(admitted) = admitted {
            // Its kept copy was written again where that was broken.
            self.broken_kept.remove(digest);
            self.admitted.insert(digest.to_owned(), Arc::new(admitted));
        }
        if !self.admitted.contains_key(digest) {
            return false;
        }
        if let Some(file) = self.files.get_mut(name) {
            file.newest = Newest::Admitted;
            file.last_good = Some(digest.to_owned());
            file.good_source = file.path.clone();
        }
        true
    }

    /// A file is refused.
    pub(super) fn file_refused(&mut self, refusal: Refusal) {
        if let Some(file) = self.files.get_mut(&refusal.name) {
            file.newest = Newest::Refused { digest: refusal.digest.clone(), reason: refusal.reason.clone() };
        }
        self.remember(refusal);
    }

    /// Whether a name has a refused file and nothing that it meant before: the router started with it.
    pub(super) fn has_lost(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|file| matches!(file.newest, Newest::Refused { .. }) && file.last_good.is_none())
    }

    /// A kept plugin was admitted again. A name that was lost (see [`Catalogue::has_lost`]) means it, if `is_last_of` is that name.
    pub(super) fn kept_admitted(&mut self, digest: &str, admitted: Admitted, is_last_of: Option<&str>) {
        self.revision += 1;
        self.broken_kept.remove(digest);
        self.admitted.insert(digest.to_owned(), Arc::new(admitted));
        let Some(name) = is_last_of.filter(|name| self.has_lost(name)) else { return };
        if let Some(file) = self.files.get_mut(name) {
            file.last_good = Some(digest.to_owned());
            file.good_source = "kept".to_owned();
        }
    }

    /// A kept plugin was refused: the limits are tighter now, or the file is broken.
    pub(super) fn kept_refused(&mut self, digest: &str, refusal: Refusal) {
        if self.broken_kept.len() >= MOST_REFUSALS {
            self.broken_kept.clear();
        }
        self.broken_kept.insert(digest.to_owned(), refusal.reason.clone());
        self.remember(refusal);
    }

    /// Remembers a refusal for the status.
    pub(super) fn remember(&mut self, refusal: Refusal) {
        self.revision += 1;
        self.refusals.push_front(refusal);
        self.refusals.truncate(MOST_REFUSALS);
    }

    /// The digests of all admitted plugins.
    pub(super) fn known(&self) -> HashSet<String> {
        self.admitted.keys().cloned().collect()
    }

    /// Whether this digest could only come from the kept ones: not admitted, and not refused from there before.
    pub(super) fn lacks(&self, digest: &str) -> bool {
        !self.admitted.contains_key(digest) && !self.broken_kept.contains_key(digest)
    }

    /// The last refusals of plugins with this name, or of this digest, newest first.
    pub(super) fn refusals(&self, wanted: &PolicyRef) -> Vec<Refusal> {
        let is_meant = |refusal: &&Refusal| refusal.name == wanted.name || (wanted.digest.is_some() && refusal.digest == wanted.digest);
        self.refusals.iter().filter(is_meant).take(SHOWN_REFUSALS).cloned().collect()
    }

    /// Every plugin with a name: the folder's, then the shipped ones.
    pub(super) fn plugins(&self) -> Vec<PluginStatus> {
        let report = |digest: Option<&String>| digest.and_then(|digest| self.admitted.get(digest)).map(|admitted| admitted.report.clone());
        let file = |(name, file): (&String, &FileState)| {
            let (state, why) = match &file.newest {
                Newest::Waiting => (PluginState::Admitting, String::new()),
                Newest::Admitted => (PluginState::Admitted, String::new()),
                Newest::Refused { reason, .. } => (PluginState::Refused, reason.clone()),
            };
            let digest = file.last_good.as_ref();
            PluginStatus { name: name.clone(), source: file.path.clone(), state, why, ..PluginStatus::of(digest, report(digest)) }
        };
        let shipped = |(name, digest): (&String, &String)| {
            let is_hidden = self.files.get(name).is_some_and(|file| file.last_good.is_some());
            let state = if is_hidden { PluginState::Hidden } else { PluginState::Admitted };
            let why = if is_hidden { "a file in the folder has its name".to_owned() } else { String::new() };
            PluginStatus {
                name: name.clone(),
                source: "shipped".to_owned(),
                state,
                why,
                ..PluginStatus::of(Some(digest), report(Some(digest)))
            }
        };
        let refused = |(name, reason): (&String, &String)| PluginStatus {
            name: name.clone(),
            source: "shipped".to_owned(),
            state: PluginState::Refused,
            why: reason.clone(),
            ..PluginStatus::of(None, None)
        };
        let of_the_binary = self.shipped.iter().map(shipped).chain(self.shipped_refused.iter().map(refused));
        self.files.iter().map(file).chain(of_the_binary).collect()
    }

    /// Drops admitted plugins that no name means any more, but for these: those in force, and those that flags name.
    pub(super) fn forget_unused(&mut self, in_use: &HashSet<String>) {
        let last_good = self.files.values().filter_map(|file| file.last_good.as_ref());
        let used: HashSet<&String> = self.shipped.values().chain(last_good).chain(in_use).collect();
        let before = self.admitted.len();
        self.admitted.retain(|digest, _| used.contains(digest));
        self.revision += u64::from(self.admitted.len() != before);
    }

    /// What a route gets.
    pub(super) fn choose<P: Program>(&self, wanted: &PolicyRef) -> Choice<P> {
        match &wanted.digest {
            Some(digest) => self.choose_digest(wanted, digest),
            None => self.choose_name(&wanted.name),
        }
    }

    fn choose_digest<P: Program>(&self, wanted: &PolicyRef, digest: &str) -> Choice<P> {
        if self.admitted.contains_key(digest) {
            return self.found(digest, self.source_of(digest), None);
        }
        let refused_file = self.files.values().find_map(|file| match &file.newest {
            Newest::Refused { digest: Some(refused), reason } if refused == digest => Some(reason),
            _ => None,
        });
        if let Some(reason) = refused_file.or_else(|| self.broken_kept.get(digest)) {
            return Choice::nothing(Trouble::Refused(reason.clone()));
        }
        if self.files.values().any(|file| matches!(file.newest, Newest::Waiting)) {
            return Choice::nothing(Trouble::Admitting);
        }
        let is_there = self.files.contains_key(&wanted.name) || self.shipped.contains_key(&wanted.name);
        let hint = if is_there { "; there is one of this name with another digest" } else { "" };
        Choice::nothing(Trouble::Refused(format!("no plugin with this digest is in the folder, shipped or kept{hint}")))
    }

    fn choose_name<P: Program>(&self, name: &str) -> Choice<P> {
        let shipped = self.shipped.get(name);
        let Some(file) = self.files.get(name) else {
            return match shipped {
                Some(digest) => self.found(digest, "shipped".to_owned(), None),
                None => Choice::nothing(Trouble::Refused(self.no_such_name(name))),
            };
        };
        let trouble = match &file.newest {
            Newest::Admitted => None,
            Newest::Waiting => Some(Trouble::Admitting),
            Newest::Refused { reason, .. } => Some(Trouble::Refused(reason.clone())),
        };
        match (&file.last_good, shipped) {
            (Some(digest), _) => self.found(digest, file.good_source.clone(), trouble),
            // A first file that is still being looked at must not bring the shipped plugin into force for a moment.
            (None, _) if trouble == Some(Trouble::Admitting) => Choice { found: None, trouble },
            (None, Some(digest)) => self.found(digest, "shipped".to_owned(), trouble),
            (None, None) => Choice { found: None, trouble },
        }
    }

    fn no_such_name(&self, name: &str) -> String {
        if let Some(reason) = self.shipped_refused.get(name) {
            return format!("the limits in [policies] are too tight for the shipped {name}: {reason}");
        }
        let names: Vec<&str> = self.shipped.keys().chain(self.files.keys()).map(String::as_str).collect();
        format!(
            "no plugin {name:?}: there is no such file among the first 64 in the folder, and the shipped ones are other; there are: {}",
            names.join(", ")
        )
    }

    fn found<P: Program>(&self, digest: &str, source: String, trouble: Option<Trouble>) -> Choice<P> {
        let Some(admitted) = self.admitted.get(digest) else {
            return Choice::nothing(trouble.unwrap_or(Trouble::Admitting));
        };
        match P::of(admitted) {
            Some(program) => Choice { found: Some(Found { digest: digest.to_owned(), source, program: program.clone() }), trouble },
            None => Choice::nothing(trouble.unwrap_or_else(|| Trouble::Refused(Rejection::WrongKind { wanted: P::WORLD }.to_string()))),
        }
    }

    fn source_of(&self, digest: &str) -> String {
        let file = self.files.values().find(|file| file.last_good.as_deref() == Some(digest));
        match file {
            Some(file) => file.good_source.clone(),
            None if self.shipped.values().any(|shipped| shipped == digest) => "shipped".to_owned(),
            None => "kept".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_seen_and_nothing_else() {
        let mut catalogue = Catalogue::default();
        let mut last = catalogue.revision();
        let mut is_changed = |catalogue: &Catalogue| std::mem::replace(&mut last, catalogue.revision()) != catalogue.revision();
        catalogue.forget_unused(&HashSet::new());
        let wanted = PolicyRef { name: "mine".to_owned(), digest: None };
        assert!(matches!(catalogue.choose::<SplitProgram>(&wanted).trouble, Some(Trouble::Refused(_))));
        assert!(!is_changed(&catalogue));
        catalogue.file_waits("mine", "mine.wasm".to_owned());
        assert!(is_changed(&catalogue));
        let (name, source, reason) = ("mine".to_owned(), "mine.wasm".to_owned(), "no plugin".to_owned());
        catalogue.file_refused(Refusal { name, source, digest: None, reason, unix_ms: 1 });
        assert!(is_changed(&catalogue));
        assert_eq!(catalogue.refusals(&wanted).len(), 1);
        assert!(!is_changed(&catalogue));
        catalogue.file_gone("mine");
        assert!(is_changed(&catalogue));
        catalogue.ship_refused("split-weighted", "too tight".to_owned());
        assert!(is_changed(&catalogue));
    }
}
