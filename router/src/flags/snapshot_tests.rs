//! Properties of reading flags: each field by itself, the last good value kept, and nothing that bytes can do to it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Change, Fields, Flags, PolicyRef, edit};
use crate::config::{self, Route};
use crate::vocabulary::{PoolIndex, Ppm};

/// A route with blue, green, canary and a pool of its own.
pub(super) fn route() -> Route {
    let pools: String = ["blue", "green", "canary", "eu-test"]
        .iter()
        .map(|name| format!("[route.pools.{name}]\nendpoints = [\"http://127.0.0.1:1\"]\n"))
        .collect();
    let text = format!("[listen]\ntraffic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[[route]]\nname = \"search\"\n{pools}");
    config::parse("test.toml", &text).unwrap().routes.remove(0)
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const EXPERIMENTS: &str = r#"{"layers": [{"name": "l", "salt": "12345678"}], "experiments": [{"name": "e", "layer": "l", "salt": "abcdefgh", "percent": "2.5",
    "arms": [{"name": "a", "pool": "live"}, {"name": "b", "version": "v2"}]}]}"#;

/// For each field: values that are obeyed there.
fn good_value(field: &'static str) -> BoxedStrategy<String> {
    match field {
        "live" => prop_oneof!["blue", "green"].boxed(),
        "candidate_pool" | "holdback_pool" | "pin" => prop_oneof!["blue", "green", "canary", "eu-test"].boxed(),
        "canary_percent" | "holdback_percent" | "mirror_percent" => {
            (0u32..=1_000_000).prop_map(|ppm| Ppm::new(ppm).unwrap().to_string()).boxed()
        }
        "freeze" => prop_oneof!["true", "false"].boxed(),
        "salt" => "[!-~]{8,128}".boxed(),
        "split_policy" | "rollback_policy" => prop_oneof!["[a-z0-9_-]{1,64}".boxed(), "[a-z]{1,9}@[0-9a-f]{64}".boxed()].boxed(),
        "experiments" => prop_oneof![Just("{}".to_owned()), Just(EXPERIMENTS.to_owned())].boxed(),
        "epoch" => (0u64..1 << 48).prop_map(|epoch| epoch.to_string()).boxed(),
        _ => "[ -~]{0,40}".boxed(),
    }
}

const ALL: [&str; 14] = [
    "live",
    "candidate_pool",
    "canary_percent",
    "holdback_pool",
    "holdback_percent",
    "mirror_percent",
    "pin",
    "freeze",
    "salt",
    "split_policy",
    "rollback_policy",
    "experiments",
    "epoch",
    "flag.beta",
];

/// Some fields, each with a value that is obeyed.
pub(super) fn good_fields() -> impl Strategy<Value = Fields> {
    let each: Vec<_> = ALL.iter().map(|field| proptest::option::of(good_value(field))).collect();
    each.prop_map(|values| ALL.iter().zip(values).filter_map(|(field, value)| Some(((*field).to_owned(), value?))).collect())
}

/// What a store may hand over: known names and any others, any bytes as text.
fn any_fields() -> impl Strategy<Value = Fields> {
    let bytes = vec(any::<u8>(), 0..80).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let name = prop_oneof![4 => proptest::sample::select(&ALL[..]).prop_map(str::to_owned), 1 => bytes.clone(), 1 => "flag\\.[ -~]{0,70}"];
    let words = "(blue|green|canary|true|100|1e3|-0|none|\\{\\}|NaN| 5|5 |0x1|18446744073709551616)";
    btree_map(name, prop_oneof![bytes, words.prop_map(|word: String| word), "[0-9.]{1,12}".prop_map(|number: String| number)], 0..30)
}

