//! The flag store: whether it is reached, what it is, and what it allows.

use std::time::Duration;

use super::Shared;
use super::finding::Finding;
use super::run::Check;
use crate::config::{RedisState, StateUrl};
use crate::flags::{ServerSeen, Survey, survey};

const PART: &str = "store";
/// A round trip over this makes every flip that much slower.
const SLOW: Duration = Duration::from_millis(20);
/// Clocks that are further apart make times in logs and ledgers disagree.
const APART_MS: u64 = 1_000;
/// Tracking and RESP3 came with it.
const LEAST_VERSION: u64 = 6;

pub(super) fn checks(config: &Shared) -> Vec<Check> {
    let config = config.clone();
    vec![Check::new(PART, "flag store", async move {
        match &config.state.url {
            StateUrl::Embedded => {
                vec![Finding::ok(PART, "flag store", "embedded, in the data folder: this router is alone with its flags")]
            }
            StateUrl::Redis(redis) => match survey(redis, &config.routes).await {
                Ok(found) => findings(redis, &found),
                Err(why) => vec![away(redis, why)],
            },
        }
    })]
}

fn away(redis: &RedisState, why: String) -> Finding {
    let to_do = "start it, or mend state.url; meanwhile a running router obeys the last flags (runbooks/redis-down.md)";
    Finding::failed(PART, "flag store", format!("{}: {why}", redis.shown), to_do)
}

/// What a survey means.
fn findings(redis: &RedisState, survey: &Survey) -> Vec<Finding> {
    let nodes: Vec<&str> = survey.servers.iter().map(|server| server.node.as_str()).collect();
    let topology = format!("{} ({}): flags of {} server(s): {}", redis.shown, redis.topology.word(), nodes.len(), nodes.join(", "));
    let mut findings = vec![match &survey.concern {
        None => Finding::ok(PART, "topology", topology),
        Some(concern) => Finding::warning(PART, "topology", concern.clone(), "see that every sentinel and node can be reached from here"),
    }];
    survey.servers.iter().for_each(|server| findings.extend(of_server(server)));
    findings.push(match &survey.unread {
        None => Finding::ok(PART, "reading", "flags and ledger can be read"),
        Some(why) => Finding::failed(PART, "reading", why.clone(), "docs/FLAGS.md has the keys and the ACL user"),
    });
    findings.push(match &survey.denied {
        Ok(denied) if denied.is_empty() => Finding::ok(PART, "rights", "the user may write what a router writes"),
        Ok(denied) => {
            let to_do = "ACL SETUSER as docs/FLAGS.md has it";
            Finding::failed(PART, "rights", format!("the user may not: {}", denied.join(", ")), to_do)
        }
        Err(why) => Finding::warning(PART, "rights", format!("not known: {why}"), "compare the user with docs/FLAGS.md"),
    });
    findings
}

fn of_server(server: &ServerSeen) -> Vec<Finding> {
    let name = |what: &str| format!("{} {what}", server.node);
    if let Some(why) = &server.why {
        return vec![Finding::failed(PART, server.node.clone(), why.clone(), "see that it runs, and what its user may do")];
    }
    let version = server.version.as_deref().unwrap_or("unknown");
    let major: Option<u64> = version.split('.').next().and_then(|major| major.parse().ok());
    let replicas = server.replicas.unwrap_or(0);
    let millis = server.answers_in.as_secs_f64() * 1e3;
    let mut findings = Vec::new();
    let found = format!("version {version}, {}, {replicas} replica(s), answers in {millis:.2} ms", server.role.as_deref().unwrap_or("?"));
    findings.push(match () {
        () if major.is_some_and(|major| major < LEAST_VERSION) => {
            Finding::failed(PART, server.node.clone(), found, "Redis 6 or newer, or Valkey, is needed")
        }
        () if server.role.as_deref() == Some("slave") => {
            Finding::failed(PART, server.node.clone(), found, "state.url must name the primary; with Sentinel write redis+sentinel://")
        }
        () if server.answers_in > SLOW => {
            Finding::warning(PART, server.node.clone(), found, "a flip takes a few round trips: put Redis nearer")
        }
        () => Finding::ok(PART, server.node.clone(), found),
    });
    findings.push(match (server.is_saving_well, server.is_append_only) {
        (false, _) => Finding::failed(PART, name("persistence"), "its last save to disk failed", "look at its log, and its disk"),
        (true, Some(false)) => {
            let found = "no append-only file: after a crash routers write their flags back, and entries of the ledger are lost";
            Finding::warning(PART, name("persistence"), found, "CONFIG SET appendonly yes, and in its config")
        }
        (true, _) => Finding::ok(PART, name("persistence"), "append-only file, saved well"),
    });
    findings.push(match &server.eviction {
        None => Finding::ok(PART, name("memory"), "maxmemory-policy noeviction"),
        Some(problem) => {
            Finding::failed(PART, name("memory"), problem.clone(), "CONFIG SET maxmemory-policy noeviction, and in its config")
        }
    });
    let apart = format!("its clock is {} ms ahead of this machine's", server.ahead_ms);
    findings.push(match server.ahead_ms.unsigned_abs() {
        ahead if ahead > APART_MS => Finding::warning(PART, name("clock"), apart, "keep both with NTP (chronyc tracking)"),
        _ => Finding::ok(PART, name("clock"), apart),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Status;

    fn server() -> ServerSeen {
        ServerSeen {
            node: "h:1".to_owned(),
            version: Some("7.2.4".to_owned()),
            role: Some("master".to_owned()),
            is_append_only: Some(true),
            is_saving_well: true,
            ..ServerSeen::default()
        }
    }

    fn statuses(server: &ServerSeen) -> Vec<Status> {
        of_server(server).into_iter().map(|finding| finding.status).collect()
    }

    #[test]
    fn a_server_is_told_of_by_what_it_is() {
        use Status::{Failed, Ok as Good, Warning};
        assert_eq!(statuses(&server()), [Good; 4]);
        assert_eq!(statuses(&ServerSeen { version: Some("5.0".to_owned()), ..server() })[0], Failed);
        assert_eq!(statuses(&ServerSeen { role: Some("slave".to_owned()), ..server() })[0], Failed);
        assert_eq!(statuses(&ServerSeen { answers_in: Duration::from_millis(50), ..server() })[0], Warning);
        assert_eq!(statuses(&ServerSeen { is_append_only: Some(false), ..server() })[1], Warning);
        assert_eq!(statuses(&ServerSeen { is_saving_well: false, ..server() })[1], Failed);
        assert_eq!(statuses(&ServerSeen { eviction: Some("allkeys-lru".to_owned()), ..server() })[2], Failed);
        assert_eq!(statuses(&ServerSeen { ahead_ms: -5_000, ..server() })[3], Warning);
        assert_eq!(statuses(&ServerSeen { why: Some("NOAUTH".to_owned()), ..server() }), [Failed]);
    }
}
