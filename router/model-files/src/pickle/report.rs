//! What a walk has found so far, over all pickles of a file: the globals by number, and what is refused. Invariant: there are at most so
//! many of each as the limits say.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::allowed::{Allowed, Use};
use super::error::{Fault, MOST_REFUSALS, Place, Refusal, shown};
use super::python2::mapped;

/// A global that is named.
#[derive(Debug, Clone)]
struct Named {
    label: String,
    uses: Option<Use>,
}

/// Findings and counts.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Where the walk is.
    pub(super) place: Place,
    /// Who would do what is refused, where it is not the reader that the file is for.
    pub(super) reading: &'static str,
    /// The highest protocol.
    pub(super) protocol: u8,
    pub(super) opcodes: u64,
    pub(super) pickles: u32,
    pub(super) has_joblib_arrays: bool,
    /// Contents of values that were kept for pickles that are done, in bytes.
    pub(super) kept: u64,
    /// Storages of a torch archive that were asked for: their bytes by their keys.
    pub(super) storages: BTreeMap<String, u64>,
    refusals: Vec<Refusal>,
    refused: HashSet<String>,
    globals: Vec<Named>,
    numbers: HashMap<String, usize>,
}

impl Report {
    /// The number of a global as a pickle of this protocol names it; a refusal is noted if it is not allowed. Whether it is comes with it.
    pub(super) fn global(
        &mut self,
        allowed: &Allowed,
        limit: usize,
        protocol: u8,
        module: &str,
        name: &str,
    ) -> Result<(usize, bool), Fault> {
        let (module, name) = mapped(protocol, module, name);
        // Whatever a name holds, this parts it in one way.
        let key = format!("{module}\n{name}");
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                if self.globals.len() >= limit {
                    return Err(Fault::Limit { what: "different globals", limit: limit as u64 });
                }
                self.globals.push(Named { label: format!("{module}.{name}"), uses: allowed.find(module, name) });
                self.numbers.insert(key, self.globals.len() - 1);
                self.globals.len() - 1
            }
        };
        let is_allowed = self.uses(number).is_some();
        if !is_allowed {
            self.refuse_global(number);
        }
        Ok((number, is_allowed))
    }

    /// What may be done with a global.
    pub(super) fn uses(&self, global: usize) -> Option<Use> {
        self.globals.get(global).and_then(|named| named.uses)
    }

    /// Its name in full.
    pub(super) fn label(&self, global: usize) -> &str {
        self.globals.get(global).map_or("", |named| named.label.as_str())
    }

    /// All names, sorted.
    pub(super) fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.globals.iter().map(|named| named.label.clone()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// Notes something that is refused here.
    pub(super) fn refuse(&mut self, why: impl Into<String>) {
        self.note(why.into(), None);
    }

    fn refuse_global(&mut self, global: usize) {
        let label = self.label(global).to_owned();
        if self.refused.insert(label.clone()) {
            self.note(format!("names {}, which is not among the allowed globals", shown(&label)), Some(shown(&label)));
        }
    }

    fn note(&mut self, mut why: String, global: Option<String>) {
        why.push_str(self.reading);
        if self.refusals.len() < MOST_REFUSALS {
            self.refusals.push(Refusal { place: self.place.clone(), why, global });
        }
    }

    /// What was refused.
    pub(super) fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }
}
