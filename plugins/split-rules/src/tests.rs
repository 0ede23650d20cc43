//! What rules promise: which query goes where, what is asked for, and what is said of a wrong config.

use proptest::prelude::*;
use serde_json::{Value, json};
use switchback_policy::split::{POSITIONS, Share};

use super::*;

const POOLS: [&str; 4] = ["blue", "green", "canary", "semantic"];
const SEMANTIC: u32 = 3;

fn flags(config: &Value, features: &[(&str, &str)]) -> Snapshot {
    Snapshot {
        route: "search".to_owned(),
        epoch: 1,
        pools: POOLS.map(str::to_owned).to_vec(),
        live: 0,
        candidate: Some(Share { pool: 2, ppm: 250_000 }),
        holdback: Some(Share { pool: 1, ppm: 100_000 }),
        features: features.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        experiments: None,
        config: config.to_string(),
    }
}

fn configured(config: &Value, features: &[(&str, &str)]) -> (RuleSplit, Wanted) {
    RuleSplit::configure(&flags(config, features)).unwrap_or_else(|why| panic!("{config}: {why}"))
}

/// One rule with these conditions, to the pool `semantic`.
fn rule(when: Value) -> Value {
    json!({ "rules": [{ "name": "beta", "when": when, "pool": "semantic" }] })
}

/// Whether the rule takes a query with these fields, in the order of the conditions.
fn takes(when: Value, fields: &[Option<&str>]) -> bool {
    configured(&rule(when), &[]).0.route_fields(&[500_000], fields) == Decision { pool: SEMANTIC, reason: Reason::Rule, arm: None }
}

#[test]
fn each_test_holds_for_what_it_says_and_for_nothing_else() {
    let equals = json!([{ "field": "header:X-Beta", "equals": "1" }]);
    assert!(takes(equals.clone(), &[Some("1")]) && !takes(equals.clone(), &[Some("11")]) && !takes(equals, &[None]));
    let one_of = json!([{ "field": "cookie:group", "one_of": ["a", "b"] }]);
    assert!(takes(one_of.clone(), &[Some("b")]) && !takes(one_of.clone(), &[Some("c")]) && !takes(one_of, &[None]));
    let prefix = json!([{ "field": "path", "prefix": "/images/" }]);
    assert!(takes(prefix.clone(), &[Some("/images/cats")]) && !takes(prefix.clone(), &[Some("/image")]) && !takes(prefix, &[None]));
    let present = json!([{ "field": "query:debug", "present": true }]);
    assert!(takes(present.clone(), &[Some("")]) && !takes(present, &[None]));
    let absent = json!([{ "field": "query:debug", "present": false }]);
    assert!(takes(absent.clone(), &[None]) && !takes(absent, &[Some("")]));
}

#[test]
fn all_conditions_must_hold_and_the_first_rule_wins() {
    let both = json!([{ "field": "header:a", "equals": "1" }, { "field": "header:b", "equals": "2" }]);
    assert!(takes(both.clone(), &[Some("1"), Some("2")]));
    assert!(!takes(both.clone(), &[Some("1"), Some("3")]) && !takes(both, &[Some("1"), None]));
    let config = json!({ "rules": [
        { "name": "first", "when": [{ "field": "header:a", "prefix": "x" }], "pool": "green" },
        { "name": "second", "when": [{ "field": "header:a", "equals": "xy" }], "pool": "semantic" },
    ] });
    let (split, wanted) = configured(&config, &[]);
    assert_eq!(wanted.fields, [Field::Header("a".to_owned())], "one field, although two rules look at it");
    assert_eq!(split.route_fields(&[0], &[Some("xy")]).pool, 1);
}

#[test]
fn a_locale_is_the_one_that_is_liked_best_by_the_first_source_that_says_one() {
    let german = json!([{ "field": "locale", "equals": "de" }]);
    assert!(takes(german.clone(), &[Some("de-AT,de;q=0.9,en;q=0.8")]));
    assert!(!takes(german.clone(), &[Some("en-GB,de;q=0.9")]), "German is only the second choice");
    assert!(!takes(german.clone(), &[None]) && !takes(german.clone(), &[Some("*")]));
    assert!(takes(json!([{ "field": "locale", "one_of": ["fr", "en-GB"] }]), &[Some("EN-gb")]));
    assert!(takes(json!([{ "field": "locale", "present": false }]), &[Some("*")]));
    let mut config = rule(german);
    config["locale"] = json!(["cookie:lang", "header:Accept-Language"]);
    let (split, wanted) = configured(&config, &[]);
    assert_eq!(wanted.fields, [Field::Cookie("lang".to_owned()), Field::Header("accept-language".to_owned())]);
    let pool = |cookie: Option<&str>, header: &str| split.route_fields(&[500_000], &[cookie, Some(header)]).pool;
    assert_eq!(pool(Some("de"), "en"), SEMANTIC, "the cookie says it");
    assert_eq!(pool(Some("en"), "de"), 0, "the cookie says otherwise");
    assert_eq!(pool(Some("?"), "de"), SEMANTIC, "the cookie says nothing");
}

