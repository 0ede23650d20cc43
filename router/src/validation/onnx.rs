//! An ONNX model is run: does it load, does it take and give what the live model does, are its scores scores, and is it as good and as quick?
//!
//! Only in the process that looks ([`super::child`]): ONNX Runtime reads whatever the file says.

use std::collections::BTreeMap;
use tokio::time::Instant;

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::judged::{Judged, Query};
use super::measures::{DEPTH, PATIENCE, jaccard, mean, moved, ndcg, overlap, ranking, reciprocal_rank};
use super::paired::{Difference, FEWEST, difference, quantile};
use super::report::{Check, Outcome};
use crate::config::{Criteria, Proof};
use crate::onnx::{Library, Model, Source};
use crate::registry::Tensor;

/// Queries that are kept with their scores, for whoever loads the model.
pub(super) const GOLDEN: usize = 20;
/// Queries that are made up where nobody gave any.
const MADE_UP: usize = 16;
/// Documents of each.
const MADE_UP_DOCUMENTS: usize = 20;
/// Queries whose documents are scored one by one, and in other orders.
const TURNED: usize = 20;
/// Scores of the same document may be so far apart, in parts of the spread of its query's scores, when others stand elsewhere: sums of 32-bit numbers
/// depend on their order.
const TOLERANCE: f32 = 1e-4;
/// And by what such numbers cannot tell apart: two steps of their last bit.
const LAST_BITS: f32 = 2.0 * f32::EPSILON;
/// Documents that are scored at once, beyond what queries have: some models look at how many there are.
const TOGETHER: usize = 128;
/// Documents of a call that is timed.
const TIMED_DOCUMENTS: usize = 100;
/// Calls that are timed, in turns with the live model's.
const TIMED_CALLS: usize = 50;
/// No longer than this, in seconds.
const TIMED_FOR_S: f64 = 5.0;

/// A model that was loaded, and what it said of every query.
pub(super) struct Scored {
    pub(super) model: Model,
    scores: Vec<Vec<f32>>,
}

/// Loads a model, which is to be looked at, or is the live one.
pub(super) fn load(library: &Library, name: &str, bytes: Vec<u8>) -> Result<Model, String> {
    Model::open(library, &Source::new(name, 1, bytes), 1)
}

/// What goes in and out, as manifests have it.
pub(super) fn tensors(model: &Model) -> (Vec<Tensor>, Vec<Tensor>) {
    let signature = &model.signature;
    let features = i64::try_from(signature.features).unwrap_or(i64::MAX);
    let tensor = |name: &str, shape| vec![Tensor { name: name.to_owned(), element: "float32".to_owned(), shape }];
    let output = if signature.output_is_column { vec![-1, 1] } else { vec![-1] };
    (tensor(&signature.input, vec![-1, features]), tensor(&signature.output, output))
}

/// Whether it takes and gives what the live model does.
pub(super) fn signature(model: &Model, live: Option<&Model>, criteria: &Criteria) -> Check {
    let shown = |model: &Model| {
        let (inputs, outputs) = tensors(model);
        let both: Vec<String> = inputs.iter().chain(&outputs).map(ToString::to_string).collect();
        both.join(" -> ")
    };
    let Some(live) = live else { return Check::new("signature", Outcome::Passed, shown(model)) };
    let (new, old) = (&model.signature, &live.signature);
    let mut differences = Vec::new();
    if tensors(model) != tensors(live) {
        differences.push(format!("{}; the live model has {}", shown(model), shown(live)));
    }
    differences.extend(super::look::other_names(&new.feature_names, &old.feature_names));
    match (differences.is_empty(), criteria.signature_change) {
        (true, _) => Check::new("signature", Outcome::Passed, format!("{}, as the live model's", shown(model))),
        (false, true) => Check::new("signature", Outcome::Declared, differences.join("; ")),
        (false, false) => Check::new("signature", Outcome::Refused, differences.join("; ")),
    }
}

