//! `[route.initial]`: the flags that a store without any gets. Held to the rules that the flags themselves have.

use std::collections::BTreeMap;

use crate::vocabulary::Ppm;

use super::check::Checker;
use super::checked::Pool;

const FIELDS: &str = "must be one of live, candidate_pool, canary_percent, holdback_pool, holdback_percent, mirror_percent, pin, freeze, \
                      salt, split_policy, rollback_policy, experiments, flag.NAME";
const PERCENT_RULE: &str = "must be a percentage from \"0\" to \"100\" with up to 4 decimals, like \"2.5\"";

const CAN_BE_EMPTY: [&str; 7] =
    ["candidate_pool", "holdback_pool", "pin", "canary_percent", "holdback_percent", "mirror_percent", "freeze"];

pub(super) fn check_initial(
    checker: &mut Checker,
    key: &str,
    mut initial: BTreeMap<String, String>,
    pools: &[Pool],
) -> BTreeMap<String, String> {
    let colour = pools.iter().map(|pool| pool.name.as_str()).find(|name| matches!(*name, "blue" | "green"));
    let Some(colour) = colour else {
        checker.missing(&format!("{key}.pools.blue"), "a route needs a pool `blue` or `green`: `live` points at one of them");
        return initial;
    };
    initial.entry("live".to_owned()).or_insert_with(|| colour.to_owned());
    for (field, value) in &initial {
        check_field(checker, &format!("{key}.initial.{field}"), field, value, pools);
    }
    initial
}

fn check_field(checker: &mut Checker, key: &str, field: &str, value: &str, pools: &[Pool]) {
    // As in a change of flags, an empty value leaves a field at its default, and `none` is no pin.
    if matches!((field, value), ("pin", "none")) || (value.is_empty() && CAN_BE_EMPTY.contains(&field)) {
        return;
    }
    let is_pool = pools.iter().any(|pool| pool.name == value);
    match field {
        "live" if !is_pool || !matches!(value, "blue" | "green") => {
            checker.refuse(key, value, "must be \"blue\" or \"green\", and a pool of this route");
        }
        "candidate_pool" | "holdback_pool" | "pin" if !is_pool => {
            let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
            checker.refuse(key, value, format!("must be a pool of this route: {}", names.join(", ")));
        }
        "canary_percent" | "holdback_percent" | "mirror_percent" if Ppm::from_percent(value).is_none() => {
            checker.refuse(key, value, PERCENT_RULE);
        }
        "freeze" if !matches!(value, "true" | "false") => checker.refuse(key, value, "must be \"true\" or \"false\""),
        "live" | "candidate_pool" | "holdback_pool" | "pin" | "canary_percent" | "holdback_percent" | "mirror_percent" | "freeze" => {}
        "salt" | "split_policy" | "rollback_policy" | "experiments" => {}
        field if field.strip_prefix("version.").is_some() => checker.refuse(key, value, "must stand as `version` of the pool"),
        field if field.strip_prefix("flag.").is_some_and(|name| !name.is_empty()) => {}
        _ => checker.refuse(key, value, FIELDS),
    }
}
