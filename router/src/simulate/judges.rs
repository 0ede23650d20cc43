//! Whoever judges a rollout window by window.

use rollback_guardrail::{Config, State};
use switchback_policy::rollback::{Outcome, Verdict, Window};

use crate::policy::rollback::experiment_config;
use crate::policy::{NativeRollback, RollbackInstance};

/// Judges one rollout after the other.
pub trait Judge {
    /// Forgets the rollout before.
    fn begin(&mut self);

    /// Judges the next window.
    ///
    /// # Errors
    /// In the policy's words.
    fn judge(&mut self, window: &Window) -> Result<Verdict, String>;
}

/// Makes a judge for each thread.
pub type Judges<'a> = dyn Fn() -> Result<Box<dyn Judge>, String> + Sync + 'a;

/// Any policy, by the interface: the state in bytes, the config as text.
pub struct WithState {
    instance: RollbackInstance,
    config: String,
    state: Vec<u8>,
    last: Option<Outcome>,
}

impl WithState {
    /// A policy and its config.
    #[must_use]
    pub fn new(instance: RollbackInstance, config: &str) -> WithState {
        WithState { instance, config: config.to_owned(), state: Vec::new(), last: None }
    }

    /// The outcome of the window that was judged last.
    #[must_use]
    pub fn last(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }
}

impl Judge for WithState {
    fn begin(&mut self) {
        self.state.clear();
        self.last = None;
    }

    fn judge(&mut self, window: &Window) -> Result<Verdict, String> {
        let outcome = self.instance.evaluate(&self.config, &self.state, window).map_err(|failure| failure.to_string())?;
        let verdict = outcome.verdict;
        self.state.clone_from(&outcome.state);
        self.last = Some(outcome);
        Ok(verdict)
    }
}

/// `rollback-guardrail` as native code, with its state left in memory: the same verdicts (a test holds that), several times faster.
pub(super) struct Guardrail {
    config: Config,
    state: State,
}

impl Guardrail {
    pub(super) fn new(config: &str) -> Result<Guardrail, String> {
        let config = rollback_guardrail::check(config).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })?;
        let state = State::new(&config);
        Ok(Guardrail { config, state })
    }
}

impl Judge for Guardrail {
    fn begin(&mut self) {
        self.state = State::new(&self.config);
    }

    fn judge(&mut self, window: &Window) -> Result<Verdict, String> {
        rollback_guardrail::judge(&self.config, &mut self.state, window).map(|judgement| judgement.verdict)
    }
}

/// An experiment's report, as whoever looks after every window sees it. Some difference where there is none is what it must not show.
pub(super) struct Intervals(WithState);

/// What an experiment's intervals together may be wrong by.
const ALPHA: f64 = 0.05;

impl Intervals {
    pub(super) fn new() -> Intervals {
        Intervals(WithState::new(RollbackInstance::native(NativeRollback::Guardrail), &experiment_config(1, ALPHA)))
    }
}

impl Judge for Intervals {
    fn begin(&mut self) {
        self.0.begin();
    }

    fn judge(&mut self, window: &Window) -> Result<Verdict, String> {
        self.0.judge(window)?;
        let evidence = self.0.last().map(|outcome| outcome.evidence.as_slice()).unwrap_or_default();
        let shows_difference = evidence.iter().any(|evidence| evidence.low > 0.0 || evidence.high < 0.0);
        Ok(if shows_difference { Verdict::RollBack } else { Verdict::Hold })
    }
}

/// A judge that is the shipped guardrail, in memory.
///
/// # Errors
/// What is wrong with the config.
pub(crate) fn guardrail(config: &str) -> Result<Box<dyn Judge>, String> {
    Ok(Box::new(Guardrail::new(config)?))
}