fn flags() -> impl Strategy<Value = Flags> {
    good_fields().prop_map(|fields| Flags::read(&fields, &Flags::initial(&route()), &route()).0)
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(fields in any_fields(), last_good in flags()) {
        let route = route();
        let (flags, faults) = Flags::read(&fields, &last_good, &route);
        prop_assert!(flags.live.get() < 2);
        prop_assert!(flags.candidate.pool.get() < 4 && flags.holdback.is_none_or(|holdback| holdback.pool.get() < 4 && holdback.pool != flags.live));
        prop_assert!(flags.pin.is_none_or(|pin| pin.get() < 4));
        prop_assert!(faults.iter().all(|fault| fields.contains_key(&fault.field) && fault.value.chars().count() <= 64));
        let (again, _) = Flags::read(&fields, &flags, &route);
        prop_assert_eq!(again, flags, "reading the same hash again changes nothing");
    }

    #[test]
    fn good_values_are_obeyed_whatever_came_before(fields in good_fields(), last_good in flags()) {
        let (flags, faults) = Flags::read(&fields, &last_good, &route());
        prop_assert_eq!(faults, []);
        let text = |field: &str| fields.get(field).map(String::as_str);
        if let Some(live) = text("live") {
            prop_assert_eq!(flags.live, route().pool_named(live).unwrap());
        }
        prop_assert_eq!(flags.candidate.share, text("canary_percent").map_or(Ppm::ZERO, |text| Ppm::from_percent(text).unwrap()));
        prop_assert_eq!(flags.candidate.pool, route().pool_named(text("candidate_pool").unwrap_or("canary")).unwrap());
        prop_assert_eq!(flags.mirror, text("mirror_percent").map_or(Ppm::ZERO, |text| Ppm::from_percent(text).unwrap()));
        prop_assert_eq!(flags.pin, text("pin").map(|pin| route().pool_named(pin).unwrap()));
        prop_assert_eq!(flags.is_frozen, text("freeze") == Some("true"));
        prop_assert_eq!(&flags.split_policy, &text("split_policy").map_or(PolicyRef::named("split-weighted"), |text| PolicyRef::parse(text).unwrap()));
        prop_assert_eq!(flags.features.get("beta").map(String::as_str), text("flag.beta"));
    }

    #[test]
    fn one_fields_garbage_is_that_fields_matter_alone(fields in good_fields(), last_good in flags(), spoilt in 0..ALL.len() - 1, garbage in "[~\u{fffd}]{3,2000}") {
        let (field, route) = (ALL[spoilt], route());
        prop_assume!(field != "salt" || garbage.len() > 128 || garbage.contains('\u{fffd}'));
        let mut hash = fields;
        hash.insert(field.to_owned(), garbage);
        let (flags, faults) = Flags::read(&hash, &last_good, &route);
        prop_assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), [field]);

        // The same with the last good value written out in place of the garbage.
        let good = last_good.render(&route);
        match good.get(field) {
            Some(value) => hash.insert(field.to_owned(), value.clone()),
            None => hash.remove(field),
        };
        let (expected, faults) = Flags::read(&hash, &last_good, &route);
        prop_assert_eq!(faults, []);
        prop_assert_eq!(flags, expected);
    }

    #[test]
    fn flags_read_back_as_they_were_rendered(flags in flags(), other in flags()) {
        prop_assume!(!flags.salt.is_empty());
        let rendered = flags.render(&route());
        prop_assert_eq!(Flags::read(&rendered, &other, &route()), (flags, vec![]));
    }

    #[test]
    fn a_change_is_made_whole_or_refused_whole(current in any_fields(), changed in any_fields(), known in flags()) {
        let change = Change {
            fields: changed.into_iter().map(|(field, value)| (field, Some(value))).collect(),
            expected_epoch: None,
            who: "alice".to_owned(),
            why: String::new(),
            ..Change::default()
        };
        match edit::apply(&current, &change, &known, &route()) {
            Ok(after) => {
                let (_, faults) = Flags::read(&after, &known, &route());
                prop_assert!(faults.iter().all(|fault| !change.fields.contains_key(&fault.field)), "what was accepted is obeyed");
                prop_assert!(change.fields.iter().all(|(field, value)| after.get(field) == value.as_ref()));
                prop_assert_eq!(after.get("epoch"), current.get("epoch"));
            }
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }
}

#[test]
fn an_absent_field_is_its_default_but_live_and_salt_stay() {
    let all = [("live", "green"), ("canary_percent", "5"), ("holdback_pool", "blue"), ("holdback_percent", "5"), ("pin", "canary")];
    let more = [("freeze", "true"), ("salt", "12345678"), ("mirror_percent", "1"), ("flag.a", "b"), ("experiments", "{}"), ("epoch", "4")];
    let (full, _) = Flags::read(&fields(&[&all[..], &more[..]].concat()), &Flags::initial(&route()), &route());
    let (flags, faults) = Flags::read(&Fields::new(), &full, &route());
    let initial = Flags::initial(&route());
    assert_eq!(flags, Flags { live: PoolIndex(1), salt: "12345678".to_owned(), epoch: 4, ..initial });
    assert_eq!(faults, []);
}

#[test]
fn a_holdback_on_the_live_pool_is_none() {
    let holdback = |pool| {
        let hash = fields(&[("live", "green"), ("holdback_pool", pool), ("holdback_percent", "5")]);
        Flags::read(&hash, &Flags::initial(&route()), &route()).0.holdback.map(|holdback| holdback.pool)
    };
    assert_eq!((holdback("green"), holdback("blue")), (None, Some(PoolIndex(0))));
}

