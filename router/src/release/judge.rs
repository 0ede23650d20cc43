//! The policy in force on a route, and what it makes of the slices that are due. Not on a runtime's thread: a policy may take its time.

use super::cursor::Due;
use super::fill::{Pair, shown};
use super::record::{Comparison, Word};
use crate::flags::PolicyRef;
use crate::policy::rollback::Window as Shown;
use crate::policy::{NativeRollback, Policies, RollbackFound, RollbackInstance};

/// The policy in force.
pub(super) struct InForce {
    pub(super) name: String,
    /// Empty for the native one.
    pub(super) digest: String,
    pub(super) source: String,
    /// Why it is not what the flags name.
    pub(super) why: Option<String>,
    /// Away while it judges.
    instance: Option<RollbackInstance>,
}

impl InForce {
    /// Until there is another one.
    pub(super) fn native() -> InForce {
        let instance = Some(RollbackInstance::native(NativeRollback::Guardrail));
        InForce { name: "rollback-guardrail".to_owned(), digest: String::new(), source: "native".to_owned(), why: None, instance }
    }

    /// What the flags name now, as far as it is there.
    pub(super) fn follow(&mut self, policies: &Policies, wanted: &PolicyRef) {
        let known = Some(self.digest.as_str()).filter(|digest| !digest.is_empty() && self.name == wanted.name && self.instance.is_some());
        let choice = policies.rollback(wanted, known);
        self.why = choice.why;
        if let Some(RollbackFound { digest, source, instance: Some(instance) }) = choice.found {
            (self.name, self.digest, self.source, self.instance) = (wanted.name.clone(), digest, source, Some(instance));
        }
    }

    /// Judges slices, the first one first.
    pub(super) async fn judge(&mut self, config: &str, comparison: Comparison, slices: Vec<Slice>) -> Option<(Comparison, Vec<Judged>)> {
        let mut instance = self.instance.take()?;
        let (config, comparison) = (config.to_owned(), Comparison { policy: self.name.clone(), digest: self.digest.clone(), ..comparison });
        let work = move || {
            let judged = judge(&mut instance, &config, comparison, slices);
            (instance, judged)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((instance, judged)) => {
                self.instance = Some(instance);
                Some(judged)
            }
            Err(error) => {
                tracing::error!(policy = self.name, %error, "a rollback policy's host ended badly; another instance is made");
                *self = InForce::native();
                None
            }
        }
    }
}

/// How many slices were judged before, and what the policy was shown.
pub(super) type Judged = (u64, Shown);

/// A slice, and what was counted of it.
pub(super) struct Slice {
    pub(super) due: Due,
    pub(super) pair: Pair,
}

fn judge(instance: &mut RollbackInstance, config: &str, mut comparison: Comparison, slices: Vec<Slice>) -> (Comparison, Vec<Judged>) {
    let mut judged = Vec::with_capacity(slices.len());
    let mut harm = None;
    for Slice { due, pair } in slices {
        let window = shown(&pair, &due.place);
        comparison.take(instance.evaluate(config, &comparison.state, &window).map_err(|failure| failure.to_string()));
        if harm.is_none() && comparison.verdict() == Some(Word::RollBack) {
            harm.clone_from(&comparison.said);
        }
        comparison.add(&pair, &window);
        judged.push((due.order, window));
    }
    // What was found out once holds, though nobody looked just then.
    comparison.said = harm.or(comparison.said);
    (comparison, judged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rollback::Slice as Kind;
    use crate::quality::{Counts, Number};
    use crate::release::cursor::Due;
    use crate::release::fill::Place;
    use crate::release::record::tests::record;

    fn slice(order: u64, [candidate, control]: [u64; 2]) -> Slice {
        let counts = |errors: u64| {
            let mut counts = Counts::default();
            (0..100).for_each(|one| {
                counts.add(Number::Requests, 0, 1);
                counts.add(Number::Errors, 0, u64::from(one < errors));
            });
            counts
        };
        let step = crate::policy::rollback::Step { index: 0, share_ppm: 500_000, is_last: false };
        let place = Place { index: order, slice: Kind::Traffic, step, share_ppm: None };
        let pair = Pair { candidate: counts(candidate), control: counts(control) };
        Slice { due: Due { second: 1_000, place, order, is_lead_in: false }, pair }
    }

    /// After an outage many slices are judged at once.
    #[test]
    fn harm_that_was_found_out_in_the_middle_of_a_look_is_not_forgotten_at_its_end() {
        let comparison = || Comparison { state: Vec::new(), said: None, ..record().comparison.unwrap() };
        let judged = |slices: Vec<Slice>| {
            let mut instance = RollbackInstance::native(NativeRollback::Guardrail);
            judge(&mut instance, "{}", comparison(), slices).0.verdict()
        };
        let harm = || (0..10).map(|order| slice(order, [20, 1]));
        let mended = || (10..100).map(|order| slice(order, [0, 20]));
        assert_eq!(judged(harm().collect()), Some(Word::RollBack));
        assert_eq!(judged(harm().chain(mended()).collect()), Some(Word::RollBack));
        assert_ne!(judged(mended().collect()), Some(Word::RollBack));
    }
}