/// The queries that a model is tried on: the judged ones where they fit, or made-up ones.
pub(super) fn queries(judged: Option<&Judged>, features: usize) -> Result<Judged, String> {
    match judged {
        Some(judged) if judged.features == features => Ok(judged.clone()),
        Some(judged) => Err(format!("the model takes {features} features, and the judged queries have {}", judged.features)),
        None => Ok(made_up(features)),
    }
}

/// Features from 0 to 1, one query of zeros, and one of a single document: the same ones for the same number of features.
fn made_up(features: usize) -> Judged {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(features as u64);
    let query = |(index, documents): (usize, usize)| {
        let value = |_| if index == 0 { 0.0 } else { random.random_range(0.0..1.0) };
        Query {
            name: format!("made up {index}"),
            ids: (0..documents).map(|document| document.to_string()).collect(),
            rows: (0..documents * features).map(value).collect(),
            labels: None,
            scores: None,
        }
    };
    let documents = std::iter::once(1).chain(std::iter::repeat(MADE_UP_DOCUMENTS));
    Judged { features, queries: (0..MADE_UP).zip(documents).map(query).collect() }
}

impl Scored {
    /// Scores every query. The check says whether all scores are finite.
    pub(super) fn new(model: Model, queries: &Judged) -> Result<Scored, Check> {
        let scores: Result<Vec<Vec<f32>>, Check> = queries
            .queries
            .iter()
            .map(|query| {
                let failed = |why| Check::new("scores", Outcome::Refused, format!("query {:?}: {why}", short(&query.name)));
                model.score(&query.rows).map_err(failed)
            })
            .collect();
        Ok(Scored { scores: scores?, model })
    }

    /// That they are finite, and tell documents apart.
    pub(super) fn finite(&self) -> Check {
        tells_apart(&self.scores)
    }

    /// The same documents get the same scores, to the last bit.
    pub(super) fn deterministic(&self, queries: &Judged) -> Check {
        for (query, first) in queries.queries.iter().zip(&self.scores) {
            let again = self.model.score(&query.rows);
            let same = |again: &Vec<f32>| again.iter().zip(first).all(|(one, other)| one.to_bits() == other.to_bits());
            if !again.as_ref().is_ok_and(same) {
                let said = match again {
                    Ok(again) => format!("query {:?}: asked twice, it gives {first:.4?} and {again:.4?}", short(&query.name)),
                    Err(why) => format!("query {:?}: asked again, {why}", short(&query.name)),
                };
                return Check::new("deterministic", Outcome::Refused, said);
            }
        }
        Check::new("deterministic", Outcome::Passed, format!("{} queries twice, the same to the last bit", queries.queries.len()))
    }

    /// A document's score depends on it alone: not on its place, and not on the others.
    pub(super) fn independent(&self, queries: &Judged) -> Check {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut worst = 0.0_f32;
        for (query, first) in queries.queries.iter().zip(&self.scores).take(TURNED) {
            let mut order: Vec<usize> = (0..query.ids.len()).collect();
            order.shuffle(&mut random);
            for (how, order) in [("in another order", order), ("backwards", (0..query.ids.len()).rev().collect())] {
                match self.furthest(query, first, &order, order.len(), queries.features) {
                    Ok(apart) => worst = worst.max(apart),
                    Err(said) => return dependent(query, how, &said),
                }
            }
            let alone: Vec<usize> = (0..query.ids.len()).collect();
            match self.furthest(query, first, &alone, 1, queries.features) {
                Ok(apart) => worst = worst.max(apart),
                Err(said) => return dependent(query, "one by one", &said),
            }
        }
        let (together, before) = self.together(queries);
        let order: Vec<usize> = (0..before.len()).collect();
        match self.furthest(&together, &before, &order, order.len(), queries.features) {
            Ok(apart) => worst = worst.max(apart),
            Err(said) => return dependent(&together, "together", &said),
        }
        let said = format!("the same scores in any order, one by one, and {TOGETHER} at once (within {worst:.1e} of their spread)");
        Check::new("independent", Outcome::Passed, said).with([("furthest", worst.into())])
    }