#[test]
fn more_than_256_feature_flags_are_faults_and_stay_bounded() {
    let hash = |letter: char| -> Fields { (0..300).map(|index| (format!("flag.{letter}{index:03}"), "x".to_owned())).collect() };
    let (first, faults) = Flags::read(&hash('m'), &Flags::initial(&route()), &route());
    assert_eq!((first.features.len(), faults.len()), (256, 44));
    let both: Fields = hash('a').into_iter().chain(hash('m')).collect();
    assert_eq!(Flags::read(&both, &first, &route()).0.features.len(), 256);
}

#[test]
fn a_change_of_live_takes_everybody_off_candidate_and_holdback_unless_it_says_otherwise() {
    let current = fields(&[("live", "blue"), ("canary_percent", "25"), ("holdback_percent", "5")]);
    let after = |pairs: &[(&str, &str)]| {
        let fields = fields(pairs).into_iter().map(|(field, value)| (field, Some(value))).collect();
        let change = Change { fields, who: "alice".to_owned(), ..Change::default() };
        let after = edit::apply(&current, &change, &Flags::initial(&route()), &route()).unwrap();
        (after["canary_percent"].clone(), after["holdback_percent"].clone())
    };
    let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
    assert_eq!(after(&[("live", "green")]), pair("0", "0"));
    assert_eq!(after(&[("live", "green"), ("holdback_percent", "2")]), pair("0", "2"));
    assert_eq!(after(&[("live", "blue")]), pair("25", "5"), "no flip");
    assert_eq!(after(&[("freeze", "true")]), pair("25", "5"));
}

#[test]
fn a_change_is_refused_with_every_fault() {
    let pairs = [("live", "purple"), ("canary_percent", "101"), ("epoch", "9"), ("seal", "x"), ("liv", "blue"), ("flag.", "x")];
    let mut change = Change {
        fields: pairs.iter().map(|(field, value)| ((*field).to_owned(), Some((*value).to_owned()))).collect(),
        ..Change::default()
    };
    change.fields.insert("salt".to_owned(), None);
    let faults = edit::apply(&Fields::new(), &change, &Flags::initial(&route()), &route()).unwrap_err();
    let mut named: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, ["canary_percent", "epoch", "flag.", "liv", "live", "salt", "seal", "who"]);
}

#[test]
fn shares_that_cannot_both_be_given_are_refused_whichever_is_changed() {
    let current = fields(&[("live", "blue"), ("candidate_pool", "green"), ("canary_percent", "70"), ("holdback_pool", "canary")]);
    let faults = |current: &Fields, field: &str, value: &str| {
        let change = Change { fields: [(field.to_owned(), Some(value.to_owned()))].into(), who: "alice".to_owned(), ..Change::default() };
        let faults = edit::apply(current, &change, &Flags::initial(&route()), &route()).err().unwrap_or_default();
        faults.into_iter().map(|fault| (fault.field, fault.allowed)).collect::<Vec<_>>()
    };
    assert_eq!(faults(&current, "holdback_percent", "30"), []);
    let refused = faults(&current, "holdback_percent", "30.0001");
    assert_eq!(refused[0].0, "holdback_percent");
    assert!(refused[0].1.ends_with("canary_percent 70 leaves 30"), "{refused:?}");
    let full = current.into_iter().chain(fields(&[("holdback_percent", "30")])).collect();
    assert_eq!(faults(&full, "canary_percent", "71")[0].0, "canary_percent");
    let over: Fields = full.into_iter().chain(fields(&[("canary_percent", "71")])).collect();
    assert_eq!(faults(&over, "freeze", "true"), [], "a hand edit that is over holds up no other change");
    assert_eq!(Flags::read(&over, &Flags::initial(&route()), &route()).0.cut_holdback(), Ppm::from_percent("29"));
}

#[test]
fn a_257th_feature_flag_is_refused_and_those_that_are_there_may_change_and_go() {
    let full: Fields = (0..256).map(|index| (format!("flag.f{index:03}"), "on".to_owned())).collect();
    let change = |pairs: &[(&str, Option<&str>)]| {
        let fields = pairs.iter().map(|(field, value)| ((*field).to_owned(), value.map(str::to_owned))).collect();
        let change = Change { fields, who: "alice".to_owned(), ..Change::default() };
        edit::apply(&full, &change, &Flags::initial(&route()), &route())
    };
    let faults = change(&[("flag.a", Some("on"))]).unwrap_err();
    assert_eq!((faults[0].field.as_str(), faults[0].allowed.as_str()), ("flag.a", "at most 256 flags flag.<name>; take one away first"));
    assert_eq!(change(&[("flag.f007", Some("off"))]).unwrap()["flag.f007"], "off");
    assert_eq!(change(&[("flag.f007", None), ("flag.a", Some("on"))]).unwrap().len(), 256);
    assert!(change(&[("freeze", Some("true"))]).is_ok());
}
