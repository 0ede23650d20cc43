//! A split policy with rules before the weighted split: by header, cookie, path, query parameter, locale and feature flag.
//!
//! ```text
//! split_config --check--> rules --flags--> active rules --> the fields that these ask for
//! query: the first active rule whose conditions all hold names the pool; none: split-weighted decides by position
//! ```
//!
//! A rule whose flag is off costs nothing: it asks for no field, and no query is held against it. With no active rule the policy wants
//! what split-weighted wants, and decides as it does. The router links [`check()`] natively, so that a wrong config is refused before
//! a port is bound.

mod check;
mod locale;
mod rules;

pub use check::check;
pub use rules::{Problem, Rules};

use std::cell::OnceCell;

use split_weighted::WeightedSplit;
use switchback_policy::split::{Decision, Field, Reason, Salt, Snapshot, SplitPolicy, Wanted};

use rules::{Condition, Subject, Test};

/// Problems that a refusal repeats; the config check shows all.
const SHOWN_PROBLEMS: usize = 3;

/// Rules, and the weighted split behind them.
#[derive(Debug)]
pub struct RuleSplit {
    weighted: WeightedSplit,
    /// Those whose flag is on, in the order of the config.
    rules: Vec<ActiveRule>,
    /// Places among the wanted fields where a locale is looked for, the first one that says one counts.
    locale: Vec<usize>,
}

#[derive(Debug)]
struct ActiveRule {
    pool: u32,
    when: Vec<(Place, Test)>,
}

/// Where a condition finds what it looks at.
#[derive(Debug, Clone, Copy)]
enum Place {
    Field(usize),
    Locale,
}

impl SplitPolicy for RuleSplit {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let (weighted, _) = WeightedSplit::configure(snapshot)?;
        let Rules { rules, locale } = check(&snapshot.config, &snapshot.pools).map_err(|problems| in_words(&problems))?;
        let mut fields = Vec::new();
        let mut sources = Vec::new();
        let mut active = Vec::new();
        for rule in rules.iter().filter(|rule| rule.is_on(&snapshot.features)) {
            let asks_for_locale = rule.when.iter().any(|condition| condition.subject == Subject::Locale);
            if asks_for_locale && sources.is_empty() {
                sources = locale.iter().map(|field| place_of(&mut fields, field)).collect();
            }
            let when = rule.when.iter().map(|condition| place_condition(&mut fields, condition));
            active.push(ActiveRule { pool: rule.pool, when: when.collect() });
        }
        let split = RuleSplit { weighted, rules: active, locale: sources };
        Ok((split, Wanted { salts: vec![Salt::Rollout], fields }))
    }

    fn route(&self, position: u32) -> Decision {
        self.route_fields(&[position], &[])
    }

    fn route_fields(&self, positions: &[u32], fields: &[Option<&str>]) -> Decision {
        let locale = OnceCell::new();
        let holds = |(place, test): &(Place, Test)| match place {
            Place::Field(index) => test.holds(fields.get(*index).copied().flatten()),
            Place::Locale => test.holds_for_locale(*locale.get_or_init(|| self.locale(fields))),
        };
        match self.rules.iter().find(|rule| rule.when.iter().all(holds)) {
            Some(rule) => Decision { pool: rule.pool, reason: Reason::Rule, arm: None },
            None => self.weighted.route(positions.first().copied().unwrap_or(0)),
        }
    }
}

impl RuleSplit {
    /// The language that the query's sender likes best, by the first source that says one.
    fn locale<'f>(&self, fields: &[Option<&'f str>]) -> Option<&'f str> {
        let texts = self.locale.iter().filter_map(|index| *fields.get(*index)?);
        texts.filter_map(locale::preferred).next()
    }
}

switchback_policy::export_split_policy!(RuleSplit);

fn place_condition(fields: &mut Vec<Field>, condition: &Condition) -> (Place, Test) {
    let place = match &condition.subject {
        Subject::Field(field) => Place::Field(place_of(fields, field)),
        Subject::Locale => Place::Locale,
    };
    (place, condition.test.clone())
}

/// Where this field is among the wanted ones; it is added when it is new.
fn place_of(fields: &mut Vec<Field>, field: &Field) -> usize {
    fields.iter().position(|wanted| wanted == field).unwrap_or_else(|| {
        fields.push(field.clone());
        fields.len() - 1
    })
}

fn in_words(problems: &[Problem]) -> String {
    let shown: Vec<String> = problems.iter().take(SHOWN_PROBLEMS).map(ToString::to_string).collect();
    match problems.len().saturating_sub(SHOWN_PROBLEMS) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests;