    /// As many documents as make a long list, of as many queries as that takes, and what they got in theirs.
    fn together(&self, queries: &Judged) -> (Query, Vec<f32>) {
        let pairs = queries.queries.iter().zip(&self.scores);
        let rows = pairs.flat_map(|(query, scores)| query.rows.chunks(queries.features.max(1)).zip(scores));
        let rows: Vec<(&[f32], f32)> = rows.map(|(row, score)| (row, *score)).collect();
        let long: Vec<(&[f32], f32)> = rows.iter().copied().cycle().take(TOGETHER).collect();
        let query = Query {
            name: format!("{TOGETHER} documents"),
            ids: (0..long.len()).map(|place| place.to_string()).collect(),
            rows: long.iter().flat_map(|(row, _)| row.iter().copied()).collect(),
            labels: None,
            scores: None,
        };
        (query, long.iter().map(|(_, score)| *score).collect())
    }

    /// Scores the documents in this order, so many at once; how far the scores are from the first ones, at most.
    fn furthest(&self, query: &Query, first: &[f32], order: &[usize], at_once: usize, features: usize) -> Result<f32, String> {
        let (mut worst, spread) = (0.0_f32, spread(first));
        for part in order.chunks(at_once.max(1)) {
            let row = |place: &usize| query.rows.get(place * features..(place + 1) * features).unwrap_or_default();
            let rows: Vec<f32> = part.iter().flat_map(row).copied().collect();
            let scores = self.model.score(&rows)?;
            for (place, score) in part.iter().zip(scores) {
                let before = first.get(*place).copied().unwrap_or(f32::NAN);
                let apart = (score - before).abs();
                if apart > TOLERANCE * spread + LAST_BITS * before.abs() || apart.is_nan() {
                    let id = query.ids.get(*place).map_or("", String::as_str);
                    return Err(format!("document {:?} gets {score}, and {before} before", short(id)));
                }
                worst = worst.max(apart / spread.max(f32::MIN_POSITIVE));
            }
        }
        Ok(worst)
    }

    /// What somebody expected of it, and wrote beside the documents.
    pub(super) fn expected(&self, queries: &Judged) -> Option<Check> {
        let mut compared = 0;
        for (query, scores) in queries.queries.iter().zip(&self.scores) {
            for ((id, score), wanted) in query.ids.iter().zip(scores).zip(query.scores.as_ref()?) {
                compared += 1;
                if (score - wanted).abs() > TOLERANCE * wanted.abs().max(1.0) {
                    let (query, id) = (short(&query.name), short(id));
                    let said = format!("query {query:?}, document {id:?}: {score}, and {wanted} was expected");
                    return Some(Check::new("expected", Outcome::Refused, said));
                }
            }
        }
        Some(Check::new("expected", Outcome::Passed, format!("{compared} documents get the scores that were expected")))
    }

    /// The first queries with these scores, for whoever loads the model.
    pub(super) fn golden(&self, queries: &Judged) -> Judged {
        let with_scores = |(query, scores): (&Query, &Vec<f32>)| Query { scores: Some(scores.clone()), ..query.clone() };
        Judged { features: queries.features, queries: queries.queries.iter().zip(&self.scores).take(GOLDEN).map(with_scores).collect() }
    }
}

/// Whether scores tell documents of a query apart. Queries of one document have nothing to say of that.
fn tells_apart(scores: &[Vec<f32>]) -> Check {
    let all: Vec<f32> = scores.iter().flatten().copied().collect();
    let (low, high) = all.iter().fold((f32::MAX, f32::MIN), |(low, high), score| (low.min(*score), high.max(*score)));
    let said = format!("{} documents of {} queries, from {low} to {high}", all.len(), scores.len());
    let numbers = [("documents", super::measures::count(all.len())), ("low", low.into()), ("high", high.into())];
    let several: Vec<&Vec<f32>> = scores.iter().filter(|scores| scores.len() > 1).collect();
    match several.iter().any(|scores| scores.iter().any(|score| scores.first() != Some(score))) {
        true => Check::new("scores", Outcome::Passed, said).with(numbers),
        false => {
            let each = format!("in each of the {} queries of two documents or more", several.len());
            let said = format!("all documents of a query get the same score, {each}: there is no order in that ({said})");
            Check::new("scores", Outcome::Refused, said).with(numbers)
        }
    }
}

