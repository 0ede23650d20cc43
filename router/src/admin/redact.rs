//! What viewers do not see: salts. Whoever knows one can pick user ids that land on the candidate.

use serde_json::Value;

use crate::config::{Config, Role};
use crate::flags::{Fields, LedgerEntry};

/// Stands where a salt was.
pub(super) const HIDDEN: &str = "(hidden)";

/// The fields as this role may see them: for viewers without salts, also those inside `experiments`.
pub(super) fn fields(mut fields: Fields, role: Role) -> Fields {
    if role == Role::Operator {
        return fields;
    }
    for (field, value) in &mut fields {
        match field.as_str() {
            "salt" => HIDDEN.clone_into(value),
            "experiments" => *value = experiments(value),
            _ => {}
        }
    }
    fields
}

/// The ledger as this role may see it. It hides salts by itself; what `experiments` was, it keeps in part.
pub(super) fn ledger(mut entries: Vec<LedgerEntry>, role: Role) -> Vec<LedgerEntry> {
    let changes = entries.iter_mut().flat_map(|entry| &mut entry.what);
    for change in changes.filter(|change| role == Role::Viewer && matches!(change.field.as_str(), "salt" | "experiments")) {
        for value in [&mut change.old, &mut change.new].into_iter().flatten() {
            HIDDEN.clone_into(value);
        }
    }
    entries
}

/// A config that holds no salt, and of URLs that `config show` prints whole, no login and no query.
pub(super) fn config(config: &Config) -> Config {
    let mut config = config.clone();
    for route in &mut config.routes {
        route.initial = fields(std::mem::take(&mut route.initial), Role::Viewer);
    }
    config
}

/// A value of the config as it may leave the house: a URL in it without login and query.
pub(super) fn urls(value: &str) -> String {
    let mut shown = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let url = after.split(['"', ' ', ',']).next().unwrap_or_default();
        let host = url.split(['/', '?']).next().unwrap_or_default();
        let without_login = host.rsplit_once('@').map_or(url, |(login, _)| url.get(login.len() + 1..).unwrap_or_default());
        match without_login.split_once('?') {
            Some((path, _)) => shown.push_str(&format!("{path}?{HIDDEN}")),
            None => shown.push_str(without_login),
        }
        rest = after.get(url.len()..).unwrap_or_default();
    }
    shown.push_str(rest);
    shown
}

/// Text that is no JSON may hold a salt anywhere: all of it is hidden.
fn experiments(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return HIDDEN.to_owned() };
    hide_salts(&mut value);
    value.to_string()
}

fn hide_salts(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                if key.to_ascii_lowercase().contains("salt") {
                    *inner = Value::from(HIDDEN);
                } else {
                    hide_salts(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_salts),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_login_and_query() {
        let shown = urls(r#"["http://a:9/x", "https://me:pass@h/y?token=1"]"#);
        assert_eq!(shown, r#"["http://a:9/x", "https://h/y?(hidden)"]"#);
        assert_eq!(urls("\"30s\""), "\"30s\"");
    }

    #[test]
    fn a_viewer_sees_no_salt_wherever_it_stands() {
        let read = |experiments: &str| {
            let all = [("salt", "s3cret"), ("live", "blue"), ("experiments", experiments)];
            Fields::from(all.map(|(field, value)| (field.to_owned(), value.to_owned())))
        };
        let all = read(r#"{"a":{"salt":"s3cret","arms":[{"Salt2":"s3cret","share":1}]}}"#);
        let seen = fields(all.clone(), Role::Viewer);
        assert!(!format!("{seen:?}").contains("s3cret"), "{seen:?}");
        assert_eq!(seen.get("live").map(String::as_str), Some("blue"));
        assert!(seen.get("experiments").is_some_and(|text| text.contains(r#""share":1"#)));
        assert!(!format!("{:?}", fields(read("s3cret, no JSON"), Role::Viewer)).contains("s3cret"));
        assert_eq!(fields(all.clone(), Role::Operator), all);
    }
}
