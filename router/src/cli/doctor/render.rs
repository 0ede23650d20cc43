//! What was found, for people and for machines. Pure.

use console::Style;
use serde_json::json;

use super::finding::{Finding, Status};
use crate::cli::plain;

/// Narrower columns than this are padded.
const MOST_NAME: usize = 44;

/// A table by part, in the order in which parts were first found; then a line that sums up.
pub(super) fn table(findings: &[Finding], is_coloured: bool) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for finding in findings {
        if !parts.contains(&finding.part) {
            parts.push(finding.part);
        }
    }
    let width = findings.iter().map(|finding| plain(&finding.name).chars().count()).max().unwrap_or(0).min(MOST_NAME);
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("{part}\n"));
        for finding in findings.iter().filter(|finding| finding.part == part) {
            text.push_str(&line(finding, width, is_coloured));
        }
    }
    text.push_str(&summary(findings));
    text
}

fn line(finding: &Finding, width: usize, is_coloured: bool) -> String {
    let (word, style) = match finding.status {
        Status::Ok => ("ok", Style::new().green()),
        Status::Warning => ("warning", Style::new().yellow()),
        Status::Failed => ("FAILED", Style::new().red().bold()),
    };
    let word = style.force_styling(is_coloured).apply_to(format!("{word:<7}")).to_string();
    // What was found may be anybody's words, and a terminal would obey them.
    let (name, found, to_do) = (one_line(&finding.name), one_line(&finding.found), one_line(&finding.to_do));
    let to_do = if to_do.is_empty() { String::new() } else { format!("\n  {:7}  {:width$}  -> {to_do}", "", "") };
    format!("  {word}  {name:width$}  {found}{to_do}\n")
}

fn one_line(text: &str) -> String {
    plain(&text.replace(['\n', '\t'], " ")).into_owned()
}

fn summary(findings: &[Finding]) -> String {
    let count = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let (failed, warnings, ok) = (count(Status::Failed), count(Status::Warning), count(Status::Ok));
    format!("{ok} ok, {warnings} warning(s), {failed} failed\n")
}

/// One object.
pub(super) fn as_json(findings: &[Finding]) -> String {
    let is_ok = findings.iter().all(|finding| finding.status != Status::Failed);
    format!("{:#}\n", json!({ "ok": is_ok, "findings": findings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("config", "file", "good"),
            Finding::failed("store", "redis h:1", "cannot be reached\x1b[2J: refused", "start it"),
            Finding::warning("config", "a policy", "is not there", "put it there"),
        ]
    }

    #[test]
    fn people_get_a_table_by_part() {
        let expected = "config\n\
                        \x20 ok       file       good\n\
                        \x20 warning  a policy   is not there\n\
                        \x20                     -> put it there\n\
                        store\n\
                        \x20 FAILED   redis h:1  cannot be reached\\u001b[2J: refused\n\
                        \x20                     -> start it\n\
                        1 ok, 1 warning(s), 1 failed\n";
        assert_eq!(table(&findings(), false), expected);
        assert!(table(&findings(), true).contains("\u{1b}[31m"));
    }

    #[test]
    fn machines_get_an_object() {
        let read: serde_json::Value = serde_json::from_str(&as_json(&findings())).unwrap();
        assert_eq!((&read["ok"], &read["findings"][1]["status"]), (&json!(false), &json!("failed")));
        assert_eq!(read["findings"][1]["to_do"], "start it");
    }
}
