//! The allow-list: module, what may be done, and the names. Each name was put here after its constructor and its `__setstate__` were read:
//! none of them imports, opens, evaluates, or calls what it is given.
//!
//! Not here, and never to be: what unpickles (`pickle.loads`, `numpy.load`, `pandas.read_pickle`, `torch.load`,
//! `torch.storage._load_from_bytes`, `joblib.load`), what finds by name (`getattr`, `importlib`, `pkgutil`, `operator`), what makes
//! functions (`functools`, `types`, cloudpickle), what opens files (`numpy.memmap`).

mod boosting;
mod numpy;
mod python;
mod sklearn;
mod torch;

use super::allowed::Use;

/// A module, what may be done with the names, and the names, with spaces between.
type Entry = (&'static str, Use, &'static str);

/// The whole list.
pub(super) fn all() -> impl Iterator<Item = Entry> {
    [python::LIST, numpy::LIST, sklearn::LIST, boosting::LIST, torch::LIST].into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_functions_that_a_pickle_names_is_left_out() {
        let is_there =
            |module: &str, name: &str| all().any(|(of, _, names)| of == module && names.split_ascii_whitespace().any(|one| one == name));
        for (module, name) in [
            ("sklearn.cross_decomposition._pls", "PLSRegression"),
            ("sklearn.neighbors._nearest_centroid", "NearestCentroid"),
            ("sklearn.preprocessing._polynomial", "SplineTransformer"),
        ] {
            assert!(is_there(module, name), "{module}.{name}");
        }
        for (module, name) in [
            ("sklearn.neighbors._regression", "KNeighborsRegressor"),
            ("sklearn.neighbors._kd_tree", "newObj"),
            ("sklearn.gaussian_process._gpr", "GaussianProcessRegressor"),
            ("scipy.interpolate._bsplines", "BSpline"),
            ("sklearn.model_selection._search", "GridSearchCV"),
        ] {
            assert!(!is_there(module, name), "{module}.{name}");
        }
    }
}
