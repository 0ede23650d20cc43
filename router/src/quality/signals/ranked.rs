//! The ranked list of an answer, by the pointers of its route, and how alike two of them are. Pure.

use std::collections::HashSet;

use serde_json::Value;

use super::said::{BodyFault, Packing, elements, follow, id, unpacked};
use crate::config::{Pointer, Signals};

/// Results whose order matters to a user: Jaccard's index is of these.
const TOP: usize = 10;

/// How alike two lists are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeness {
    /// They have another first result; a list that is empty beside one that is not is one, too.
    pub is_top1_changed: bool,
    /// Jaccard's index of the first ten results, in millionths: 1,000,000 where they are the same in any order, and of two empty lists.
    pub jaccard_micros: u64,
}

/// Whether a route says where the ranked list of an answer is.
#[must_use]
pub fn has_list(signals: &Signals) -> bool {
    signals.ids.is_some() || signals.scores.is_some()
}

/// The results of an answer, best first, each once: their ids as the answer has them, or, where a route only says where scores are, the places of
/// what was scored, by their scores. Of at most 1,000 results.
///
/// # Errors
/// What is wrong with the body, or with what is there. Where the route points at no list, everything is [`BodyFault::Missing`].
pub fn ranked(body: &[u8], packing: Packing, signals: &Signals) -> Result<Vec<String>, BodyFault> {
    let body = unpacked(body, packing, signals.max_body)?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| BodyFault::BadJson)?;
    match (&signals.ids, &signals.scores) {
        (Some(pointer), _) => once_each(&list(&body, pointer)?),
        (None, Some(pointer)) => by_score(&list(&body, pointer)?),
        (None, None) => Err(BodyFault::Missing),
    }
}

/// How alike the answer of a query is to the one of its copy.
#[must_use]
pub fn compare(live: &[String], copy: &[String]) -> Likeness {
    let top = |list: &[String]| list.iter().take(TOP).cloned().collect::<HashSet<String>>();
    let (of_live, of_copy) = (top(live), top(copy));
    let (shared, all) = (of_live.intersection(&of_copy).count() as u64, of_live.union(&of_copy).count() as u64);
    let jaccard_micros = (shared * 1_000_000).checked_div(all).unwrap_or(1_000_000);
    Likeness { is_top1_changed: live.first() != copy.first(), jaccard_micros }
}

/// What a pointer leads to. Where it goes through an array, that has to be there, if empty: an answer that says something else has no list.
fn list<'v>(body: &'v Value, pointer: &Pointer) -> Result<Vec<&'v Value>, BodyFault> {
    let steps = pointer.steps();
    let until_each = steps.split(Option::is_none).next().unwrap_or_default();
    match follow(body, until_each).first() {
        None => Err(BodyFault::Missing),
        Some(array) if until_each.len() < steps.len() && !array.is_array() => Err(BodyFault::WrongType),
        Some(_) => Ok(elements(&follow(body, steps))),
    }
}

fn once_each(found: &[&Value]) -> Result<Vec<String>, BodyFault> {
    let (mut known, mut list) = (HashSet::with_capacity(found.len()), Vec::with_capacity(found.len()));
    for value in found {
        let id = id(value)?;
        if known.insert(id.clone()) {
            list.push(id);
        }
    }
    Ok(list)
}

