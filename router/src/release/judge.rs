//! The policy in force on a route, and what it makes of the slices that are due. Not on a runtime's thread: a policy may take its time.

use super::cursor::Due;
use super::fill::{Pair, shown};
use super::record::Comparison;
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
    pub(super) async fn follow(&mut self, policies: &Policies, wanted: &PolicyRef) {
        let known = Some(self.digest.as_str()).filter(|digest| !digest.is_empty() && self.name == wanted.name && self.instance.is_some());
        let choice = policies.rollback(wanted, known).await;
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
    for Slice { due, pair } in slices {
        let window = shown(&pair, &due.place);
        comparison.take(instance.evaluate(config, &comparison.state, &window).map_err(|failure| failure.to_string()));
        comparison.add(&pair, &window);
        judged.push((due.order, window));
    }
    (comparison, judged)
}