/// From the lowest score to the highest.
fn spread(scores: &[f32]) -> f32 {
    let (low, high) = scores.iter().fold((f32::MAX, f32::MIN), |(low, high), score| (low.min(*score), high.max(*score)));
    (high - low).max(0.0)
}

fn dependent(query: &Query, how: &str, said: &str) -> Check {
    let said = format!("query {:?}, its documents {how}: {said}", short(&query.name));
    Check::new("independent", Outcome::Refused, said)
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Of a ranking, given the documents' labels.
type Measure<'a> = &'a dyn Fn(&[f64], &[usize]) -> Option<f64>;

/// NDCG@10 and MRR against the live model's.
pub(super) fn quality(model: &Scored, live: &Scored, queries: &Judged, criteria: &Criteria) -> [Check; 2] {
    let of = |measure: Measure<'_>| {
        let judged = queries.queries.iter().zip(model.scores.iter().zip(&live.scores));
        let pairs = judged.filter_map(|(query, (new, old))| {
            let labels = query.labels.as_ref().filter(|labels| labels.iter().any(|label| labels.first() != Some(label)))?;
            Some((measure(labels, &ranking(new))?, measure(labels, &ranking(old))?))
        });
        let (new, old): (Vec<f64>, Vec<f64>) = pairs.unzip();
        difference(&new, &old)
    };
    [
        compared("ndcg@10", of(&|labels, ranking| ndcg(labels, ranking, DEPTH)), criteria),
        compared("mrr", of(&|labels, ranking| reciprocal_rank(labels, ranking)), criteria),
    ]
}

fn compared(name: &str, found: Difference, criteria: &Criteria) -> Check {
    let Difference { queries, mean, live, by, low, high } = found;
    let numbers = [("value", mean), ("live", live), ("difference", by), ("low", low), ("high", high)];
    let margin = criteria.margin;
    let shown = format!("{mean:.4}, the live model {live:.4}: {by:+.4}, 90 % interval {low:+.4} to {high:+.4} of {queries} queries");
    let check = |outcome, more: &str| Check::new(name, outcome, format!("{shown}{more}")).with(numbers);
    if queries < FEWEST {
        let said = format!("{queries} queries are judged so that it can be told; {FEWEST} are the fewest");
        return unknown(name, &said, criteria);
    }
    match criteria.proof {
        Proof::Worse if high < -margin => check(Outcome::Refused, &format!("; worse by more than {margin}")),
        Proof::NoWorse if low < -margin => check(Outcome::Refused, &format!("; not shown to be no worse than by {margin}")),
        Proof::Worse | Proof::NoWorse => check(Outcome::Passed, ""),
    }
}

/// Nothing is known of quality: who wants proof is not content with that.
pub(super) fn unknown(name: &str, why: &str, criteria: &Criteria) -> Check {
    match criteria.proof {
        Proof::Worse => Check::new(name, Outcome::Skipped, why),
        Proof::NoWorse => Check::new(name, Outcome::Refused, format!("{why}: so it is not shown to be no worse")),
    }
}