#[test]
fn a_rule_whose_flag_is_off_asks_for_nothing_and_takes_nobody() {
    let config = json!({ "rules": [
        { "name": "semantic", "flag": "semantic", "when": [{ "field": "header:x-beta", "present": true }], "pool": "semantic" },
        { "name": "all", "flag": { "name": "everybody", "values": ["to-green"] }, "pool": "green" },
    ] });
    let (split, wanted) = configured(&config, &[("semantic", "off"), ("everybody", "on")]);
    assert_eq!(wanted, Wanted { salts: vec![Salt::Rollout], fields: Vec::new() }, "the cheap call");
    assert_eq!(split.route(500_000), Decision { pool: 0, reason: Reason::Live, arm: None });
    let (split, wanted) = configured(&config, &[("semantic", "on")]);
    assert_eq!(wanted.fields, [Field::Header("x-beta".to_owned())]);
    assert_eq!(split.route_fields(&[500_000], &[Some("")]).pool, SEMANTIC);
    let (split, wanted) = configured(&config, &[("everybody", "to-green")]);
    assert!(wanted.fields.is_empty(), "a flag alone needs no field");
    assert_eq!(split.route(0), Decision { pool: 1, reason: Reason::Rule, arm: None });
}

#[test]
fn what_is_wrong_is_said_with_rule_key_value_and_what_is_allowed() {
    let beta = |key: &str, value: Value| {
        let mut config = rule(json!([{ "field": "path", "equals": "/" }]));
        config["rules"][0][key] = value;
        config
    };
    let when = |condition: Value| rule(json!([condition]));
    let cases = [
        (beta("pool", json!("gren")), "rules.beta.pool = \"gren\": must be one of the route's pools: blue, green, canary, semantic"),
        (beta("name", json!("Beta")), "rules[0].name = \"Beta\": must be 1 to 64 of a-z"),
        (beta("pol", json!("green")), "rules.beta.pol = \"green\": unknown key; allowed are name, when, flag, pool"),
        (beta("flag", json!("")), "rules.beta.flag = \"\": must be a feature flag's name"),
        (beta("flag", json!({ "name": "f", "values": [] })), "rules.beta.flag.values = []: must be a list of 1 to 16 entries"),
        (beta("when", json!([])), "rules.beta.when = []: must be a list of 1 to 16 entries"),
        (
            when(json!({ "field": "header:a b", "present": true })),
            "rules.beta.when[0].field = \"header:a b\": must be \"path\", \"header:NAME\"",
        ),
        (when(json!({ "equals": "1" })), "rules.beta.when[0].field is missing: must be \"path\""),
        (when(json!({ "field": "path" })), "rules.beta.when[0] = {\"field\":\"path\"}: must have exactly one of"),
        (when(json!({ "field": "path", "equals": "a", "prefix": "b" })), "must have exactly one of equals, one_of, prefix and present"),
        (when(json!({ "field": "path", "equals": 1 })), "rules.beta.when[0].equals = 1: must be text of 1 to 256 bytes"),
        (when(json!({ "field": "path", "one_of": ["a", ""] })), "rules.beta.when[0].one_of[1] = \"\": must be text"),
        (when(json!({ "field": "path", "present": "yes" })), "rules.beta.when[0].present = \"yes\": must be true or false"),
        (when(json!({ "field": "path", "regex": "a" })), "rules.beta.when[0].regex = \"a\": unknown key"),
        (when(json!({ "field": "locale", "equals": "de*" })), "rules.beta.when[0].equals = \"de*\": must be a language tag"),
        (when(json!({ "field": "locale", "prefix": "de" })), "rules.beta.when[0].prefix = \"de\": a locale has no prefix"),
        (json!({ "rules": [{ "name": "a", "pool": "green" }] }), "rules.a.when is missing: a rule needs conditions or a flag"),
        (json!({ "rules": ["a"] }), "rules[0] = \"a\": must be a table"),
        (json!({ "locale": ["path"] }), "locale[0] = \"path\": must be \"header:NAME\""),
        (json!({ "rule": [] }), "rule = []: unknown key; allowed are rules, locale"),
        (json!([]), "split_config = []: must be a table"),
    ];
    for (config, expected) in cases {
        let why = RuleSplit::configure(&flags(&config, &[])).map(|_| ()).expect_err(&config.to_string());
        assert!(why.contains(expected), "{config}: {why}");
    }
    let twice = json!({ "rules": [{ "name": "a", "flag": "f", "pool": "green" }, { "name": "a", "flag": "f", "pool": "green" }] });
    let pools = POOLS.map(str::to_owned);
    let problems = check(&twice.to_string(), &pools).expect_err("two of one name");
    assert_eq!(problems.first().map(|problem| problem.key.as_str()), Some("rules[1].name"));
    assert!(check("{", &pools).is_err_and(|problems| problems.iter().any(|problem| problem.allowed.contains("must be JSON"))));
}

