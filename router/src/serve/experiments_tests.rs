//! Who is in which arm: layers on a million units, shares, conditions, and what changes nothing.

use std::collections::BTreeMap;

use http::Request;

use super::super::head::Head;
use super::*;
use crate::flags::Fields;

const UNITS: u32 = 1_000_000;

fn route() -> config::Route {
    let pools = [("blue", "v1"), ("green", "v2"), ("canary", "v2"), ("exp", "v7"), ("other", "v8")];
    let mut text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[[route]]\nname = \"search\"\n".to_owned();
    for (pool, version) in pools {
        text.push_str(&format!("[route.pools.{pool}]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"{version}\"\n"));
    }
    crate::config::parse("test", &text).unwrap().routes[0].clone()
}

fn flags(route: &config::Route, experiments: &str) -> Flags {
    let fields = [("live", "blue"), ("salt", "salt-of-the-rollout"), ("canary_percent", "10"), ("experiments", experiments)];
    let fields = Fields::from(fields.map(|(field, value)| (field.to_owned(), value.to_owned())));
    let (flags, faults) = Flags::read(&fields, &Flags::initial(route), route);
    assert_eq!(faults, []);
    flags
}

/// Two in layers of their own, and one in the rollout's.
const THREE: &str = r#"{
    "layers": [{"name": "ranking", "salt": "salt-of-ranking"}, {"name": "results", "salt": "salt-of-results"}],
    "experiments": [
        {"name": "big", "layer": "ranking", "salt": "salt-of-big", "percent": "30",
         "arms": [{"name": "control", "pool": "live"}, {"name": "big", "pool": "exp", "weight": 2}]},
        {"name": "more", "layer": "results", "salt": "salt-of-more", "from_percent": "50", "percent": "40",
         "arms": [{"name": "control", "version": "v1"}, {"name": "more", "version": "v8"}]},
        {"name": "late", "layer": "rollout", "salt": "salt-of-late", "from_percent": "60", "percent": "20",
         "arms": [{"name": "control", "pool": "live"}, {"name": "late", "pool": "other"}, {"name": "later", "pool": "exp"}]}]}"#;

fn running(text: &str) -> (Experiments, Flags) {
    let route = route();
    let flags = flags(&route, text);
    (Experiments::of(&route, &flags, &Experiments::default(), &NewArms::default()), flags)
}

fn head(fields: &[(&str, &str)]) -> Head {
    let request = fields.iter().fold(Request::get("/de/search?q=shoes"), |request, (name, value)| request.header(*name, *value));
    Head::of(request.body(()).unwrap().into_parts().0)
}

/// What each layer alone would do with a unit.
fn alone(experiments: &Experiments, unit: &[u8], head: &Head) -> Vec<Option<u32>> {
    let of = |layer: &Layer| {
        let position = layer.key.position(unit);
        let running = layer.experiments.iter().find(|running| (running.from..running.below).contains(&position))?;
        running.arm(unit, head).map(|arm| arm.series.id())
    };
    experiments.layers.iter().map(of).collect()
}

fn chi_square(observed: &[u64], expected: &[f64]) -> f64 {
    observed.iter().zip(expected).map(|(seen, expected)| (*seen as f64 - expected).powi(2) / expected).sum()
}

