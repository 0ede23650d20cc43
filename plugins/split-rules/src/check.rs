//! Reads a `split_config`, and says of everything in it that makes no sense where it is and what is allowed.

use serde_json::{Map, Value};
use switchback_policy::split::Field;

use super::locale;
use super::rules::{Condition, Flag, Problem, Rule, Rules, Subject, Test};

/// Rules of one route.
const RULES: usize = 64;
/// Conditions of one rule, sources of a locale, and values that a flag may have.
const FEW: usize = 16;
/// Values of a `one_of`.
const VALUES: usize = 64;
/// Different fields that all rules together ask for: the host gives a policy no more.
const FIELDS: usize = 16;
/// The longest text in a rule, in bytes.
const TEXT_BYTES: usize = 256;
/// The longest name of a field, in bytes: the host takes no longer one.
const NAME_BYTES: usize = 128;
/// What a flag must be for a rule that says no values.
const ON: [&str; 3] = ["on", "true", "1"];

const FIELD_RULE: &str = "must be \"path\", \"header:NAME\", \"cookie:NAME\", \"query:NAME\" or \"locale\"";
const SOURCE_RULE: &str = "must be \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
const NAME_RULE: &str = "must be 1 to 64 of a-z, 0-9, - and _, starting with a letter";
const FLAG_RULE: &str =
    "must be a feature flag's name, 1 to 64 printable characters, or a table like { name = \"semantic\", values = [\"on\"] }";
const TEST_RULE: &str = "must have exactly one of equals, one_of, prefix and present";
const TEXT_RULE: &str = "must be text of 1 to 256 bytes";
const TAG_RULE: &str = "must be a language tag like \"de\" or \"en-GB\"";

/// Reads a `split_config` (JSON text) for a route with these pools.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(config: &str, pools: &[String]) -> Result<Rules, Vec<Problem>> {
    let mut reader = Reader { pools, problems: Vec::new() };
    let rules = match serde_json::from_str(config) {
        Ok(Value::Object(config)) => reader.config(&config),
        Ok(other) => {
            reader.refuse("", &other, "must be a table");
            Rules::default()
        }
        Err(error) => {
            reader.refuse("", &Value::from(config), format!("must be JSON: {error}"));
            Rules::default()
        }
    };
    if reader.problems.is_empty() { Ok(rules) } else { Err(reader.problems) }
}

