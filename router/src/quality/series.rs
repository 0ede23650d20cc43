//! What became of queries by window, of whom: a model version, or an arm of an experiment.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::outcomes::Outcomes;

/// What became of the queries of a model version, or of an experiment's arm, by window; from the first query on.
#[derive(Debug, Default)]
pub struct Series {
    route: u32,
    id: u32,
    name: String,
    outcomes: OnceLock<Box<Outcomes>>,
}

impl Series {
    pub(super) fn of(route: u32, id: u32) -> Series {
        Series { route, id, ..Series::default() }
    }

    /// Of a route, as [`super::route_id`] has it; and an arm, as [`arm_id`](crate::vocabulary::arm_id) has it, named `EXPERIMENT/ARM`.
    #[must_use]
    pub fn of_arm(route: u32, id: u32, name: String) -> Series {
        Series { name, ..Series::of(route, id) }
    }

    /// An arm's; empty of a version.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version's or arm's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The route's.
    #[must_use]
    pub fn route(&self) -> u32 {
        self.route
    }

    /// The first call makes it: large, and most pools of a large config get no query.
    pub fn outcomes(&self) -> &Outcomes {
        self.outcomes.get_or_init(|| Box::new(Outcomes::of(self.route, self.id)))
    }

    /// The same, where there was a query.
    #[must_use]
    pub fn outcomes_if_any(&self) -> Option<&Outcomes> {
        self.outcomes.get().map(Box::as_ref)
    }
}

/// Series of arms that a worker began to count in since somebody last looked: experiments come with flags, and not with a config.
#[derive(Debug, Default)]
pub struct NewArms(Mutex<Vec<Arc<Series>>>);

impl NewArms {
    /// A worker counts in this one from now on.
    pub fn put(&self, series: Arc<Series>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(series);
    }

    /// All that are new.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Series>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