/// The promise of layers, on a million units: those of one layer are exclusive, those of different ones independent, and the rollout loses nobody's
/// balance.
#[test]
fn layers_are_independent_and_within_one_nobody_is_in_two() {
    let (experiments, flags) = running(THREE);
    let (rollout, head) = (PositionKey::new(flags.salt.as_bytes()), head(&[]));
    let ids: Vec<u32> = flags.experiments.as_ref().unwrap().experiments.iter().flat_map(Experiment::arm_ids).collect();
    let place = |id: Option<u32>| id.map_or(0, |id| ids.iter().position(|known| *known == id).unwrap() + 1);
    let (mut both, mut against_rollout, mut served) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for unit in 0..UNITS {
        let unit = format!("user-{unit}");
        let of = alone(&experiments, unit.as_bytes(), &head);
        let [big, more, late] = [0, 1, 2].map(|layer| place(of[layer]));
        *both.entry((big, more)).or_insert(0_u64) += 1;
        let candidate = rollout.position(unit.as_bytes()) < flags.candidate.share.get();
        *against_rollout.entry((big, candidate)).or_insert(0_u64) += 1;
        assert!(!(candidate && late > 0), "who is in the rollout's layer is not on the candidate");
        // Who is in several is in the first one's.
        let arm = experiments.arm(unit.as_bytes(), &head).map(|arm| arm.series.id());
        assert_eq!(place(arm), [big, more, late].into_iter().find(|place| *place > 0).unwrap_or(0));
        *served.entry(place(arm)).or_insert(0_u64) += 1;
    }
    let all = f64::from(UNITS);
    let (of_big, of_more) = ([0.7, 0.1, 0.2], [0.6, 0.2, 0.2]);
    let cells = (0..3).flat_map(|big| (0..3).map(move |more| (big, more)));
    let seen: Vec<u64> = cells.clone().map(|(big, more)| both[&(big, if more == 0 { 0 } else { more + 2 })]).collect();
    let expected: Vec<f64> = cells.map(|(big, more)| all * of_big[big] * of_more[more]).collect();
    // 8 degrees of freedom: 26.1 is the 99.9th percentile.
    assert!(chi_square(&seen, &expected) < 26.1, "{seen:?}, and not {expected:?}");
    let cells: Vec<(usize, bool)> = (0..3).flat_map(|big| [(big, false), (big, true)]).collect();
    let seen: Vec<u64> = cells.iter().map(|cell| against_rollout[cell]).collect();
    let expected: Vec<f64> = cells.iter().map(|(big, candidate)| all * of_big[*big] * if *candidate { 0.1 } else { 0.9 }).collect();
    assert!(chi_square(&seen, &expected) < 20.5, "{seen:?}, and not {expected:?}");
    // What is left for a later one keeps the balance of its arms.
    let part = 0.7 * 0.4 / 2.0;
    let expected = [all * part, all * part];
    assert!(chi_square(&[served[&3], served[&4]], &expected) < 13.8, "{served:?}");
    let part = 0.7 * 0.6 * 0.2 / 3.0;
    assert!(chi_square(&[served[&5], served[&6], served[&7]], &[all * part; 3]) < 16.3, "{served:?}");
}

#[test]
fn a_larger_experiment_only_adds_units_and_nobody_changes_arms() {
    let head = head(&[]);
    let (small, _) = running(THREE);
    let (large, _) = running(&THREE.replace("\"percent\": \"30\"", "\"percent\": \"45\""));
    let (mut more, mut stayed) = (0, 0);
    for unit in 0..20_000 {
        let unit = format!("user-{unit}");
        let arm = |of: &Experiments| alone(of, unit.as_bytes(), &head)[0];
        match (arm(&small), arm(&large)) {
            (Some(before), after) => {
                assert_eq!(Some(before), after);
                stayed += 1;
            }
            (None, Some(_)) => more += 1,
            (None, None) => {}
        }
    }
    assert!((5_700..6_300).contains(&stayed) && (2_800..3_200).contains(&more), "{stayed} {more}");
}

