//! What `/metrics` says of quality: means over the newest minute, and how much they are the mean of.

use std::collections::BTreeMap;

use super::exposition::Exposition;
use super::{AdminState, metrics};
use crate::quality::signals::{BodyFault, Reading};
use crate::quality::{Counts, Number, SignalFault, route_id, sum_of, version_id};

/// Seconds over which a mean is taken.
const MINUTE: usize = 60;

/// A metric by its name: what is summed, what it is the mean of, and what one stands for.
const METRICS: [(&str, Number, Number, f64); 6] = [
    ("errors", Number::Errors, Number::Requests, 1.0),
    ("timeouts", Number::Timeouts, Number::Requests, 1.0),
    ("zero_results", Number::ZeroResults, Number::ZeroSeen, 1.0),
    ("quality", Number::QualitySum, Number::QualitySeen, 1e6),
    ("clicks", Number::Clicks, Number::Impressions, 1.0),
    ("conversions", Number::Conversions, Number::Impressions, 1.0),
];

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    bodies(page, state);
    pairs(page, state);
    dropped(page, state);
    arms(page, state);
    let last_minute = last_minute(state);
    page.family(
        "switchback_quality_mean",
        "gauge",
        "Means over the last minute in which there was something, by metric; absent where there was nothing.",
    );
    each(state, &last_minute, |[route, pool, version], counts| {
        for (metric, sum, of, unit) in METRICS {
            if counts[of] > 0 {
                page.gauge(&[route, pool, version, ("metric", metric)], counts[sum] as f64 / counts[of] as f64 / unit);
            }
        }
    });
    page.family("switchback_quality_observations", "gauge", "How many observations a mean of switchback_quality_mean is of.");
    each(state, &last_minute, |[route, pool, version], counts| {
        for (metric, _, of, _) in METRICS {
            page.gauge(&[route, pool, version, ("metric", metric)], counts[of] as f64);
        }
    });
    page.family(
        "switchback_signal_faults_total",
        "counter",
        "What backends said of their responses' quality and makes no sense, by reason.",
    );
    for (index, route, pool_index, pool) in metrics::pools(state) {
        for (place, fault) in SignalFault::ALL.into_iter().enumerate() {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version), ("reason", fault.label())];
            page.count(&labels, metrics::sum_pool(state, index, pool_index, &|counters| counters.signal_faults.get(place)));
        }
    }
}

fn dropped(page: &mut Exposition, state: &AdminState) {
    page.family(
        "switchback_quality_dropped_total",
        "counter",
        "What was counted and the fleet never hears of: the store was away for too long, or a router before this one was killed; by number.",
    );
    let books = state.process.books.lock();
    for (_, route) in state.routes() {
        for number in Number::ALL.into_iter().filter(|number| number.unit() == 1.0) {
            let dropped = books.get(&route.name).map_or(0, |book| sum_of(&book.dropped)[number]);
            page.count(&[("route", &route.name), ("number", number.label())], dropped);
        }
    }
}

fn arms(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_experiment_observations_total", "counter", "What this router counted of the arms of experiments, by number.");
    let books = state.process.books.lock();
    for (_, route) in state.routes() {
        let Some(book) = books.get(&route.name) else { continue };
        // One that was removed and created anew has other numbers under the same name.
        let mut by_name = BTreeMap::<(&str, &str), Counts>::new();
        for (id, name) in &book.arms {
            if let Some(counts) = book.windows.totals().get(id) {
                by_name.entry(name.split_once('/').unwrap_or_default()).or_default().merge(counts);
            }
        }
        for ((experiment, arm), counts) in &by_name {
            for number in Number::ALL.into_iter().filter(|number| number.unit() == 1.0) {
                page.count(&[("route", &route.name), ("experiment", experiment), ("arm", arm), ("number", number.label())], counts[number]);
            }
        }
    }
}

fn bodies(page: &mut Exposition, state: &AdminState) {
    let each = |add: &mut dyn FnMut(Labels<'_>, Reading)| {
        for (_, route, _, pool) in metrics::pools(state).filter(|(_, route, ..)| route.signals.is_some()) {
            let labels = [("route", route.name.as_str()), ("pool", pool.name.as_str()), ("version", pool.version.as_str())];
            add(labels, state.signals.reading(route_id(&route.name), version_id(&pool.name, &pool.version)));
        }
    };
    page.family("switchback_sampled_bodies_total", "counter", "Response bodies that were read for what they say of their results.");
    each(&mut |labels, reading| page.count(&labels, reading.read));
    page.family("switchback_sampled_body_faults_total", "counter", "Of them, what was wrong with what they say, by reason.");
    each(&mut |[route, pool, version], reading| {
        for (fault, count) in BodyFault::ALL.into_iter().zip(reading.faults) {
            page.count(&[route, pool, version, ("reason", fault.label())], count);
        }
    });
}

/// Of pools that got copies of queries while a rollout mirrored.
fn pairs(page: &mut Exposition, state: &AdminState) {
    page.family(
        "switchback_mirror_compared_total",
        "counter",
        "Copies of queries whose answers were compared with the queries' own, by what came of it.",
    );
    for (_, route, _, pool) in metrics::pools(state).filter(|(_, route, ..)| route.signals.is_some()) {
        let copies = state.signals.copies_of_version(route_id(&route.name), version_id(&pool.name, &pool.version));
        let same = copies.compared.saturating_sub(copies.top1_changed);
        for (result, count) in [("same_top1", same), ("changed_top1", copies.top1_changed), ("unread", copies.unread)] {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version), ("result", result)];
            page.count(&labels, count);
        }
    }
}

/// Route, pool and version.
type Labels<'a> = [(&'static str, &'a str); 3];

/// Sums by route and version.
type Sums = Vec<Vec<Counts>>;

fn last_minute(state: &AdminState) -> Sums {
    let books = state.process.books.lock();
    let sums = state.routes().map(|(_, route)| {
        let book = books.get(&route.name);
        let sum = |id: u32| {
            let mut sum = Counts::default();
            for (_, window) in book.into_iter().flat_map(|book| book.windows.newest(MINUTE)) {
                if let Some(counts) = window.get(&id) {
                    sum.merge(counts);
                }
            }
            sum
        };
        route.pools.iter().map(|pool| sum(version_id(&pool.name, &pool.version))).collect()
    });
    sums.collect()
}

fn each(state: &AdminState, sums: &Sums, mut add: impl for<'a> FnMut(Labels<'a>, &Counts)) {
    for (index, route, pool_index, pool) in metrics::pools(state) {
        let labels = [("route", route.name.as_str()), ("pool", pool.name.as_str()), ("version", pool.version.as_str())];
        if let Some(counts) = sums.get(index.get()).and_then(|pools| pools.get(pool_index.get())) {
            add(labels, counts);
        }
    }
}
