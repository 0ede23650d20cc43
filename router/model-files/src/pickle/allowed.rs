//! Which globals an artefact may name, and what it may do with each. Invariant: a name is compared whole and exactly; nothing is allowed by
//! its module, its beginning or its end.

use std::collections::{HashMap, HashSet};

use super::lists;

/// What an artefact may do with a global.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Name it.
    Name,
    /// Make an instance without arguments (`cls.__new__(cls)`), and give it a state that is a dict.
    New,
    /// The same, and the state may be anything plain: the class has a `__setstate__` of its own that was read.
    Own,
    /// `New`, and put items in the instance.
    Items,
    /// `Items`, and call it with plain data.
    Mapping,
    /// Call it with plain data, and append to what comes of it.
    Sequence,
    /// Call it with plain data: no globals, and no instances.
    Plain,
    /// Call it with what its rule says.
    Checked(Rule),
    /// Whatever it likes: somebody added it.
    Trusted,
}

/// Rules of single globals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// `numpy.dtype`.
    Dtype,
    /// `_reconstruct` of numpy: an empty array that gets its state by BUILD.
    Reconstruct,
    /// A number of numpy.
    Scalar,
    /// `_frombuffer` of numpy.
    FromBuffer,
    /// `numpy.ndarray`: only by way of the others.
    Ndarray,
    /// Constructors of random number generators; the state is one that numpy writes.
    Random,
    /// `_codecs.encode`, to bytes by latin-1 only.
    Encode,
    /// `copyreg._reconstructor`.
    Reconstructor,
    /// `collections.defaultdict`.
    DefaultDict,
    /// A constructor that would make a buffer of as many bytes as an int says.
    Buffer,
    /// Plain data, or an instance that is of datetime.
    Time,
    /// Plain data and arrays; the state is a dict.
    Arrays,
    /// Cython's `__pyx_unpickle_X`: only for its own class.
    Cython,
    /// `NumpyArrayWrapper` of joblib: the array comes after its BUILD.
    Wrapper,
    /// A transformer that holds functions: they have to be none.
    NoFunctions,
    /// A reader of texts: it calls no functions and opens no files.
    Texts,
    /// A tensor over a storage of the archive.
    Tensor,
    /// A parameter over a tensor.
    Parameter,
}

/// The globals that are allowed.
#[derive(Debug, Clone)]
pub struct Allowed {
    names: HashMap<(String, String), Use>,
    modules: HashSet<String>,
}

impl Default for Allowed {
    fn default() -> Allowed {
        let (mut names, mut modules) = (HashMap::new(), HashSet::new());
        for (module, uses, list) in lists::all() {
            modules.insert(module.to_owned());
            for name in list.split_ascii_whitespace() {
                names.insert((module.to_owned(), name.to_owned()), uses);
            }
        }
        Allowed { names, modules }
    }
}

impl Allowed {
    /// The list of this program, and `extra` to it: each `module.Name` in full, whose last dot parts the two. An extra global may be called
    /// with anything, be made, and be given any state: whoever adds it has read its code. One that is in the list already gets that freedom
    /// too. What has no dot is never found in a file.
    #[must_use]
    pub fn with(extra: &[&str]) -> Allowed {
        let mut allowed = Allowed::default();
        for name in extra {
            if let Some((module, name)) = name.rsplit_once('.') {
                allowed.names.insert((module.to_owned(), name.to_owned()), Use::Trusted);
            }
        }
        allowed
    }

    /// All names, `module.Name`, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().map(|(module, name)| format!("{module}.{name}")).collect();
        names.sort_unstable();
        names
    }

    /// Whether a global of this module is in the list of this program.
    pub(super) fn has_module(&self, module: &str) -> bool {
        self.modules.contains(module)
    }

    pub(super) fn find(&self, module: &str, name: &str) -> Option<Use> {
        self.names.get(&(module.to_owned(), name.to_owned())).copied()
    }
}