#[test]
fn conditions_say_who_is_in() {
    let text = |when: &str| THREE.replacen("\"percent\": \"30\"", &format!("\"percent\": \"100\", \"when\": [{when}]"), 1);
    let is_in = |when: &str, fields: &[(&str, &str)]| {
        let (experiments, _) = running(&text(when));
        alone(&experiments, b"user-1", &head(fields))[0].is_some()
    };
    let german = r#"{"field": "header:accept-language", "prefix": "de"}"#;
    assert!(is_in(german, &[("accept-language", "de-AT")]) && !is_in(german, &[("accept-language", "en")]) && !is_in(german, &[]));
    let app = r#"{"field": "cookie:app", "one_of": ["ios", "android"]}, {"field": "query:q", "equals": "shoes"}"#;
    assert!(is_in(app, &[("cookie", "a=b; app=ios")]) && !is_in(app, &[("cookie", "app=web")]));
    assert!(is_in(r#"{"field": "path", "prefix": "/de/"}"#, &[]) && !is_in(r#"{"field": "query:debug", "present": true}"#, &[]));
    assert!(is_in(r#"{"field": "header:x-bot", "present": false}"#, &[]));
}

#[test]
fn an_experiment_runs_whole_or_not_at_all() {
    let (experiments, flags) = running(&THREE.replace("\"version\": \"v8\"", "\"version\": \"v99\""));
    assert_eq!(experiments.layers.len(), 2, "no pool runs v99");
    assert!(flags.experiments.is_some());
    let (experiments, _) = running(&THREE.replace("\"pool\": \"other\"", "\"pool\": \"gone\""));
    assert_eq!(experiments.layers.len(), 2);
}

#[test]
fn arms_are_counted_in_the_same_place_whatever_else_changes() {
    let route = route();
    let (new_arms, first) = (NewArms::default(), flags(&route, THREE));
    let before = Experiments::of(&route, &first, &Experiments::default(), &new_arms);
    assert_eq!(new_arms.take().len(), 7);
    let after = Experiments::of(&route, &Flags { live: PoolIndex(1), ..first.clone() }, &before, &new_arms);
    assert_eq!(new_arms.take().len(), 0);
    let (one, other) = (before.numbered(0).unwrap(), after.numbered(0).unwrap());
    assert!(Arc::ptr_eq(&one.series, &other.series));
    assert_eq!((one.pool, other.pool, after.numbered(1).unwrap().pool), (PoolIndex(0), PoolIndex(1), PoolIndex(3)), "control follows live");
    assert_eq!((after.numbered(2).unwrap().pool, after.numbered(7).is_none()), (PoolIndex(0), true), "v1 is where it was");
}

#[test]
fn a_policy_names_arms_by_their_place_in_the_flags_whichever_of_them_run() {
    let (experiments, flags) = running(&THREE.replace("\"pool\": \"exp\", \"weight\": 2", "\"pool\": \"gone\""));
    let ids: Vec<u32> = flags.experiments.as_ref().unwrap().running().flat_map(Experiment::arm_ids).collect();
    let numbered: Vec<Option<u32>> = (0..8).map(|number| experiments.numbered(number).map(|arm| arm.series.id())).collect();
    let expected: Vec<Option<u32>> = [None, None].into_iter().chain(ids[2..].iter().copied().map(Some)).chain([None]).collect();
    assert_eq!(numbered, expected, "the first experiment sends nobody anywhere");
}

/// While the breaker holds a pool back, or what is live, experiments with an arm of it send nobody anywhere: their other arms would be compared with nobody.
#[test]
fn what_the_breaker_holds_back_is_in_no_experiment() {
    let route = route();
    let shed = |pools: &[u8], live: u8| {
        let shed =
            crate::flags::Shed { pools: pools.iter().copied().map(PoolIndex).collect(), control: PoolIndex(0), live: PoolIndex(live) };
        let flags = Flags { shed: Some(shed), ..flags(&route, THREE) };
        let experiments = Experiments::of(&route, &flags, &Experiments::default(), &NewArms::default());
        [0, 2, 4].map(|number| experiments.numbered(number).is_some())
    };
    assert_eq!(shed(&[2], 0), [true, true, true], "of the canary none has an arm");
    assert_eq!(shed(&[3], 0), [false, true, false], "exp is an arm of two");
    assert_eq!(shed(&[1, 2], 1), [false, true, false], "live is held back while it bakes: two have it as control");
}

#[test]
fn groups_are_of_the_experiment_and_not_of_the_rollout() {
    let route = route();
    let groups = |salt: &str| {
        let flags = Flags { salt: salt.to_owned(), ..flags(&route, THREE) };
        let experiments = Experiments::of(&route, &flags, &Experiments::default(), &NewArms::default());
        (0..100).map(|unit| experiments.numbered(0).unwrap().groups.group(format!("user-{unit}").as_bytes())).collect::<Vec<_>>()
    };
    assert_eq!(groups("salt-of-the-rollout"), groups("salt-of-another-rollout"));
}
