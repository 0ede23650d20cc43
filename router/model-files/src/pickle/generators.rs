//! Random number generators of numpy, by the names in their states. Two of them hold numbers that were made ahead, and their state says how many of those are spent:
//! a place where numpy's C code reads, wherever it is. Invariant: a state is let through only with a place among those numbers.

/// The keys under which a state has the place, and the last place there is; no keys where nothing is held.
type Ahead = (&'static [&'static str], i64);

/// At the last place all numbers are spent.
const GENERATORS: [(&str, Ahead); 5] = [
    ("MT19937", (&["state", "pos"], 624)),
    ("PCG64", (&[], 0)),
    ("PCG64DXSM", (&[], 0)),
    ("Philox", (&["buffer_pos"], 4)),
    ("SFC64", (&[], 0)),
];

/// What a generator holds; none where there is no such generator.
pub(super) fn ahead(name: &str) -> Option<Ahead> {
    GENERATORS.iter().find(|(known, _)| *known == name).map(|(_, ahead)| *ahead)
}
