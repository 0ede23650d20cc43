//! Which of a version's reports counts, and whether it vouches for the version. Pure.

use super::report::{Check, Outcome, Report};
use crate::registry::Format;
use crate::vocabulary::is_earlier;

/// The check that says how well a model ranks.
const QUALITY: &str = "ndcg@10";
/// The checks that compare a model with the live one.
const COMPARED: [&str; 5] = ["signature", "latency", QUALITY, "mrr", "movement"];

/// A report that is stored: its number, and what it says, or why it cannot be read.
pub type Numbered = (u64, Result<Report, String>);

/// The reports on a version.
#[derive(Debug, Clone, Copy)]
pub struct Reports<'a> {
    /// `search:12`
    pub name: &'a str,
    /// SHA-256 of its artefact.
    pub sha256: &'a str,
    /// The first one first.
    pub reports: &'a [Numbered],
}

/// That a route has its candidates tried on judged queries.
#[derive(Debug, Clone, Copy)]
pub struct QualityAsked<'a> {
    /// The route's name.
    pub route: &'a str,
    /// Its live model can be compared with others here.
    pub has_live: bool,
}

impl<'a> Reports<'a> {
    /// The report that lets a candidate on: the newest that passed, and looked at what the route asks for. What an earlier one refused has to be looked at
    /// again before it counts no more.
    ///
    /// # Errors
    /// Why there is none.
    pub fn candidate(&self, asked: Option<QualityAsked<'_>>) -> Result<&'a Report, String> {
        let Reports { name, sha256, reports } = *self;
        let how = format!("switchback model validate {name}");
        let Some((number, newest)) = reports.last() else { return Err(format!("{name} was never validated: {how}")) };
        let newest = newest.as_ref().map_err(|why| format!("report {number} on {name}: {why}"))?;
        if newest.sha256 != sha256 {
            return Err(format!("report {number} on {name} is of another artefact: {how}"));
        }
        let refusals = self.refusals(|_, _| true);
        if let Some((by, names)) = last_of(&refusals) {
            let later = if newest.passed {
                format!(
                    "; report {number}, which passed, did not look at that: {how} with what report {by} was made with (--judged FILE, or --route and --config)"
                )
            } else {
                String::new()
            };
            return Err(format!("{name} was refused when it was validated: {names} (report {by}){later}"));
        }
        let Some(asked) = asked else { return Ok(newest) };
        let mut passed = self.own().filter(|(_, report)| report.passed).rev();
        passed.find(|(_, report)| knows_enough(report, asked.has_live)).map(|(_, report)| report).ok_or_else(|| {
            format!(
                "report {number} on {name} passed without a look at {QUALITY}, which the route {} asks for (route.validation.judged): deploy it with --config \
                 (the router's config) or --judged FILE, or {how} with them",
                asked.route
            )
        })
    }

    /// The report for somebody who goes back to it: the newest that passed, whatever was said since; or the newest, where only a comparison with a version
    /// that came after it speaks against it. `None`: nobody ever looked at it, or not so that it can be read here.
    ///
    /// # Errors
    /// There are reports, and none of them passed.
    pub fn way_back(&self) -> Result<Option<&'a Report>, String> {
        let passed = self.passed_once();
        if passed.is_some() || self.unreadable().is_some() {
            return Ok(passed);
        }
        let Some((number, _)) = self.reports.last() else { return Ok(None) };
        let name = self.name;
        let refusals = self.refusals(|report, check| !self.is_of_a_later_one(report, check));
        let said = match (last_of(&refusals), self.own().next_back()) {
            (Some((by, names)), _) => format!("report {by} refused it: {names}"),
            (None, Some((_, report))) => return Ok(Some(report)),
            (None, None) => format!("report {number} is of another artefact"),
        };
        Err(format!(
            "{name} never passed a validation ({said}): deploy it again after one that passes (switchback model validate {name}, with --live and the \
             version that it is to be compared with), or go back to another version"
        ))
    }

    /// Why the newest report that cannot be read cannot be, with its number: it may be one that passed, of a newer Switchback.
    #[must_use]
    pub fn unreadable(&self) -> Option<(u64, &'a str)> {
        self.reports.iter().rev().find_map(|(number, report)| Some((*number, report.as_ref().err()?.as_str())))
    }

    /// Whether a check compares this version with one that came after it: who goes back knows the later one.
    fn is_of_a_later_one(&self, report: &Report, check: &Check) -> bool {
        let is_later = report.live.as_ref().is_some_and(|live| is_earlier(self.name, &live.name));
        is_later && COMPARED.contains(&check.name.as_str())
    }

