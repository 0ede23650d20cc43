//! Drives the fuzz targets: each parser of outside bytes is fed its corpus, and then mutations of it, by the thousand or by the million.
//!
//! A target is a function from bytes to a [`Trace`]: it panics when a promise is broken, and otherwise says which way the bytes took. Bytes
//! that took a new way join the pool that is mutated next, so that the inputs find their way deeper without instrumented code; the
//! stable toolchain is enough. (Coverage-guided engines need a build of their own of everything, wasmtime too; bolero, which would be a front
//! for both, pins a version of indexmap that wit-component cannot use.)
//!
//! `SWITCHBACK_FUZZ=1000000` says how many executions, `SWITCHBACK_FUZZ_SEED=...` repeats a run (a short one is the same every time), `SWITCHBACK_FUZZ_KEEP=1` writes inputs that
//! took a new way into the corpus, and `SWITCHBACK_FUZZ_FIGURES=FILE` gets a line of figures for each target.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::missing_panics_doc)]

mod mutate;
mod shrink;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use mutate::{Dice, mutated};

/// Executions of each target in a run of all tests.
const QUICK: u64 = 4_000;
/// Found inputs that are mutated, beside the seeds; a new one replaces an old one after that.
const POOL: usize = 4_096;
/// Inputs that a corpus is given at most, and how large they may be: it is kept with the source.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 2_048;

/// Which way some bytes took: whatever tells two ways apart.
pub type Trace = u64;

/// A trace of anything that can be hashed.
pub fn trace(way: impl Hash) -> Trace {
    let mut hasher = DefaultHasher::new();
    way.hash(&mut hasher);
    hasher.finish()
}

/// A message without what is quoted in it and without numbers: what tells two kinds of errors apart, and not two errors of a kind.
pub fn kind_of(message: &str) -> String {
    let mut quote = None;
    let plain = message.chars().filter(|letter| match (quote, letter) {
        (None, '"' | '`') => {
            quote = Some(*letter);
            false
        }
        (Some(open), letter) => {
            if open == *letter {
                quote = None;
            }
            false
        }
        (None, letter) => !letter.is_ascii_digit(),
    });
    plain.take(80).collect()
}

/// A parser under test.
pub struct Target<'a> {
    /// Names the corpus: `tests/fuzz/corpus/NAME`.
    pub name: &'a str,
    /// Words that the parser knows, which mutations put in.
    pub words: &'a [&'a [u8]],
    /// Inputs that are in no file: made by the target itself.
    pub seeds: Vec<Vec<u8>>,
    /// No input is longer.
    pub most_bytes: usize,
}

impl Target<'_> {
    /// Feeds the corpus and then the mutations; fails with the smallest input found that breaks a promise.
    pub fn run(self, check: impl Fn(&[u8]) -> Trace) {
        let folder = corpus(self.name);
        let mut pool = kept(&folder);
        assert!(!pool.is_empty(), "{}: the corpus is gone", folder.display());
        let in_corpus = pool.len();
        pool.extend(self.seeds);
        let seeds = pool.len();
        let executions = number("SWITCHBACK_FUZZ").unwrap_or(QUICK);
        let seed = number("SWITCHBACK_FUZZ_SEED").unwrap_or(if is_long() { u64::from(std::process::id()) } else { 1 });
        let began = Instant::now();
        let mut ways = HashSet::new();
        for input in &pool {
            ways.insert(execute(self.name, seed, input, &check));
        }
        let mut dice = Dice::new(seed);
        let mut new = Vec::new();
        for _ in 0..executions {
            let input = mutated(&pool, seeds, self.words, self.most_bytes, &mut dice);
            if ways.insert(execute(self.name, seed, &input, &check)) {
                new.push(input.clone());
                join(&mut pool, seeds, input, &mut dice);
            }
        }
        let took = began.elapsed();
        let line = format!("{} {executions} {:.1} {} {in_corpus} {seed}\n", self.name, took.as_secs_f64(), ways.len());
        if let Some(path) = std::env::var_os("SWITCHBACK_FUZZ_FIGURES") {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the file for the figures opens");
            file.write_all(line.as_bytes()).expect("the figures are written");
        }
        if number("SWITCHBACK_FUZZ_KEEP").is_some() {
            keep(&folder, in_corpus, &new);
        }
    }
}

/// Whether this run is one of the long ones.
pub fn is_long() -> bool {
    number("SWITCHBACK_FUZZ").is_some_and(|executions| executions > QUICK)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} = {text:?} is no whole number")))
}

/// Where a target's corpus is.
pub fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// The files of a folder, in the order of their names; none when there is no such folder.
fn kept(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

fn execute(name: &str, seed: u64, input: &[u8], check: &impl Fn(&[u8]) -> Trace) -> Trace {
    match catch_unwind(AssertUnwindSafe(|| check(input))) {
        Ok(trace) => trace,
        Err(_) => {
            let smallest = shrink::smallest(input, |input| catch_unwind(AssertUnwindSafe(|| check(input))).is_err());
            panic!("{name}: a promise is broken (seed {seed}) by {} bytes: b\"{}\"", smallest.len(), smallest.escape_ascii());
        }
    }
}

/// Puts an input into the pool; the seeds stay.
fn join(pool: &mut Vec<Vec<u8>>, seeds: usize, input: Vec<u8>, dice: &mut Dice) {
    if pool.len() < seeds + POOL {
        pool.push(input);
    } else {
        let place = seeds + dice.below(POOL);
        pool[place] = input;
    }
}

/// Writes the smallest of the new ones into the corpus, as far as it has room.
fn keep(folder: &Path, in_corpus: usize, new: &[Vec<u8>]) {
    let mut new: Vec<&Vec<u8>> = new.iter().filter(|input| input.len() <= KEPT_BYTES).collect();
    new.sort_by_key(|input| input.len());
    for input in new.into_iter().take(KEPT.saturating_sub(in_corpus)) {
        let path = folder.join(format!("found-{:016x}", trace(input)));
        std::fs::write(&path, input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn errors_of_one_kind_are_the_same() {
        assert_eq!(
            kind_of("invalid type: string \"a b\", expected u64 at line 3"),
            kind_of("invalid type: string \"\", expected u64 at line 17")
        );
        assert_ne!(kind_of("missing field `a`"), kind_of("unknown field `a`"));
    }
}
