//! What experiments may say, and what is refused.

use super::*;
use proptest::prelude::*;

pub(crate) fn arm(name: &str, pool: &str) -> Arm {
    Arm { name: name.to_owned(), pool: Some(pool.to_owned()), version: None, weight: 1 }
}

pub(crate) fn experiment(name: &str, layer: &str, (from, percent): (&str, &str)) -> Experiment {
    Experiment {
        name: name.to_owned(),
        layer: layer.to_owned(),
        salt: format!("salt of {name}").replace(' ', "-"),
        from_percent: Ppm::from_percent(from).unwrap(),
        percent: Ppm::from_percent(percent).unwrap(),
        arms: vec![arm("control", "live"), arm("big", "exp")],
        when: Vec::new(),
        confidence_percent: CONFIDENCE,
        stop_on_harm: true,
        started_ms: 1_000,
        stopped_ms: None,
        why: String::new(),
    }
}

pub(crate) fn layer(name: &str) -> Layer {
    Layer { name: name.to_owned(), salt: format!("layer-{name}") }
}

fn some() -> Experiments {
    let all = [experiment("a", "ranking", ("0", "20")), experiment("b", "ranking", ("20", "80")), experiment("c", "rollout", ("50", "10"))];
    Experiments { layers: vec![layer("ranking")], experiments: all.to_vec() }
}

#[test]
fn they_read_back() {
    let mut all = some();
    all.experiments[1].when = vec![Condition { field: "header:x-app".to_owned(), prefix: Some("ios".to_owned()), ..Condition::default() }];
    all.experiments[1].arms[1] = Arm { weight: 3, version: Some("v7".to_owned()), pool: None, ..arm("big", "") };
    assert_eq!(Experiments::parse(&all.render()), Ok(all));
    assert_eq!(Experiments::parse("{}"), Ok(Experiments::default()));
}

#[test]
fn what_a_person_writes_is_short() {
    let text = r#"{"layers": [{"name": "ranking", "salt": "12345678"}], "experiments": [{"name": "big-model", "layer": "ranking", "salt": "abcdefgh",
        "percent": "20", "arms": [{"name": "control", "pool": "live"}, {"name": "big", "version": "v7"}]}]}"#;
    let all = Experiments::parse(text).unwrap();
    let one = all.named("big-model").unwrap();
    assert!(one.is_running() && one.stop_on_harm && one.alpha() == 0.05 && one.arms[1].weight == 1);
    assert_eq!(one.bounds().collect::<Vec<_>>(), [500_000, 1_000_000]);
}

#[test]
fn each_mistake_is_named() {
    let wrong = |change: fn(&mut Experiments), says: &str| {
        let mut all = some();
        change(&mut all);
        let fault = Experiments::parse(&all.render()).unwrap_err().to_string();
        assert!(fault.contains(says), "{fault}");
    };
    wrong(
        |all| all.experiments[0].percent = Ppm::from_percent("20.0001").unwrap(),
        "experiments a and b: both have units of layer ranking",
    );
    wrong(
        |all| all.experiments[1].percent = Ppm::from_percent("80.0001").unwrap(),
        "experiment b: from_percent and percent must be at most 100",
    );
    wrong(|all| all.experiments[0].layer = "colour".to_owned(), "experiment a: layer colour must be in layers, or rollout");
    wrong(|all| all.layers.push(layer("rollout")), "layer rollout: that is the rollout's own");
    wrong(|all| all.layers[0].salt = "short".to_owned(), "layer ranking: salt must be 8 to 128");
    wrong(|all| all.experiments[2].arms.truncate(1), "experiment c: arms must be 2 to 8");
    wrong(|all| all.experiments[2].arms[1].name = "control".to_owned(), "experiment c: arm control: there are two of this name");
    wrong(
        |all| all.experiments[2].arms[1].version = Some("v7".to_owned()),
        "experiment c, arm big: must have exactly one of pool and version",
    );
    wrong(|all| all.experiments[2].arms[1].weight = 0, "experiment c, arm big: weight must be a whole number from 1 to 1000");
    wrong(|all| all.experiments[2].confidence_percent = Ppm::ALL, "experiment c: confidence_percent must be from 50 to 99.9999");
    wrong(|all| all.experiments[2].name = "c d".to_owned(), "a name is 1 to 64 letters");
    wrong(|all| all.experiments[2].name = "a".to_owned(), "experiment a: there are two of this name");
    wrong(|all| all.experiments[2].salt = all.experiments[0].salt.clone(), "experiment c: its salt is another one's too");
    wrong(|all| all.experiments[0].salt = all.layers[0].salt.clone(), "experiment a: its salt is another one's too");
    let on = |field: &str, equals: Option<&str>| {
        vec![Condition { field: field.to_owned(), equals: equals.map(str::to_owned), ..Condition::default() }]
    };
    for (when, says) in [
        (on("header", Some("x")), "experiment a, when header: field must be path, header:NAME, cookie:NAME or query:NAME"),
        (on("header:x-app", None), "experiment a, when header:x-app: must have exactly one of equals, one_of, prefix and present"),
        (on("path", Some("")), "experiment a, when path: a text must be 1 to 256 bytes"),
    ] {
        let mut all = some();
        all.experiments[0].when = when;
        assert!(Experiments::parse(&all.render()).unwrap_err().to_string().starts_with(says), "{says}");
    }
    let mut all = some();
    all.experiments[0].when = vec![Condition { field: "path".to_owned(), present: Some(false), ..Condition::default() }];
    assert!(Experiments::parse(&all.render()).unwrap_err().to_string().contains("every query has a path"));
    assert!(
        Experiments::parse("[]").is_err() && Experiments::parse(r#"{"more": 1}"#).unwrap_err().to_string().contains("unknown field `more`")
    );
}

#[test]
fn policies_see_no_salt() {
    let mut all = some();
    all.experiments[1].stopped_ms = Some(5);
    let shown = all.without_salts();
    assert!(!shown.contains("salt") && shown.contains(r#""name":"a""#) && !shown.contains(r#""name":"b""#), "{shown}");
}

#[test]
fn only_what_runs_needs_room() {
    let mut all = some();
    all.experiments.push(Experiment { stopped_ms: Some(5), ..experiment("d", "ranking", ("0", "100")) });
    assert_eq!(all.running().count(), 3);
    assert!(Experiments::parse(&all.render()).is_ok() && all.hold_the_rollouts_salt());
    all.experiments[2].stopped_ms = Some(7);
    assert!(!all.hold_the_rollouts_salt());
}

proptest! {
    /// Whatever the weights: bounds rise, end with everybody, and give each arm its part to the unit.
    #[test]
    fn arms_have_their_part(weights in prop::collection::vec(1..=WEIGHT, 2..=ARMS)) {
        let arms = weights.iter().enumerate().map(|(number, weight)| Arm { weight: *weight, ..arm(&format!("a{number}"), "live") });
        let experiment = Experiment { arms: arms.collect(), ..experiment("a", "rollout", ("0", "1")) };
        let all: u32 = weights.iter().sum();
        let mut before = 0;
        for (bound, weight) in experiment.bounds().zip(&weights) {
            let part = f64::from(bound - before) / 1e6;
            prop_assert!((part - f64::from(*weight) / f64::from(all)).abs() <= 1e-6);
            before = bound;
        }
        prop_assert_eq!(before, Ppm::ALL.get());
    }
}