/// Places from 0; those of equal scores stay in their order.
fn by_score(found: &[&Value]) -> Result<Vec<String>, BodyFault> {
    let of_each = found.iter().enumerate().map(|(place, score)| score.as_f64().map(|score| (place, score)).ok_or(BodyFault::WrongType));
    let mut placed = of_each.collect::<Result<Vec<(usize, f64)>, BodyFault>>()?;
    placed.sort_by(|(_, one), (_, other)| other.partial_cmp(one).unwrap_or(std::cmp::Ordering::Equal));
    Ok(placed.into_iter().map(|(place, _)| place.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::said::tests::{gzip, signals};
    use super::*;

    const HITS: &str = r#"{"hits": [{"id": "b", "score": 0.5}, {"id": 7, "score": 9.5}, {"id": "a", "score": -2}], "empty": []}"#;

    fn of(body: &str, ids: &str, scores: &str) -> Result<Vec<String>, BodyFault> {
        let signals = signals(["", ids, scores, ""]);
        let plain = ranked(body.as_bytes(), Packing::None, &signals);
        assert_eq!(ranked(&gzip(body.as_bytes()), Packing::Gzip, &signals), plain);
        plain
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn ids_are_in_the_order_of_the_answer_and_scores_order_places() {
        assert_eq!(of(HITS, "/hits/*/id", ""), Ok(texts(&["b", "7", "a"])));
        assert_eq!(of(HITS, "/hits/*/id", "/hits/*/score"), Ok(texts(&["b", "7", "a"])), "the backend ordered them");
        assert_eq!(of(HITS, "", "/hits/*/score"), Ok(texts(&["1", "0", "2"])));
        assert_eq!(of(r#"{"outputs": [{"data": [1, 3, 3, 2]}]}"#, "", "/outputs/0/data"), Ok(texts(&["1", "2", "3", "0"])));
        assert_eq!(of(r#"{"ids": ["a", "b", "a", 1, "1"]}"#, "/ids", ""), Ok(texts(&["a", "b", "1"])), "each once");
        assert_eq!((of(HITS, "/empty", ""), of(HITS, "/empty/*/id", ""), of(HITS, "", "/empty")), (Ok(vec![]), Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn what_is_no_list_is_a_fault() {
        use BodyFault::{BadJson, Missing, WrongType};
        assert_eq!(of(HITS, "", ""), Err(Missing));
        for (body, pointer, fault) in [
            ("{", "/hits/*/id", BadJson),
            ("", "/hits/*/id", BadJson),
            (r#"{"error": "no such index"}"#, "/hits/*/id", Missing),
            (r#"{"hits": {"total": 0}}"#, "/hits/*/id", WrongType),
            (r#"{"hits": [{"id": null}]}"#, "/hits/*/id", WrongType),
            (r#"{"hits": true}"#, "/hits", WrongType),
        ] {
            assert_eq!(of(body, pointer, ""), Err(fault), "{body}");
        }
        assert_eq!(of(HITS, "", "/hits/*/id"), Err(WrongType));
        let signals = signals(["", "/ids", "", ""]);
        assert_eq!(ranked(&gzip(&vec![b' '; 1 << 20]), Packing::Gzip, &signals), Err(BodyFault::TooLong));
        assert_eq!(ranked(b"[]", Packing::Gzip, &signals), Err(BodyFault::BadGzip));
    }

    #[test]
    fn no_more_than_a_thousand_results_are_looked_at() {
        let many: Vec<String> = (0..1_500).map(|id| id.to_string()).collect();
        let list = ranked(
            format!("[[{}]]", many.join(",")).as_bytes(),
            Packing::None,
            &Signals { max_body: 1 << 20, ..signals(["", "/0", "", ""]) },
        );
        assert_eq!(list.unwrap(), many[..1_000]);
    }

    #[test]
    fn lists_are_compared_by_their_first_result_and_their_first_ten() {
        let likeness = |live: &[&str], copy: &[&str]| {
            let Likeness { is_top1_changed, jaccard_micros } = compare(&texts(live), &texts(copy));
            (is_top1_changed, jaccard_micros)
        };
        assert_eq!(likeness(&["a", "b", "c"], &["a", "c", "b"]), (false, 1_000_000));
        assert_eq!(likeness(&["a", "b", "c"], &["b", "a", "d"]), (true, 500_000));
        assert_eq!(likeness(&["a"], &["b"]), (true, 0));
        assert_eq!(likeness(&[], &[]), (false, 1_000_000));
        assert_eq!((likeness(&[], &["a"]), likeness(&["a"], &[])), ((true, 0), (true, 0)));
        let eleven = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
        let other_end = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "x"];
        assert_eq!(likeness(&eleven, &other_end), (false, 1_000_000), "nobody looks at the eleventh");
    }

    proptest! {
        #[test]
        fn lists_are_as_alike_from_either_side(live in prop::collection::hash_set("[a-f]", 0..6), copy in prop::collection::hash_set("[a-f]", 0..6)) {
            let (live, copy): (Vec<String>, Vec<String>) = (live.into_iter().collect(), copy.into_iter().collect());
            let likeness = compare(&live, &copy);
            prop_assert_eq!(likeness, compare(&copy, &live));
            prop_assert!(likeness.jaccard_micros <= 1_000_000);
            prop_assert_eq!(compare(&live, &live), Likeness { is_top1_changed: false, jaccard_micros: 1_000_000 });
            let are_both_empty = live.is_empty() && copy.is_empty();
            let shares_none = !are_both_empty && !live.iter().any(|id| copy.contains(id));
            prop_assert_eq!(likeness.jaccard_micros == 0, shares_none);
        }

        #[test]
        fn scores_order_places_and_lose_none(scores in prop::collection::vec(-1e6..1e6f64, 0..50)) {
            let body = serde_json::to_vec(&serde_json::json!({ "scores": scores })).unwrap();
            let list = ranked(&body, Packing::None, &signals(["", "", "/scores", ""])).unwrap();
            let places: Vec<usize> = list.iter().map(|place| place.parse().unwrap()).collect();
            prop_assert!(places.windows(2).all(|two| scores[two[0]] > scores[two[1]] || scores[two[0]] == scores[two[1]] && two[0] < two[1]));
            prop_assert_eq!(places.iter().collect::<HashSet<_>>().len(), scores.len());
        }
    }
}
