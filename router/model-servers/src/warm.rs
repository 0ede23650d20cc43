//! Warm-up: golden queries, round after round, until they are answered in time; and whether they are answered rightly.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::answers::{self, Input};
use crate::call::{after, left, shown};
use crate::fault::Trouble;
use crate::golden::{Golden, Query};
use crate::server::{Server, millis};
use crate::settings::Wanted;

/// How many rounds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// As the settings say, until the latency holds.
    UntilWarm,
    /// One, to see that the answers are right.
    One,
}

/// A body of `infer`.
#[derive(Debug, Serialize)]
struct Request<'a> {
    inputs: [Tensor<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Tensor<'a> {
    name: &'a str,
    shape: [usize; 2],
    datatype: &'static str,
    data: Rows<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Rows<'a> {
    Single(&'a [f32]),
    /// As single ones are, to the last bit; a decimal that is the same in both is not.
    Double(Vec<f64>),
}

/// Warms one version on one server, and writes what it found into the server's report.
pub(crate) async fn warm(server: &mut Server<'_>, wanted: &Wanted<'_>, golden: &Golden, rounds: Rounds) -> Result<(), Trouble> {
    let began = Instant::now();
    let rule = &server.settings.warm_up;
    let (deadline, budget) = (after(rule.timeout), rule.latency);
    let least = if rounds == Rounds::One { 1 } else { rule.rounds.max(1) };
    let input = server.input(wanted).await?;
    let mut last: Option<Duration> = None;
    for round in 1_u32.. {
        let mut times = Vec::with_capacity(golden.queries.len());
        for query in &golden.queries {
            let left = left(deadline);
            if left.is_zero() {
                return Err(too_slow(rule.timeout, budget, last, round));
            }
            times.push(ask(server, wanted.version, query, &input, deadline).await.map_err(|trouble| {
                // Cut off by the end of the warm-up, after answers that did come.
                if trouble.is_timeout && last.is_some() { too_slow(rule.timeout, budget, last, round) } else { trouble }
            })?);
        }
        last = median(times);
        if rounds == Rounds::UntilWarm {
            server.report.median_us = last.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
        let holds = rounds == Rounds::One || budget.is_none_or(|budget| last.is_none_or(|last| last <= budget));
        if round >= least && holds {
            break;
        }
    }
    server.report.warm_ms = server.report.warm_ms.saturating_add(millis(began.elapsed()));
    Ok(())
}

fn too_slow(timeout: Duration, budget: Option<Duration>, last: Option<Duration>, round: u32) -> Trouble {
    let allowed = budget.map_or_else(|| "any".to_owned(), shown);
    let measured = last.map_or_else(|| "none was completed".to_owned(), |last| format!("the median of the last was {}", shown(last)));
    Trouble::refused(format!("not warm after {}: in round {round} of golden queries; {measured}, allowed: {allowed}", shown(timeout)))
}

/// One query, until it is answered: how long the answer took.
async fn ask(server: &mut Server<'_>, version: u64, query: &Query, input: &Input, deadline: Instant) -> Result<Duration, Trouble> {
    let body = body(query, input).map_err(Trouble::refused)?;
    loop {
        let began = Instant::now();
        match server.infer(version, &body, left(deadline)).await {
            Ok(answer) => {
                let took = began.elapsed();
                let named = |why| Trouble::refused(format!("version {version}: {why}"));
                let scores = answers::scores(&answer, query.ids.len()).map_err(named)?;
                let worst = query.compare(&scores, server.settings.warm_up.tolerance).map_err(named)?;
                let report = &mut server.report;
                report.queries += 1;
                report.compared += query.scores.as_ref().map_or(0, |scores| scores.len() as u64);
                report.worst_difference = report.worst_difference.max(worst);
                return Ok(took);
            }
            Err(trouble) if trouble.is_away() => {
                if !server.pause(deadline).await? {
                    return Err(trouble);
                }
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

fn body(query: &Query, input: &Input) -> Result<Vec<u8>, String> {
    let documents = query.ids.len();
    let (datatype, data) = match input.is_double {
        true => ("FP64", Rows::Double(query.rows.iter().map(|value| f64::from(*value)).collect())),
        false => ("FP32", Rows::Single(&query.rows)),
    };
    let shape = [documents, query.rows.len() / documents.max(1)];
    let request = Request { inputs: [Tensor { name: &input.name, shape, datatype, data }] };
    serde_json::to_vec(&request).map_err(|error| error.to_string())
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_lower_middle() {
        let of = |times: &[u64]| median(times.iter().map(|time| Duration::from_millis(*time)).collect());
        assert_eq!((of(&[]), of(&[5])), (None, Some(Duration::from_millis(5))));
        assert_eq!((of(&[9, 1]), of(&[9, 1, 4])), (Some(Duration::from_millis(1)), Some(Duration::from_millis(4))));
    }

    #[test]
    fn rows_are_sent_as_they_are() {
        let line = br#"{"query": "a", "documents": [{"id": "x", "features": [0.1, 2]}]}"#;
        let golden = Golden::read(line).unwrap();
        let sent = |is_double| String::from_utf8(body(&golden.queries[0], &Input { name: "x".to_owned(), is_double }).unwrap()).unwrap();
        assert_eq!(sent(false), r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0.1,2.0]}]}"#);
        assert!(sent(true).contains(r#""FP64","data":[0.10000000149011612,2.0]"#), "{}", sent(true));
    }
}