    /// The newest report that passed.
    #[must_use]
    pub fn passed_once(&self) -> Option<&'a Report> {
        self.own().rev().map(|(_, report)| report).find(|report| report.passed)
    }

    /// Those of this very artefact that can be read.
    fn own(&self) -> impl DoubleEndedIterator<Item = (u64, &'a Report)> + use<'a> {
        let sha256 = self.sha256;
        let read = self.reports.iter().filter_map(|(number, report)| Some((*number, report.as_ref().ok()?)));
        read.filter(move |(_, report)| report.sha256 == sha256)
    }

    /// The checks that refused it and count, each with its report's number, at which no later report looked. A refusal that does not count is no look, either.
    fn refusals(&self, counts: impl Fn(&Report, &Check) -> bool) -> Vec<(u64, &'a Check)> {
        let mut left: Vec<(u64, &'a Check)> = Vec::new();
        for (number, report) in self.own() {
            let is_void = |name: &str| report.refusals().any(|check| check.name == name && !counts(report, check));
            left.retain(|(_, check)| !looks_at(report, check) || is_void(&check.name));
            left.extend(report.refusals().filter(|check| counts(report, check)).map(|check| (number, check)));
        }
        left
    }
}

/// The number of the last report that refused something, and which checks it refused.
fn last_of(refusals: &[(u64, &Check)]) -> Option<(u64, String)> {
    let (by, _) = refusals.last()?;
    let names: Vec<&str> = refusals.iter().filter(|(number, _)| number == by).map(|(_, check)| check.name.as_str()).collect();
    Some((*by, names.join(", ")))
}

fn is_made(report: &Report, name: &str) -> bool {
    report.checks.iter().any(|check| check.name == name && check.outcome != Outcome::Skipped)
}

/// Whether what was refused in this check before has been looked at again, or a report that passed could not look at it better.
fn looks_at(report: &Report, refused: &Check) -> bool {
    let is_settled = match refused.name.as_str() {
        // The process that looked had died, and now came to its end. Beside another live model a format is nothing to tell of.
        "limits" | "format" => true,
        // Scores that were another model's are left out of the queries.
        "expected" => report.judged.is_some(),
        QUALITY | "mrr" | "movement" => could_not_compare(report, refused),
        _ => false,
    };
    is_made(report, &refused.name) || (report.passed && is_settled)
}

/// Whether a report on judged queries says nothing of what was refused because it cannot: not every format is run here, and the live model may be another
/// one by now, which cannot be compared. Where nothing was measured when it was refused, nothing is known against it.
fn could_not_compare(report: &Report, refused: &Check) -> bool {
    let is_run = report.format == Format::Onnx;
    let has_no_pair = report.live.is_some() && !is_made(report, "movement");
    report.judged.is_some() && (!is_run || refused.numbers.is_empty() || has_no_pair)
}

/// Whether a report looked at how well a model ranks, on judged queries, as far as that can be: not every format is run here, a live model may not be
/// comparable, and too few queries may have labels.
fn knows_enough(report: &Report, has_live: bool) -> bool {
    let has_tried = report.format != Format::Onnx || report.live.is_some() || !has_live;
    report.knows_quality() || (report.judged.is_some() && has_tried && report.checks.iter().any(|check| check.name == QUALITY))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Criteria;
    use crate::validation::Compared;

    const JUDGED: QualityAsked<'_> = QualityAsked { route: "search", has_live: true };

    /// Of the artefact `aa`, against a live model, on judged queries where one of the last two checks was made.
    fn report(format: &str, checks: &[(&str, &str)]) -> Report {
        let passed = checks.iter().all(|(_, outcome)| *outcome != "refused");
        let is_judged = checks.iter().any(|(name, outcome)| matches!(*name, "ndcg@10" | "movement") && *outcome != "skipped");
        let checks: Vec<Value> = checks.iter().map(|(name, outcome)| json!({ "name": name, "outcome": outcome, "said": "" })).collect();
        let judged = is_judged.then(|| json!({ "name": "judged.jsonl", "sha256": "cc" }));
        serde_json::from_value(json!({
            "form": 1, "passed": passed, "name": "search:2", "sha256": "aa", "bytes": 3, "format": format,
            "live": { "name": "search:1", "sha256": "bb" }, "judged": judged,
            "checks": checks, "criteria": Criteria::default(), "who": "ann", "at_ms": 1, "took_ms": 1, "by": "switchback",
        }))
        .unwrap()
    }

    /// A look that passed: with judged queries, or without.
    fn good() -> Report {
        report("onnx", &[("size", "passed"), ("latency", "passed"), ("ndcg@10", "passed"), ("mrr", "passed"), ("movement", "passed")])
    }

    fn weak() -> Report {
        report("onnx", &[("size", "passed"), ("latency", "passed"), ("ndcg@10", "skipped"), ("mrr", "skipped"), ("movement", "skipped")])
    }

    fn worse() -> Report {
        report("onnx", &[("size", "passed"), ("latency", "passed"), ("ndcg@10", "refused"), ("mrr", "refused"), ("movement", "passed")])
    }

    /// On judged queries, beside a live model that cannot be compared.
    fn alone() -> Report {
        Report { judged: good().judged, ..weak() }
    }

    /// Its checks have numbers.
    fn measured(mut report: Report) -> Report {
        for check in &mut report.checks {
            check.numbers.insert("difference".to_owned(), -0.1);
        }
        report
    }

    fn against(live: &str, report: Report) -> Report {
        Report { live: Some(Compared { name: live.to_owned(), sha256: "bb".to_owned() }), ..report }
    }

    fn stored(reports: &[Report]) -> Vec<Numbered> {
        (1..).zip(reports).map(|(number, report)| (number, Ok(report.clone()))).collect()
    }

    fn candidate(reports: &[Numbered], asked: Option<QualityAsked<'_>>) -> Result<(), String> {
        Reports { name: "search:2", sha256: "aa", reports }.candidate(asked).map(drop)
    }

    fn way_back(reports: &[Numbered]) -> Result<Option<bool>, String> {
        Reports { name: "search:2", sha256: "aa", reports }.way_back().map(|report| report.map(|report| report.passed))
    }

    #[test]
    fn a_candidate_needs_a_report_that_passed_of_this_artefact() {
        let other = Report { sha256: "ab".to_owned(), ..good() };
        let told = |reports: &[Report]| candidate(&stored(reports), None);
        assert_eq!((told(&[good()]), told(&[weak()]), told(&[worse(), good()])), (Ok(()), Ok(()), Ok(())));
        assert_eq!(told(&[]), Err("search:2 was never validated: switchback model validate search:2".to_owned()));
        assert_eq!(told(&[good(), worse()]), Err("search:2 was refused when it was validated: ndcg@10, mrr (report 2)".to_owned()));
        assert!(told(&[good(), other]).unwrap_err().starts_with("report 2 on search:2 is of another artefact: "));
        let broken = [(1, Ok(good())), (2, Err("form = 9".to_owned()))];
        assert_eq!(candidate(&broken, None), Err("report 2 on search:2: form = 9".to_owned()));
    }

    #[test]
    fn a_refusal_counts_until_its_check_is_made_again() {
        let why = candidate(&stored(&[worse(), weak()]), None).unwrap_err();
        let says = "search:2 was refused when it was validated: ndcg@10, mrr (report 1); report 2, which passed, did not look at that: ";
        assert!(why.starts_with(says) && why.contains("switchback model validate search:2"), "{why}");
        assert_eq!(candidate(&stored(&[worse(), good(), weak()]), None), Ok(()), "that was looked at in between");
        // What is of every report is settled by any that passed.
        let slow = report("onnx", &[("size", "passed"), ("latency", "refused"), ("ndcg@10", "skipped")]);
        let dead = report("onnx", &[("size", "passed"), ("limits", "refused")]);
        assert_eq!(candidate(&stored(&[slow, dead, weak()]), None), Ok(()));
        let expected = report("onnx", &[("size", "passed"), ("expected", "refused")]);
        assert!(candidate(&stored(&[expected.clone(), weak()]), None).is_err());
        assert_eq!(candidate(&stored(&[expected, good()]), None), Ok(()), "the scores were left out");
        // Another artefact's refusal is none of this one's.
        let other = Report { sha256: "ab".to_owned(), ..worse() };
        assert_eq!(candidate(&stored(&[other, weak()]), None), Ok(()));
    }

    #[test]
    fn where_the_route_has_judged_queries_somebody_has_to_have_looked() {
        let told = |reports: &[Report]| candidate(&stored(reports), Some(JUDGED));
        let why = told(&[weak()]).unwrap_err();
        let says = "report 1 on search:2 passed without a look at ndcg@10, which the route search asks for (route.validation.judged): ";
        assert!(why.starts_with(says) && why.contains("--config") && why.contains("--judged FILE"), "{why}");
        assert_eq!((told(&[good()]), told(&[good(), weak()]), told(&[weak(), good()])), (Ok(()), Ok(()), Ok(())));
        // Rankings were compared, on queries of which too few have labels.
        let few = report("onnx", &[("ndcg@10", "skipped"), ("movement", "passed")]);
        assert_eq!((told(&[few]), told(&[alone()])), (Ok(()), Ok(())));
        // Nothing to compare with: where there is no live model that is run here, that is all there can be.
        let alone = Report { live: None, ..alone() };
        assert!(told(std::slice::from_ref(&alone)).is_err());
        let nobody = Some(QualityAsked { has_live: false, ..JUDGED });
        assert_eq!(candidate(&stored(std::slice::from_ref(&alone)), nobody), Ok(()));
        assert!(candidate(&stored(&[Report { live: None, ..weak() }]), nobody).is_err(), "nor were there judged queries");
        // What is not run here cannot be looked at better.
        let trees = report("lightgbm", &[("ndcg@10", "skipped"), ("signature", "passed")]);
        assert!(told(std::slice::from_ref(&trees)).is_err());
        assert_eq!(told(&[Report { judged: good().judged, ..trees }]), Ok(()));
    }

    #[test]
    fn what_nobody_can_look_at_again_is_settled_by_who_tried() {
        let told = |first: &Report, then: Report| candidate(&stored(&[first.clone(), then]), None);
        // It was not shown to be no worse; now nobody asks for that.
        assert_eq!(told(&worse(), alone()), Ok(()));
        assert_eq!(told(&worse(), Report { live: None, ..alone() }), Ok(()));
        assert!(told(&worse(), weak()).is_err(), "there were no judged queries");
        // It was shown to be worse, and the live model of today cannot be compared.
        let moved = report("onnx", &[("ndcg@10", "passed"), ("mrr", "passed"), ("movement", "refused")]);
        for refused in [measured(worse()), measured(moved)] {
            assert_eq!(told(&refused, alone()), Ok(()));
            assert!(told(&refused, Report { live: None, ..alone() }).is_err(), "nobody asked for a comparison");
            assert!(told(&refused, weak()).is_err());
        }
        let few = report("onnx", &[("ndcg@10", "skipped"), ("mrr", "skipped"), ("movement", "passed")]);
        assert!(told(&measured(worse()), few).is_err(), "it was compared, and on too few queries with labels");
        // A format that was another one than the live model's.
        let other = report("pickle", &[("ndcg@10", "skipped"), ("globals", "passed"), ("format", "refused")]);
        assert_eq!(told(&other, report("pickle", &[("ndcg@10", "skipped"), ("globals", "passed")])), Ok(()));
        // A pickle that names too much is one until somebody looks again.
        let evil = report("opaque", &[("globals", "refused")]);
        assert!(told(&evil, report("opaque", &[("format", "skipped")])).is_err());
        assert_eq!(told(&evil, report("opaque", &[("globals", "passed"), ("format", "skipped")])), Ok(()));
    }

    #[test]
    fn a_comparison_with_what_came_after_it_closes_no_way_back() {
        let later = against("search:3", worse());
        assert_eq!(way_back(&stored(&[later.clone(), later.clone()])), Ok(Some(false)));
        // Whatever else was refused stays so: before it or with it, of another model, and what is no comparison at all.
        let says = "search:2 never passed a validation (report 1 refused it: ";
        for (reports, names) in [
            (vec![worse(), later.clone()], "ndcg@10, mrr"),
            (vec![against("ads:3", worse())], "ndcg@10, mrr"),
            (vec![against("search:10", report("pickle", &[("globals", "refused")]))], "globals"),
            (vec![against("search:3", report("onnx", &[("latency", "refused"), ("independent", "refused")]))], "independent"),
        ] {
            let why = way_back(&stored(&reports)).unwrap_err();
            assert!(why.starts_with(&format!("{says}{names})")), "{why}");
        }
        assert!(candidate(&stored(&[later]), None).is_err(), "a candidate is no way back");
    }

    #[test]
    fn a_way_back_needs_one_report_that_passed_or_none_at_all() {
        assert_eq!((way_back(&[]), way_back(&stored(&[good(), worse()]))), (Ok(None), Ok(Some(true))));
        let why = way_back(&stored(&[worse(), worse()])).unwrap_err();
        let says = "search:2 never passed a validation (report 2 refused it: ndcg@10, mrr): deploy it again after one that passes (switchback model \
                    validate search:2, with --live and the version that it is to be compared with), or go back to another version";
        assert_eq!(why, says);
        let other = Report { sha256: "ab".to_owned(), ..good() };
        assert!(way_back(&stored(&[other])).unwrap_err().contains("(report 1 is of another artefact)"));
        // One that cannot be read may have passed.
        let broken = [(1, Ok(worse())), (2, Err("form = 9".to_owned()))];
        assert_eq!(way_back(&broken), Ok(None));
        assert_eq!(Reports { name: "search:2", sha256: "aa", reports: &broken }.unreadable(), Some((2, "form = 9")));
        assert_eq!(way_back(&[(1, Ok(good())), (2, Err("form = 9".to_owned()))]), Ok(Some(true)));
    }
}
