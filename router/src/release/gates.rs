//! Asks the gates of a rollout, beside everything else: nothing waits for an answer but the transition that it is about, and a rollback never.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::rollout::Event;
use crate::config::GateKind;
use crate::flags::{Phase, Rollout};
use crate::notify::OpenGate;

/// What a gate said last, and of which transition.
struct Asked {
    /// The rollout's id, and its transitions so far.
    about: (String, u64),
    /// While it is asked.
    task: Option<JoinHandle<Result<(), String>>>,
    /// `None`: nothing yet.
    said: Option<Result<(), String>>,
    again: Instant,
}

/// The gates of one route.
#[derive(Default)]
pub(super) struct Gates {
    asked: BTreeMap<String, Asked>,
}

/// Which gates a transition waits for.
fn kinds(rollout: &Rollout, event: Event) -> &'static [GateKind] {
    match (event, rollout.phase) {
        (Event::StepBegan, Phase::Pending) => &[GateKind::ConfirmRollout, GateKind::PreRollout],
        (Event::StepBegan, Phase::Canary) => &[GateKind::Rollout, GateKind::ConfirmTrafficIncrease],
        (Event::Switched, _) => &[GateKind::Rollout, GateKind::ConfirmPromotion],
        _ => &[],
    }
}

impl Gates {
    /// What the transition waits for: a gate that was not asked yet, or said no. `None` lets it go on.
    pub(super) async fn wait_for(&mut self, gates: &[Arc<OpenGate>], rollout: &Rollout, event: Event, route: &str) -> Option<String> {
        let kinds = kinds(rollout, event);
        let mut waits = None;
        for gate in gates.iter().filter(|gate| kinds.contains(&gate.gate.kind)) {
            let name = &gate.gate.name;
            match self.ask(gate, rollout, event.label(), route).await {
                Some(Ok(())) => {}
                Some(Err(why)) => waits = Some(format!("gate {name} says no: {why}")),
                None => waits = waits.or(Some(format!("gate {name} is asked"))),
            }
        }
        waits
    }

    /// Whether a gate of the kind `rollback` says that the candidate is to go: its name.
    pub(super) async fn wants_rollback(&mut self, gates: &[Arc<OpenGate>], rollout: &Rollout, route: &str) -> Option<String> {
        for gate in gates.iter().filter(|gate| gate.gate.kind == GateKind::Rollback) {
            if self.ask(gate, rollout, "rollback", route).await == Some(Ok(())) {
                return Some(gate.gate.name.clone());
            }
        }
        None
    }

    /// Forgets what was said of a rollout that is over.
    pub(super) fn forget(&mut self) {
        self.asked.values_mut().filter_map(|asked| asked.task.take()).for_each(|task| task.abort());
        self.asked.clear();
    }

    /// What a gate says of this transition; it is asked where it was not, and again some time after a no.
    async fn ask(&mut self, gate: &Arc<OpenGate>, rollout: &Rollout, transition: &str, route: &str) -> Option<Result<(), String>> {
        let about = (rollout.id.clone(), rollout.moves);
        let now = Instant::now();
        let asked =
            self.asked.entry(gate.gate.name.clone()).or_insert_with(|| Asked { about: about.clone(), task: None, said: None, again: now });
        if asked.about != about {
            if let Some(task) = asked.task.take() {
                task.abort();
            }
            *asked = Asked { about, task: None, said: None, again: now };
        }
        if let Some(task) = asked.task.take_if(|task| task.is_finished()) {
            asked.said = Some(task.await.unwrap_or_else(|error| Err(error.to_string())));
            asked.again = now + gate.gate.interval;
        }
        let is_yes = asked.said == Some(Ok(()));
        if asked.task.is_none() && now >= asked.again && !is_yes {
            let (gate, id) = (gate.clone(), format!("{}-{}-{}", rollout.id, rollout.moves, gate.gate.name));
            let body = question(&gate, rollout, transition, route);
            asked.task = Some(tokio::spawn(async move { gate.ask(&id, &body).await }));
        }
        asked.said.clone()
    }
}

fn question(gate: &OpenGate, rollout: &Rollout, transition: &str, route: &str) -> Value {
    json!({
        "gate": gate.gate.name,
        "type": gate.gate.kind.name(),
        "route": route,
        "rollout": rollout.id,
        "candidate": rollout.candidate,
        "control": rollout.control,
        "phase": rollout.phase.label(),
        "step": rollout.step + 1,
        "percent": rollout.planned().map(|step| step.percent.percent()),
        "transition": transition,
    })
}
