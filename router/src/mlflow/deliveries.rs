//! Deliveries of a webhook that were taken lately: one that is repeated brings about nothing, but where its candidate failed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::webhook::Signed;

/// Deliveries whose ids are remembered. Only signed ones are.
const DELIVERIES: usize = 4_096;

/// What is to be done with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// It is new.
    New,
    /// It was taken before, and its candidate failed for good on these routes: they have it again.
    Again(BTreeSet<String>),
    /// It was taken before.
    Repeated,
    /// So many came lately that it cannot be remembered.
    TooMany,
}

impl Delivered {
    /// Whether this route is to have what it names.
    #[must_use]
    pub fn is_for(&self, route: &str) -> bool {
        match self {
            Delivered::New => true,
            Delivered::Again(routes) => routes.contains(route),
            Delivered::Repeated | Delivered::TooMany => false,
        }
    }
}

/// By their ids.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    taken: HashMap<String, Taken>,
}

#[derive(Debug)]
struct Taken {
    /// The second in which it is forgotten.
    until: u64,
    /// Routes whose candidate failed for good since it was last taken.
    failed: BTreeSet<String>,
}

impl Deliveries {
    /// Takes one.
    pub(super) fn take(&mut self, signed: &Signed, max_age: Duration, now_unix_ms: u64) -> Delivered {
        let now = now_unix_ms / 1_000;
        self.taken.retain(|_, taken| taken.until >= now);
        // As long as its own time is good.
        let until = signed.unix_seconds.saturating_add(max_age.as_secs()).saturating_add(1);
        if let Some(taken) = self.taken.get_mut(&signed.id) {
            taken.until = taken.until.max(until);
            let failed = std::mem::take(&mut taken.failed);
            return if failed.is_empty() { Delivered::Repeated } else { Delivered::Again(failed) };
        }
        if self.taken.len() >= DELIVERIES {
            return Delivered::TooMany;
        }
        self.taken.insert(signed.id.clone(), Taken { until, failed: BTreeSet::new() });
        Delivered::New
    }

    /// The candidate that it named failed for good on this route: who delivers it again wants it again.
    pub(super) fn fail(&mut self, id: &str, route: &str) {
        if let Some(taken) = self.taken.get_mut(id) {
            taken.failed.insert(route.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn signed(id: &str) -> Signed {
        Signed { id: id.to_owned(), unix_seconds: 100 }
    }

    #[test]
    fn a_delivery_comes_again_for_the_routes_alone_where_it_failed() {
        let mut deliveries = Deliveries::default();
        let take = |deliveries: &mut Deliveries| deliveries.take(&signed("a1"), MINUTE, 100_000);
        assert_eq!((take(&mut deliveries), take(&mut deliveries)), (Delivered::New, Delivered::Repeated));
        deliveries.fail("a1", "ads");
        deliveries.fail("another", "search");
        let again = take(&mut deliveries);
        assert_eq!(again, Delivered::Again(BTreeSet::from(["ads".to_owned()])));
        assert_eq!((again.is_for("ads"), again.is_for("search")), (true, false));
        assert_eq!(take(&mut deliveries), Delivered::Repeated, "it is worked on again");
        assert!(Delivered::New.is_for("search") && !Delivered::Repeated.is_for("search"));
    }

    #[test]
    fn one_is_remembered_as_long_as_its_time_is_good() {
        let mut deliveries = Deliveries::default();
        for (now_ms, delivered) in [(100_000, Delivered::New), (161_000, Delivered::Repeated), (162_000, Delivered::New)] {
            assert_eq!(deliveries.take(&signed("a1"), MINUTE, now_ms), delivered, "{now_ms}");
        }
        let mut deliveries = Deliveries::default();
        for number in 0..DELIVERIES {
            deliveries.taken.insert(number.to_string(), Taken { until: 161, failed: BTreeSet::new() });
        }
        assert_eq!(deliveries.take(&signed("one more"), MINUTE, 100_000), Delivered::TooMany);
    }
}
