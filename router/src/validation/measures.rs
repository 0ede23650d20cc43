//! How good a ranking is, and how far two rankings are apart. Pure.
//!
//! - NDCG@k with gains 2^label - 1 and discounts log2(place + 1) (Järvelin and Kekäläinen 2002, in the form of Burges et al. 2005)
//! - reciprocal rank of the first document whose label is 1 or more
//! - rank-biased overlap, extrapolated (Webber, Moffat and Zobel 2010, eq. 32), here for two orders of the same documents
//! - Jaccard's index of the first k documents

/// How deep rankings are looked at.
pub(super) const DEPTH: usize = 10;
/// Of rank-biased overlap: how patient a user is. 0.9 gives 86 % of the weight to the first ten places.
pub(super) const PATIENCE: f64 = 0.9;

/// Places of documents, best first; equal scores keep the order in which the documents came.
pub(super) fn ranking(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |place: &usize| scores.get(*place).copied().unwrap_or(f32::NEG_INFINITY);
    order.sort_by(|left, right| score(right).total_cmp(&score(left)));
    order
}

/// NDCG at `depth`, 0..=1; none where no document is worth anything.
pub(super) fn ndcg(labels: &[f64], ranking: &[usize], depth: usize) -> Option<f64> {
    let label = |place: &usize| labels.get(*place).copied().unwrap_or(0.0);
    let mut best: Vec<f64> = labels.to_vec();
    best.sort_by(|left, right| right.total_cmp(left));
    let ideal = gain(best.into_iter().take(depth));
    (ideal > 0.0).then(|| gain(ranking.iter().take(depth).map(label)) / ideal)
}

fn gain(labels: impl Iterator<Item = f64>) -> f64 {
    (2_u32..).zip(labels).map(|(place, label)| (label.exp2() - 1.0) / f64::from(place).log2()).sum()
}

/// Reciprocal rank, 0..=1; none where no document is relevant.
pub(super) fn reciprocal_rank(labels: &[f64], ranking: &[usize]) -> Option<f64> {
    if !labels.iter().any(|label| *label >= 1.0) {
        return None;
    }
    let is_relevant = |place: &usize| labels.get(*place).is_some_and(|label| *label >= 1.0);
    let first = (1_u32..).zip(ranking).find(|(_, place)| is_relevant(place));
    Some(first.map_or(0.0, |(place, _)| 1.0 / f64::from(place)))
}

/// Jaccard's index of the first `depth` of both, 0..=1; 1 for no documents.
pub(super) fn jaccard(one: &[usize], other: &[usize], depth: usize) -> f64 {
    let first = |ranking: &[usize]| -> std::collections::BTreeSet<usize> { ranking.iter().take(depth).copied().collect() };
    let (one, other) = (first(one), first(other));
    let union = one.union(&other).count();
    if union == 0 { 1.0 } else { count(one.intersection(&other).count()) / count(union) }
}

/// Rank-biased overlap of two orders of the same documents, 0..=1; 1 for no documents.
pub(super) fn overlap(one: &[usize], other: &[usize], patience: f64) -> f64 {
    if one.is_empty() {
        return 1.0;
    }
    let mut seen = vec![0_u8; one.len().max(other.len())];
    let (mut common, mut weight, mut sum) = (0_usize, 1.0 - patience, 0.0);
    let mut agreement = 0.0;
    for (depth, (left, right)) in (1_usize..).zip(one.iter().zip(other)) {
        for place in [left, right] {
            if let Some(times) = seen.get_mut(*place) {
                *times += 1;
                common += usize::from(*times == 2);
            }
        }
        agreement = count(common) / count(depth);
        sum += weight * agreement;
        weight *= patience;
    }
    // What is beyond the last place agrees as the last place does: for orders of the same documents that is 1.
    sum + agreement * weight / (1.0 - patience)
}

/// The share of documents that stand at another place, 0..=1.
pub(super) fn moved(one: &[usize], other: &[usize]) -> f64 {
    let moved = one.iter().zip(other).filter(|(left, right)| left != right).count();
    if one.is_empty() { 0.0 } else { count(moved) / count(one.len()) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of documents are far below 2^52")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count(values.len()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn known_values() {
        // scikit-learn's ndcg_score of gains 7, 3, 0 in the order 3, 7, 0: (3 + 7 / log2(3)) / (7 + 3 / log2(3)).
        let said = ndcg(&[3.0, 2.0, 0.0], &[1, 0, 2], 10).unwrap();
        assert!(near(said, (3.0 + 7.0 / 3_f64.log2()) / (7.0 + 3.0 / 3_f64.log2())), "{said}");
        assert_eq!(ndcg(&[0.0, 0.0], &[0, 1], 10), None);
        assert_eq!(reciprocal_rank(&[0.0, 0.0, 2.0], &[0, 2, 1]), Some(0.5));
        assert_eq!(reciprocal_rank(&[0.0, 0.5], &[0, 1]), None);
        assert!(near(jaccard(&[0, 1, 2], &[2, 3, 0], 2), 1.0 / 3.0 * 0.0 + 0.0));
        assert!(near(jaccard(&[0, 1, 2], &[1, 0, 2], 2), 1.0));
        // By hand: agreements 0, 1 and 1, weights 0.1, 0.09 and what is left.
        assert!(near(overlap(&[0, 1], &[1, 0], 0.9), 0.9));
        assert_eq!(ranking(&[0.5, 2.0, 0.5, -1.0]), [1, 0, 2, 3]);
        assert!(near(moved(&[0, 1, 2], &[1, 0, 2]), 2.0 / 3.0));
    }

    proptest! {
        #[test]
        fn every_measure_is_a_share_and_the_same_ranking_is_the_same(
            labels in proptest::collection::vec(0_u8..5, 1..30),
            scores in proptest::collection::vec(-1.0_f32..1.0, 30),
            others in proptest::collection::vec(-1.0_f32..1.0, 30),
        ) {
            let labels: Vec<f64> = labels.into_iter().map(f64::from).collect();
            let (one, other) = (ranking(&scores[..labels.len()]), ranking(&others[..labels.len()]));
            let said = [
                ndcg(&labels, &one, DEPTH).unwrap_or(1.0), reciprocal_rank(&labels, &one).unwrap_or(1.0),
                jaccard(&one, &other, DEPTH), overlap(&one, &other, PATIENCE), moved(&one, &other),
            ];
            prop_assert!(said.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)), "{:?}", said);
            prop_assert!(near(overlap(&one, &one, PATIENCE), 1.0) && near(jaccard(&one, &one, DEPTH), 1.0) && near(moved(&one, &one), 0.0));
            prop_assert!(near(overlap(&one, &other, PATIENCE), overlap(&other, &one, PATIENCE)));
            let by_label = ranking(&labels.iter().map(|label| *label as f32).collect::<Vec<_>>());
            prop_assert!(ndcg(&labels, &by_label, DEPTH).is_none_or(|best| near(best, 1.0)));
        }
    }
}