/// Collects what is wrong, and goes on.
struct Reader<'a> {
    pools: &'a [String],
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn refuse(&mut self, key: &str, value: &Value, allowed: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), value: value.to_string(), allowed: allowed.into() });
    }

    fn missing(&mut self, key: &str, allowed: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), value: String::new(), allowed: allowed.into() });
    }

    /// Refuses keys that nobody reads: most are misspelt.
    fn only(&mut self, at: &str, table: &Map<String, Value>, known: &[&str]) {
        for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let key = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            self.refuse(&key, value, format!("unknown key; allowed are {}", known.join(", ")));
        }
    }

    /// A list of at least one; what `read` refuses is left out.
    fn list<T>(&mut self, key: &str, written: &Value, most: usize, mut read: impl FnMut(&mut Self, &str, &Value) -> Option<T>) -> Vec<T> {
        let items = match written.as_array() {
            Some(items) if (1..=most).contains(&items.len()) => items,
            _ => {
                self.refuse(key, written, format!("must be a list of 1 to {most} entries"));
                return Vec::new();
            }
        };
        items.iter().enumerate().filter_map(|(index, item)| read(self, &format!("{key}[{index}]"), item)).collect()
    }

    fn config(&mut self, config: &Map<String, Value>) -> Rules {
        self.only("", config, &["rules", "locale"]);
        let locale = match config.get("locale") {
            None => vec![Field::Header("accept-language".to_owned())],
            Some(written) => self.list("locale", written, FEW, |reader, key, source| {
                let field = source.as_str().and_then(field).filter(|field| *field != Field::Path);
                if field.is_none() {
                    reader.refuse(key, source, SOURCE_RULE);
                }
                field
            }),
        };
        let mut names = Vec::new();
        let rules = config.get("rules").map_or_else(Vec::new, |written| {
            self.list("rules", written, RULES, |reader, key, rule| {
                let Value::Object(rule) = rule else {
                    reader.refuse(key, rule, "must be a table with name, pool, and when or flag");
                    return None;
                };
                let at = reader.name(key, rule.get("name"), &mut names);
                reader.rule(&at, rule)
            })
        });
        self.count_fields(&rules, &locale);
        Rules { rules, locale }
    }

    /// The host gives a policy 16 fields at most; so many must do for all rules, as all flags may be on at once.
    fn count_fields(&mut self, rules: &[Rule], locale: &[Field]) {
        let mut fields: Vec<&Field> = Vec::new();
        for condition in rules.iter().flat_map(|rule| &rule.when) {
            let asked = match &condition.subject {
                Subject::Field(field) => std::slice::from_ref(field),
                Subject::Locale => locale,
            };
            for field in asked {
                if !fields.contains(&field) {
                    fields.push(field);
                }
            }
        }
        if fields.len() > FIELDS {
            self.refuse("rules", &Value::from(fields.len()), format!("must look at {FIELDS} different fields at most, all rules together"));
        }
    }

    /// Where a rule is in messages: by its name, when it has a usable one.
    fn name(&mut self, key: &str, name: Option<&Value>, names: &mut Vec<String>) -> String {
        let at = format!("{key}.name");
        let Some(name) = name else {
            self.missing(&at, NAME_RULE);
            return key.to_owned();
        };
        match name.as_str().filter(|name| is_name(name)) {
            None => self.refuse(&at, name, NAME_RULE),
            Some(text) if names.iter().any(|taken| taken == text) => self.refuse(&at, name, "must be given to one rule only"),
            Some(text) => {
                names.push(text.to_owned());
                return format!("rules.{text}");
            }
        }
        key.to_owned()
    }

    fn rule(&mut self, at: &str, written: &Map<String, Value>) -> Option<Rule> {
        self.only(at, written, &["name", "when", "flag", "pool"]);
        let when = written.get("when").map(|when| self.list(&format!("{at}.when"), when, FEW, Reader::condition));
        let flag = written.get("flag").map(|flag| self.flag(&format!("{at}.flag"), flag));
        if when.is_none() && flag.is_none() {
            self.missing(&format!("{at}.when"), "a rule needs conditions or a flag, or it would take every query");
        }
        let pool = self.pool(&format!("{at}.pool"), written.get("pool"))?;
        Some(Rule { when: when.unwrap_or_default(), pool, flag: flag.flatten() })
    }

    fn pool(&mut self, key: &str, written: Option<&Value>) -> Option<u32> {
        let allowed = format!("must be one of the route's pools: {}", self.pools.join(", "));
        let Some(written) = written else {
            self.missing(key, allowed);
            return None;
        };
        let place = written.as_str().and_then(|name| self.pools.iter().position(|pool| pool == name));
        if place.is_none() {
            self.refuse(key, written, allowed);
        }
        place.and_then(|place| u32::try_from(place).ok())
    }

    fn flag(&mut self, key: &str, written: &Value) -> Option<Flag> {
        let on = || ON.map(str::to_owned).to_vec();
        let (name, values) = match written {
            Value::Object(table) => {
                self.only(key, table, &["name", "values"]);
                let values = table.get("values").map_or_else(on, |values| self.list(&format!("{key}.values"), values, FEW, Reader::text));
                (table.get("name").and_then(Value::as_str), values)
            }
            other => (other.as_str(), on()),
        };
        let is_good = |name: &&str| (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        let name = name.filter(is_good);
        if name.is_none() {
            self.refuse(key, written, FLAG_RULE);
        }
        name.map(|name| Flag { name: name.to_owned(), values })
    }

    fn condition(&mut self, key: &str, written: &Value) -> Option<Condition> {
        let Value::Object(table) = written else {
            self.refuse(key, written, "must be a table like { field = \"header:x-beta\", equals = \"1\" }");
            return None;
        };
        self.only(key, table, &["field", "equals", "one_of", "prefix", "present"]);
        let at = format!("{key}.field");
        let subject = match table.get("field") {
            None => {
                self.missing(&at, FIELD_RULE);
                return None;
            }
            Some(Value::String(text)) if text == "locale" => Some(Subject::Locale),
            Some(written) => written.as_str().and_then(field).map(Subject::Field),
        };
        let Some(subject) = subject else {
            self.refuse(&at, table.get("field")?, FIELD_RULE);
            return None;
        };
        let test = self.test(key, table, subject == Subject::Locale)?;
        Some(Condition { subject, test })
    }

    fn test(&mut self, key: &str, table: &Map<String, Value>, is_locale: bool) -> Option<Test> {
        let tests = ["equals", "one_of", "prefix", "present"].into_iter().filter_map(|name| Some((name, table.get(name)?)));
        let tests: Vec<(&str, &Value)> = tests.collect();
        let [(name, written)] = tests.as_slice() else {
            self.refuse(key, &Value::Object(table.clone()), TEST_RULE);
            return None;
        };
        let at = format!("{key}.{name}");
        let value: fn(&mut Self, &str, &Value) -> Option<String> = if is_locale { Reader::tag } else { Reader::text };
        match *name {
            "equals" => value(self, &at, written).map(|text| Test::OneOf(vec![text])),
            "one_of" => Some(Test::OneOf(self.list(&at, written, VALUES, value))),
            "prefix" if is_locale => {
                self.refuse(&at, written, "a locale has no prefix: equals = \"de\" holds for de-AT too");
                None
            }
            "prefix" => self.text(&at, written).map(Test::Prefix),
            _ => {
                let present = written.as_bool();
                if present.is_none() {
                    self.refuse(&at, written, "must be true or false");
                }
                present.map(Test::Present)
            }
        }
    }

    fn text(&mut self, key: &str, written: &Value) -> Option<String> {
        let text = written.as_str().filter(|text| (1..=TEXT_BYTES).contains(&text.len()));
        if text.is_none() {
            self.refuse(key, written, TEXT_RULE);
        }
        text.map(str::to_owned)
    }

    fn tag(&mut self, key: &str, written: &Value) -> Option<String> {
        let tag = written.as_str().filter(|tag| locale::is_tag(tag));
        if tag.is_none() {
            self.refuse(key, written, TAG_RULE);
        }
        tag.map(str::to_owned)
    }
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    starts_well && name.len() <= 64 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// `path`, `header:NAME`, `cookie:NAME` or `query:NAME`.
fn field(text: &str) -> Option<Field> {
    let Some((kind, name)) = text.split_once(':') else { return (text == "path").then_some(Field::Path) };
    if !(1..=NAME_BYTES).contains(&name.len()) {
        return None;
    }
    let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    match kind {
        "header" if is_token => Some(Field::Header(name.to_ascii_lowercase())),
        "cookie" if is_token => Some(Field::Cookie(name.to_owned())),
        "query" => Some(Field::Query(name.to_owned())),
        _ => None,
    }
}
