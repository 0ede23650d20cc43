//! `[[route.rollout.gate]]`: who else is asked before a rollout goes on.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::check_route::{NAME_RULE, check_name};
use super::notify_url::{self, NotifyUrl};
use super::written;

/// Gates of a route.
const GATES: usize = 16;
const URL_RULE: &str = "must be a URL like \"https://ci.example.com/gate\": http or https, a host, and no #";
const CA_RULE: &str = "is for TLS: url must begin with https://";

/// Somebody who is asked by POST, and says yes with a status of 200 to 299.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Names it in what is shown.
    pub name: String,
    /// When it is asked.
    pub kind: GateKind,
    /// Where.
    pub url: NotifyUrl,
    /// For one answer.
    pub timeout: Duration,
    /// After a no, and for gates of the kind [`GateKind::Rollback`], it is asked again so much later.
    pub interval: Duration,
    /// Authorities to trust instead of the system's. Only with https.
    pub ca_file: Option<PathBuf>,
}

/// When a gate is asked. The names are Flagger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateKind {
    /// Before the candidate gets its first share.
    ConfirmRollout,
    /// The same: for what has to be tried before.
    PreRollout,
    /// Before each further step.
    Rollout,
    /// The same.
    ConfirmTrafficIncrease,
    /// Before the candidate becomes live.
    ConfirmPromotion,
    /// All the time: a yes takes the candidate back.
    Rollback,
}

impl GateKind {
    /// All of them.
    pub const ALL: [GateKind; 6] = [
        GateKind::ConfirmRollout,
        GateKind::PreRollout,
        GateKind::Rollout,
        GateKind::ConfirmTrafficIncrease,
        GateKind::ConfirmPromotion,
        GateKind::Rollback,
    ];

    /// In the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            GateKind::ConfirmRollout => "confirm-rollout",
            GateKind::PreRollout => "pre-rollout",
            GateKind::Rollout => "rollout",
            GateKind::ConfirmTrafficIncrease => "confirm-traffic-increase",
            GateKind::ConfirmPromotion => "confirm-promotion",
            GateKind::Rollback => "rollback",
        }
    }
}

pub(super) fn check_gates(checker: &mut Checker, rollout_key: &str, written: &[written::Gate]) -> Vec<Gate> {
    let key = format!("{rollout_key}.gate");
    if written.len() > GATES {
        checker.refuse(&key, written.len(), format!("at most {GATES} gates"));
    }
    let mut names = HashSet::new();
    let mut gates = Vec::new();
    for (index, gate) in written.iter().enumerate() {
        let at = |name: &str| format!("{key}[{index}].{name}");
        let name = checker.required(&at("name"), gate.name.clone(), NAME_RULE);
        if gate.name.is_some() {
            check_name(checker, &at("name"), &name);
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            checker.refuse(&at("name"), &name, "must be given to one gate of the route only");
        }
        let kinds = GateKind::ALL.map(GateKind::name).join(", ");
        let text = checker.required(&at("type"), gate.kind.clone(), &format!("must be one of {kinds}"));
        let kind = GateKind::ALL.into_iter().find(|kind| kind.name() == text);
        if kind.is_none() && gate.kind.is_some() {
            checker.refuse(&at("type"), &text, format!("must be one of {kinds}"));
        }
        let text = checker.required(&at("url"), gate.url.clone(), URL_RULE);
        let url = NotifyUrl::read(&text, false);
        if url.is_none() && gate.url.is_some() {
            checker.refuse(&at("url"), notify_url::presentable(&text, false), URL_RULE);
        }
        if let Some(path) = gate.ca_file.as_ref().filter(|_| url.as_ref().is_some_and(|url| !url.is_tls())) {
            checker.refuse(&at("ca_file"), path, CA_RULE);
        }
        let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
        let timeout = checker.duration(&at("timeout"), gate.timeout.as_deref(), seconds(10), ms(10), seconds(600));
        let interval = checker.duration(&at("interval"), gate.interval.as_deref(), seconds(10), ms(100), seconds(3_600));
        let ca_file = gate.ca_file.as_ref().map(PathBuf::from);
        gates.extend(kind.zip(url).map(|(kind, url)| Gate { name, kind, url, timeout, interval, ca_file }));
    }
    gates
}
