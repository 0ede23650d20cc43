//! Every endpoint of every pool: its name, a connection, TLS, and what its health check answers.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::Shared;
use super::finding::{Finding, Status, until};
use super::run::Check;
use crate::serve::{Pools, Probed, SharedEndpoint, SharedPool};

const PART: &str = "pools";
/// Endpoints that are looked at.
const MOST: usize = 500;
/// At the same time.
const AT_ONCE: usize = 64;

pub(super) fn checks(config: &Shared) -> Vec<Check> {
    let config = config.clone();
    vec![Check::new(PART, "endpoints", async move {
        let pools = match Pools::of(&config) {
            Ok(pools) => pools,
            Err(error) => return vec![Finding::failed(PART, error.key(), error.to_string(), "mend the file that it names")],
        };
        let mut all: Vec<(String, Arc<SharedPool>, Arc<SharedEndpoint>)> = Vec::new();
        for (route, pools) in config.routes.iter().zip(&pools.shared) {
            for pool in pools {
                let name = format!("{}.{}", route.name, pool.config.name);
                all.extend(pool.endpoints.iter().map(|endpoint| (name.clone(), pool.clone(), endpoint.clone())));
            }
        }
        let left_out = all.len().saturating_sub(MOST);
        let looks = all.into_iter().take(MOST).map(|(name, pool, endpoint)| async move {
            let found = pool.probe(&endpoint).await;
            findings(&format!("{name} {}", endpoint.authority), found)
        });
        let mut findings: Vec<Finding> = futures_util::stream::iter(looks).buffered(AT_ONCE).collect::<Vec<_>>().await.concat();
        if left_out > 0 {
            let found = format!("{left_out} endpoints were not looked at: {MOST} are, at most");
            findings.push(Finding::warning(PART, "endpoints", found, "switchback_endpoint_healthy of a running router has them all"));
        }
        findings
    })]
}

/// A line for an endpoint, and one for its certificate where there is something to say.
fn findings(name: &str, found: Result<Vec<Probed>, String>) -> Vec<Finding> {
    let to_do = "start the backend, or mend the pool's endpoints (runbooks/backend-down.md)";
    let probes = match found {
        Ok(probes) => probes,
        Err(why) => return vec![Finding::failed(PART, name, why, "mend its name, or the resolver")],
    };
    // An endpoint that is an address is named by it already.
    let at = |probe: &Probed| if name.ends_with(&probe.address.to_string()) { String::new() } else { format!("{}: ", probe.address) };
    let bad: Vec<String> = probes.iter().filter_map(|probe| wrong(probe).map(|why| format!("{}{why}", at(probe)))).collect();
    let answer = probes.iter().find_map(|probe| probe.answer.as_ref().ok().copied().flatten());
    let answered = answer.map_or_else(|| "connects".to_owned(), |status| format!("health check answered {status}"));
    let mut findings = vec![match bad.len() {
        0 if probes.is_empty() => Finding::failed(PART, name, "its name stands for no address", "mend its name, or the resolver"),
        0 => Finding::ok(PART, name, format!("{answered} ({} address(es))", probes.len())),
        some if some < probes.len() => Finding::warning(PART, name, bad.join("; "), to_do),
        _ => Finding::failed(PART, name, bad.join("; "), to_do_about(&bad, to_do)),
    }];
    let now = i64::try_from(crate::admin::now_unix_ms() / 1_000).unwrap_or(i64::MAX);
    let first = probes.iter().filter_map(|probe| probe.not_after).min();
    let certificate = first.map(|not_after| until(PART, name, ("its certificate", not_after), now, "renew it at the backend"));
    findings.extend(certificate.filter(|finding| finding.status != Status::Ok));
    if let (Some(finding), Some(not_after)) = (findings.first_mut().filter(|finding| finding.status == Status::Ok), first) {
        finding.found.push_str(&format!(", its certificate has {} days left", not_after.saturating_sub(now) / 86_400));
    }
    findings
}

fn wrong(probe: &Probed) -> Option<String> {
    match &probe.answer {
        Err(why) => Some(why.clone()),
        Ok(Some(status)) if !(200..300).contains(status) => Some(format!("health check answered {status}")),
        Ok(_) => None,
    }
}

fn to_do_about<'t>(bad: &[String], usual: &'t str) -> &'t str {
    if bad.iter().any(|why| why.contains("certificate")) {
        "renew the backend's certificate, or mend the pool's tls.ca or tls.server_name"
    } else if bad.iter().any(|why| why.contains("`protocol`") || why.contains("does not speak TLS")) {
        "say what the backend speaks: the pool's protocol (\"http1\", or \"h2\"), and http:// or https:// in its endpoints"
    } else {
        usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(answer: Result<Option<u16>, String>, days: Option<i64>) -> Probed {
        let now = i64::try_from(crate::admin::now_unix_ms() / 1_000).unwrap();
        Probed { address: "127.0.0.1:9".parse().unwrap(), not_after: days.map(|days| now + days * 86_400 + 60), answer }
    }

    #[test]
    fn an_endpoint_is_good_in_part_or_not() {
        let status = |probes: Vec<Probed>| findings("search.blue h:9", Ok(probes))[0].status;
        assert_eq!(status(vec![probed(Ok(Some(204)), None)]), Status::Ok);
        assert_eq!(status(vec![probed(Ok(None), None)]), Status::Ok);
        assert_eq!(status(vec![probed(Ok(Some(503)), None)]), Status::Failed);
        assert_eq!(status(vec![probed(Ok(Some(200)), None), probed(Err("connect: refused".to_owned()), None)]), Status::Warning);
        assert_eq!(status(Vec::new()), Status::Failed);
        let found = &findings("search.blue h:9", Err("its name does not resolve".to_owned()))[0];
        assert_eq!((found.status, found.to_do.as_str()), (Status::Failed, "mend its name, or the resolver"));
    }

    #[test]
    fn days_of_a_certificate_are_told() {
        let found = findings("a", Ok(vec![probed(Ok(Some(200)), Some(90))]));
        assert!(found.len() == 1 && found[0].found.ends_with("its certificate has 90 days left"), "{found:?}");
        let found = findings("a", Ok(vec![probed(Ok(Some(200)), Some(3))]));
        assert_eq!((found[1].status, found[1].found.as_str()), (Status::Warning, "its certificate ends in 3 day(s)"));
        let found = findings("a", Ok(vec![probed(Err("TLS: invalid peer certificate: Expired".to_owned()), None)]));
        assert!(found[0].to_do.starts_with("renew the backend's certificate"), "{found:?}");
    }

    #[test]
    fn another_protocol_is_no_reason_to_start_the_backend() {
        let found = findings("a", Ok(vec![probed(Err("it is not what the pool's `protocol` and its scheme say".to_owned()), None)]));
        assert!(found[0].to_do.starts_with("say what the backend speaks"), "{found:?}");
    }
}
