//! `switchback policy simulate --replay`: what a rollback policy says of rollouts that were recorded.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::Failure;
use super::rollback_policy::Chosen;
use super::simulate::name;
use crate::policy::rollback::{Outcome, Window};
use crate::policy::window_log;
use crate::simulate::Judge as _;

/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Judges the windows of these logs, which are of one rollout, and prints each verdict that is another one than before.
pub(super) fn replay(chosen: &Chosen, config: &str, logs: &[PathBuf], is_json: bool) -> Result<(), Failure> {
    let mut judge = chosen.with_state(config, "replay");
    judge.begin();
    let (mut last, mut judged, mut failures) = (None, 0_u64, Vec::new());
    for window in merged(logs)? {
        judged += 1;
        if let Err(reason) = judge.judge(&window) {
            // As in a router: the state stays as it was, and it goes on with the next.
            failures.push(format!("window {}: {reason}", window.index));
            continue;
        }
        let Some(outcome) = judge.last() else { continue };
        if last != Some(outcome.verdict) {
            let (verdict, summary) = (name(outcome.verdict), &outcome.summary);
            let text = match is_json {
                true => json!({"window": window.index, "verdict": verdict, "summary": summary}).to_string(),
                false => format!("window {:>7}  {verdict:<9}  {summary}", window.index),
            };
            super::print(&format!("{text}\n"))?;
            last = Some(outcome.verdict);
        }
    }
    if let Some(first) = failures.first().filter(|_| failures.len() as u64 == judged) {
        return Err(Failure::refused(format!("the policy judged no window; {first}")));
    }
    let outcome = judge.last();
    let text = match is_json {
        true => {
            json!({"windows": judged, "verdict": last.map(name), "failures": failures.len(), "evidence": outcome.map(evidence)}).to_string()
        }
        false => {
            let failed = failures.first().map_or_else(String::new, |first| format!("; {} failed, the first: {first}", failures.len()));
            format!("{judged} windows judged, the last one: {}{failed}", last.map_or("none", name))
        }
    };
    super::print(&format!("{text}\n"))
}

pub(super) fn evidence(outcome: &Outcome) -> Vec<Value> {
    let one = |evidence: &crate::policy::rollback::Evidence| {
        json!({
            "metric": evidence.metric,
            "log_harm": evidence.log_harm,
            "log_safe": evidence.log_safe,
            "difference": { "mean": evidence.difference, "low": evidence.low, "high": evidence.high },
        })
    };
    outcome.evidence.iter().map(one).collect()
}

fn merged(logs: &[PathBuf]) -> Result<Vec<Window>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        let at = |reason: String| Failure::usage(format!("{}: {reason}", log.display()));
        for read in window_log::read(open(log).map_err(|error| at(error.to_string()))?) {
            all.push(read.map_err(|error| at(error.to_string()))?);
        }
    }
    in_order(all)
}

/// The windows of all logs in the order in which they were judged: routers took turns, and each logged what it judged.
pub(super) fn in_order(mut all: Vec<(Option<u64>, Window)>) -> Result<Vec<Window>, Failure> {
    // Where nothing is said, as they stand.
    all.sort_by_key(|(order, _)| *order);
    check_order(&all)?;
    Ok(all.into_iter().map(|(_, window)| window).collect())
}

/// Slices that no log has are told; of two rollouts, or of one twice, there is no order.
fn check_order(all: &[(Option<u64>, Window)]) -> Result<(), Failure> {
    let orders: Vec<u64> = all.iter().filter_map(|(order, _)| *order).collect();
    if let Some([twice, _]) = orders.array_windows().find(|[before, after]| before == after) {
        let rule = "the logs must be of one rollout (their names begin with the same number), each given once";
        return Err(Failure::usage(format!("slice {twice} is there twice: {rule}")));
    }
    let Some(last) = orders.last() else { return Ok(()) };
    let missing = (last + 1).saturating_sub(orders.len() as u64);
    if missing > 0 {
        super::failure::complain(&format!(
            "warning: {missing} slices of the rollout are in none of these logs: what follows is not what its routers knew"
        ));
    }
    Ok(())
}

fn open(log: &Path) -> std::io::Result<Box<dyn BufRead>> {
    if !std::fs::metadata(log)?.is_file() {
        return Err(std::io::Error::other("it must be a regular file"));
    }
    let mut file = File::open(log)?;
    let mut start = Vec::new();
    (&mut file).take(GZIP.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(if start == GZIP { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(BufReader::new(file)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rollback::{Slice, Step};

    fn window(slice: Slice, index: u64) -> Window {
        let step = Step { index: 0, share_ppm: 1, is_last: false };
        Window {
            index,
            length_ms: 1_000,
            slice,
            step,
            share_ppm: None,
            candidate_requests: 0,
            control_requests: 1,
            metrics: Vec::new(),
            latency: Vec::new(),
        }
    }

    #[test]
    fn logs_of_routers_that_took_turns_are_one_again() {
        let whole: Vec<Window> = (0..40_u64)
            .flat_map(|index| {
                let engagement = index.checked_sub(5).map(|mature| window(Slice::Engagement, mature));
                engagement.into_iter().chain([window(Slice::Traffic, index)])
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let logs = ["one.jsonl", "two.jsonl.gz"].map(|name| folder.path().join(name));
        let of = |from: usize, to: usize| whole[from..to].to_vec();
        let lines = |parts: &[Vec<Window>]| {
            let mut bytes = Vec::new();
            let order = |window: &Window| whole.iter().position(|other| other == window).map(|order| order as u64);
            parts.iter().flatten().for_each(|window| window_log::write(&mut bytes, order(window), window).unwrap());
            bytes
        };
        std::fs::write(&logs[0], lines(&[of(0, 20), of(51, whole.len())])).unwrap();
        let mut packing = flate2::write::GzEncoder::new(File::create(&logs[1]).unwrap(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packing, &lines(&[of(20, 51)])).unwrap();
        packing.finish().unwrap();
        let both = |logs: &[PathBuf]| merged(logs).map_err(|_| "not read").unwrap();
        assert!(both(&logs) == whole);
        assert!(both(&[logs[1].clone(), logs[0].clone()]) == whole);
        assert!(merged(&[logs[0].clone(), logs[0].clone()]).is_err(), "one of them twice");
    }
}
