//! What a validation found: one report, for machines and for people. It is stored beside the version, and a rollout asks for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::config::Criteria;
use crate::registry::{Format, Tensor};
use crate::vocabulary::{is_obeyed, one_line};

/// What this program writes and reads.
pub const REPORT_FORM: u8 = 1;
/// The largest report.
pub const REPORT_BYTES: usize = 256 << 10;
/// The longest text of one check, in characters.
const SAID_CHARS: usize = 1_000;

/// What became of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// It is not, and that was declared to be right.
    Declared,
    /// There was nothing to compare it with, or it makes no sense for this format.
    Skipped,
    /// It is not as it should be.
    Refused,
}

impl Outcome {
    /// As tables have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Declared => "declared",
            Outcome::Skipped => "skipped",
            Outcome::Refused => "REFUSED",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Of what; docs/VALIDATION.md has them all.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// In words: what was found, and what is allowed.
    pub said: String,
    /// What was measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, f64>,
}

impl Check {
    /// A check with its outcome, and what there is to say of it.
    pub fn new(name: &str, outcome: Outcome, said: impl Into<String>) -> Check {
        let said: String = said.into();
        let said = said.chars().map(|letter| if is_obeyed(letter) { ' ' } else { letter }).take(SAID_CHARS).collect();
        Check { name: name.to_owned(), outcome, said, numbers: BTreeMap::new() }
    }

    /// With what was measured; what is not finite is left out.
    #[must_use]
    pub fn with<const N: usize>(mut self, numbers: [(&str, f64); N]) -> Check {
        self.numbers.extend(numbers.into_iter().filter(|(_, value)| value.is_finite()).map(|(name, value)| (name.to_owned(), value)));
        self
    }
}

/// A model that another is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// `search:11`, or a file's name.
    pub name: String,
    /// Of its artefact.
    pub sha256: String,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`REPORT_FORM`].
    pub form: u8,
    /// Whether users may see it.
    pub passed: bool,
    /// `search:12`, or a file's name.
    pub name: String,
    /// Of the artefact.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub format: Format,
    /// The model that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Compared>,
    /// The judged queries that it was tried on: file and SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Compared>,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What goes in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Tensor>,
    /// What comes out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Tensor>,
    /// What a pickle names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub globals: Vec<String>,
    /// SHA-256 of the golden queries with this model's scores, which are stored beside the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<String>,
    /// What was asked of it.
    pub criteria: Criteria,
    /// Who asked.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// For how long, in milliseconds.
    pub took_ms: u64,
    /// The program that looked.
    pub by: String,
}

/// Whether nothing was refused; where nothing was checked, nothing is known.
pub(super) fn is_passed(checks: &[Check]) -> bool {
    !checks.is_empty() && checks.iter().all(|check| check.outcome != Outcome::Refused)
}

impl Report {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(text: &[u8]) -> Result<Report, String> {
        if text.len() > REPORT_BYTES {
            return Err(format!("{} bytes; {REPORT_BYTES} at most are allowed", text.len()));
        }
        let report: Report = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if report.form != REPORT_FORM {
            return Err(format!("form = {}: must be {REPORT_FORM}: another one was written by a newer Switchback", report.form));
        }
        match report.passed == is_passed(&report.checks) {
            true => Ok(report),
            false => Err("passed: its checks say something else".to_owned()),
        }
    }

    /// The checks that it did not pass.
    pub fn refusals(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.outcome == Outcome::Refused)
    }

    /// Whether its ranking was compared with the live model's.
    #[must_use]
    pub fn knows_quality(&self) -> bool {
        self.checks.iter().any(|check| check.name == "ndcg@10" && check.outcome != Outcome::Skipped)
    }

    /// For people: a line for each check, and what it comes to.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let compared = |compared: &Option<Compared>, with: &str| {
            compared
                .as_ref()
                .map_or_else(String::new, |compared| format!("{with}{} (sha256 {:.12})", one_line(&compared.name), compared.sha256))
        };
        let _ = writeln!(text, "{} ({}, {} bytes, sha256 {:.12})", one_line(&self.name), self.format, self.bytes, self.sha256);
        if self.live.is_some() || self.judged.is_some() {
            let against = compared(&self.live, "against ");
            let on = compared(&self.judged, if self.live.is_some() { ", on " } else { "on " });
            let _ = writeln!(text, "{against}{on}");
        }
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            let _ = writeln!(text, "  {:width$}  {:<8}  {}", check.name, check.outcome.label(), check.said);
        }
        let refused = self.refusals().count();
        let _ = match refused {
            0 => writeln!(
                text,
                "passed in {} ms{}",
                self.took_ms,
                if self.knows_quality() { "" } else { "; how well it ranks was not looked at" }
            ),
            _ => writeln!(text, "REFUSED by {refused} of {} checks, in {} ms", self.checks.len(), self.took_ms),
        };
        text
    }
}