#[test]
fn rules_look_at_no_more_fields_than_the_host_gives() {
    let config = |fields: usize| {
        let rule = |index: usize| json!({ "name": format!("r{index}"), "when": [{ "field": format!("header:h{index}"), "equals": "1" }], "pool": "green" });
        json!({ "rules": (0..fields).map(rule).collect::<Vec<_>>() })
    };
    let pools = POOLS.map(str::to_owned);
    assert!(check(&config(16).to_string(), &pools).is_ok());
    let problems = check(&config(17).to_string(), &pools).expect_err("17 fields");
    assert!(problems.iter().any(|problem| problem.allowed.contains("16 different fields at most")), "{problems:?}");
}

/// A share of nobody, of everybody, and everything between.
fn share() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(POSITIONS), 0..=POSITIONS]
}

proptest! {
    /// Whatever the flags, and whatever stands in the fields that no rule is met by.
    #[test]
    fn with_no_rule_that_takes_the_query_it_decides_as_split_weighted(
        candidate in share(), holdback in share(), live in 0_u32..2, position in 0..POSITIONS,
        value in proptest::option::of("[a-z]{0,8}"), is_on in any::<bool>(),
    ) {
        let config = json!({ "rules": [
            { "name": "a", "when": [{ "field": "header:a", "one_of": ["YES", "ALWAYS"] }], "pool": "semantic" },
            { "name": "b", "flag": "b", "when": [{ "field": "cookie:b", "prefix": "NO-" }], "pool": "green" },
            { "name": "c", "flag": "never", "pool": "green" },
        ] });
        let on: &[(&str, &str)] = if is_on { &[("b", "on")] } else { &[] };
        let snapshot = Snapshot {
            live,
            candidate: Some(Share { pool: 2, ppm: candidate }),
            holdback: Some(Share { pool: 1 - live, ppm: holdback }),
            ..flags(&config, on)
        };
        let (split, wanted) = RuleSplit::configure(&snapshot).map_err(TestCaseError::fail)?;
        let (weighted, _) = WeightedSplit::configure(&snapshot).map_err(TestCaseError::fail)?;
        let fields = vec![value.as_deref(); wanted.fields.len()];
        prop_assert_eq!(split.route_fields(&[position], &fields), weighted.route(position));
    }

    /// A rule holds for the query, not for the share: who is taken by one stays there while the candidate grows.
    #[test]
    fn who_a_rule_takes_stays_there_whatever_the_shares(candidate in share(), holdback in share(), position in 0..POSITIONS) {
        let snapshot = Snapshot {
            candidate: Some(Share { pool: 2, ppm: candidate }),
            holdback: Some(Share { pool: 1, ppm: holdback }),
            ..flags(&rule(json!([{ "field": "header:a", "equals": "1" }])), &[])
        };
        let (split, _) = RuleSplit::configure(&snapshot).map_err(TestCaseError::fail)?;
        prop_assert_eq!(split.route_fields(&[position], &[Some("1")]).pool, SEMANTIC);
    }

    /// Nothing that somebody sends makes it trap: it only reads.
    #[test]
    fn any_text_has_an_answer(text in any::<String>(), position in 0..POSITIONS) {
        let when = json!([{ "field": "locale", "one_of": ["de", "en-GB"] }, { "field": "path", "prefix": "/ä" }]);
        let (split, wanted) = configured(&rule(when), &[]);
        let fields = vec![Some(text.as_str()); wanted.fields.len()];
        prop_assert!(split.route_fields(&[position], &fields).pool < 4);
    }

    #[test]
    fn any_config_is_read_or_refused(text in any::<String>()) {
        let _ = check(&text, &POOLS.map(str::to_owned));
    }
}