/// How far its rankings are from the live model's, on real queries.
pub(super) fn movement(model: &Scored, live: &Scored, are_real: bool, criteria: &Criteria) -> Check {
    let several = model.scores.iter().zip(&live.scores).filter(|(scores, _)| scores.len() > 1);
    let rankings: Vec<(Vec<usize>, Vec<usize>)> = several.map(|(new, old)| (ranking(new), ranking(old))).collect();
    let of = |measure: &dyn Fn(&[usize], &[usize]) -> f64| mean(&rankings.iter().map(|(new, old)| measure(new, old)).collect::<Vec<_>>());
    let top1 = of(&|new, old| f64::from(u8::from(new.first() != old.first())));
    let (together, first_ten) = (of(&|new, old| overlap(new, old, PATIENCE)), of(&|new, old| jaccard(new, old, DEPTH)));
    let moved = of(&|new, old| moved(new, old));
    let numbers = [("top1_change", top1), ("overlap", together), ("jaccard", first_ten), ("moved", moved)];
    let said = format!(
        "another first document for {:.0} % of {} queries, overlap {together:.2}, Jaccard@10 {first_ten:.2}, {:.0} % of documents moved",
        top1 * 100.0,
        rankings.len(),
        moved * 100.0
    );
    if !are_real {
        let said = format!("{said}; of made-up queries, which say nothing of real ones");
        return Check::new("movement", Outcome::Skipped, said).with(numbers);
    }
    let mut beyond = Vec::new();
    if top1 > criteria.top1_change {
        beyond.push(format!("another first document for {:.0} % at most", criteria.top1_change * 100.0));
    }
    for (name, is, least) in [("overlap", together, criteria.overlap), ("Jaccard@10", first_ten, criteria.jaccard)] {
        if is < least {
            beyond.push(format!("{name} of {least} at least"));
        }
    }
    match beyond.is_empty() {
        true => Check::new("movement", Outcome::Passed, said),
        false => Check::new("movement", Outcome::Refused, format!("{said}; allowed is {}", beyond.join(", "))),
    }
    .with(numbers)
}

/// How long 100 documents take, in turns with the live model.
pub(super) fn latency(model: &Model, live: Option<&Model>, queries: &Judged, criteria: &Criteria) -> Check {
    let rows: Vec<f32> = queries.queries.iter().flat_map(|query| &query.rows).copied().collect();
    let rows: Vec<f32> = rows.iter().cycle().take(TIMED_DOCUMENTS * queries.features).copied().collect();
    let began = Instant::now();
    let mut times: BTreeMap<bool, Vec<f64>> = BTreeMap::new();
    for call in 0..TIMED_CALLS {
        for (is_live, model) in [(false, Some(model)), (true, live)] {
            let Some(model) = model else { continue };
            let began = Instant::now();
            if let Err(why) = model.score(&rows) {
                return Check::new("latency", Outcome::Refused, why);
            }
            times.entry(is_live).or_default().push(began.elapsed().as_secs_f64() * 1e3);
        }
        if call > 0 && began.elapsed().as_secs_f64() > TIMED_FOR_S {
            break;
        }
    }
    let of = |is_live: bool, share: f64| {
        let mut times = times.get(&is_live).cloned().unwrap_or_default();
        times.sort_by(f64::total_cmp);
        quantile(&times, share)
    };
    let (Some(median), Some(p99)) = (of(false, 0.5), of(false, 0.99)) else {
        return Check::new("latency", Outcome::Skipped, "no call was timed");
    };
    let numbers = [("p50_ms", median), ("p99_ms", p99), ("live_p50_ms", of(true, 0.5).unwrap_or(f64::NAN))];
    let said = format!("{median:.3} ms for {TIMED_DOCUMENTS} documents at the median, p99 {p99:.3} ms");
    let Some(live) = of(true, 0.5) else { return Check::new("latency", Outcome::Passed, said).with(numbers) };
    let floor_ms = std::time::Duration::from_micros(criteria.latency_floor_us).as_secs_f64() * 1e3;
    let most = (live * criteria.latency_ratio).max(floor_ms);
    let said = format!("{said}; the live model {live:.3} ms, allowed are {most:.3} ms");
    Check::new("latency", if median > most { Outcome::Refused } else { Outcome::Passed }, said).with(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_one_document_says_nothing_of_ties() {
        let of = |scores: &[&[f32]]| tells_apart(&scores.iter().map(|scores| scores.to_vec()).collect::<Vec<_>>());
        assert_eq!(of(&[&[1.0], &[2.0], &[1.0, 1.5]]).outcome, Outcome::Passed);
        let tied = of(&[&[0.5], &[2.0], &[1.0, 1.0]]);
        assert_eq!(tied.outcome, Outcome::Refused);
        assert_eq!(
            tied.said,
            "all documents of a query get the same score, in each of the 1 queries of two documents or more: there is no order in that (4 documents of 3 queries, from 0.5 to 2)"
        );
    }
}
