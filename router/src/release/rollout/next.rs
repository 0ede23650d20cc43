//! The next transition of a rollout, or what it waits for.

use super::copies::{self, Verdict, all_copies_of};
use super::event::Event;
use super::fresh::{Asked, ServersSeen};
use super::layout::{ByHand, Fields, by_hand, fields};
use super::order::ended_by;
use super::ready::{Lack, LoadSeen, LoadState, ToLoad, not_ready};
use crate::config::{Gate, GateKind, Route};
use crate::flags::{Flags, Hurry, Phase, Rollout, RouterSeen};
use crate::release::view::EvidenceView;
use crate::vocabulary::Ppm;

/// Evidence that was last judged longer ago is not of now.
const FRESH_MS: u64 = 10_000;

/// A candidate of which more than this part fails goes nowhere, however control fares.
const OUTAGE: f64 = 0.2;

/// A bake does not end with more than this part of the evidence that a rollback takes.
const LINGERS: f64 = 0.25;

/// What is seen of a route at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its config.
    pub route: &'a Route,
    /// Its flags, as the store has them.
    pub flags: &'a Flags,
    /// The rollout among them; or, where that was removed, as it was.
    pub rollout: &'a Rollout,
    /// Milliseconds since 1970, by the store's clock.
    pub now_ms: u64,
    /// What is known of the candidate.
    pub evidence: Option<&'a EvidenceView>,
    /// Who is heard of.
    pub routers: &'a [RouterSeen],
    /// Healthy endpoints, pool by pool, as this router sees them.
    pub healthy: &'a [usize],
    /// What a gate keeps the next transition from; `None` where none does.
    pub gate: Option<&'a str>,
    /// The load that is under way, or was last.
    pub load: Option<&'a LoadSeen>,
    /// What its servers serve; `None`: nobody asked.
    pub servers: Option<&'a ServersSeen>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is over.
    Rest,
    /// Something has to come first.
    Wait(String),
    /// The servers of a pool have to load the version first.
    Load(ToLoad),
    /// The servers that a transition stands on have to be asked first what they serve.
    Look {
        /// What the transition is.
        event: Event,
        /// Whose servers.
        pools: Vec<Asked>,
    },
    /// This is to be written.
    Go(Box<Move>),
}

/// A transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// What it is.
    pub event: Event,
    /// The record after it.
    pub rollout: Rollout,
    /// Everything that it writes, the record too.
    pub fields: Fields,
}

/// What a rollout does next. Never a rollback: that does not wait for a rollout.
#[must_use]
pub fn next(seen: &Seen<'_>) -> Next {
    let rollout = seen.rollout;
    if !rollout.phase.is_active() {
        return Next::Rest;
    }
    match by_hand(rollout, seen.flags, seen.route) {
        Some(ByHand::Gone(what)) => {
            return seen.go(Event::Aborted, Rollout { phase: Phase::Aborted, ..rollout.clone() }, format!("changed by hand: {what}"));
        }
        Some(ByHand::Share(what)) if rollout.paused.is_none() => {
            let why = format!("changed by hand: {what}");
            return seen.go(Event::Paused, Rollout { paused: Some(why.clone()), ..rollout.clone() }, why);
        }
        _ => {}
    }
    if let Some(why) = seen.trips().filter(|_| !rollout.is_tripped) {
        return seen.go(Event::BreakerTripped, Rollout { is_tripped: true, ..rollout.clone() }, why);
    }
    if let Some(next) = seen.lost() {
        return next;
    }
    match seen.waits_for() {
        Some(Wait::Silent(what)) => Next::Wait(what),
        Some(Wait::Told(what)) => seen.wait(what),
        // What speaks against it may be another model's.
        Some(Wait::Ended(why)) => seen.looks_before(Event::Aborted, rollout).unwrap_or_else(|| seen.end(&why)),
        None => seen.advance(),
    }
}

/// What has to come first; operators are told of what takes too long, but not of what one of them wanted. Or that nothing is to come.
enum Wait {
    Silent(String),
    Told(String),
    Ended(String),
}

impl Seen<'_> {
    fn waits_for(&self) -> Option<Wait> {
        let (rollout, flags) = (self.rollout, self.flags);
        if let Some(why) = &rollout.paused {
            return Some(Wait::Silent(format!("paused: {why}")));
        }
        if flags.is_frozen {
            return Some(Wait::Silent("freeze is set".to_owned()));
        }
        if flags.pin.is_some() {
            return Some(Wait::Silent("all traffic is pinned to a pool".to_owned()));
        }
        let of_fleet = self.trips().or_else(|| self.not_obeyed());
        if let Some(what) = of_fleet {
            return Some(Wait::Told(what));
        }
        if rollout.hurry.is_some() {
            return None;
        }
        let of_copies = copies::judge(self);
        if let Verdict::Bad(why) = of_copies {
            return Some(Wait::Ended(why));
        }
        let elapsed = self.now_ms.saturating_sub(rollout.since_ms);
        let (least, what) = match rollout.phase {
            Phase::Loading | Phase::Pending => (0, ""),
            Phase::Mirroring => (rollout.plan.mirror_ms, "queries are copied"),
            Phase::Baking => (rollout.plan.bake_ms, "it bakes"),
            _ => (rollout.planned().map_or(0, |step| step.dwell_ms), "this step takes its time"),
        };
        if elapsed < least {
            return Some(Wait::Silent(format!("{what}: {} of {} s", elapsed / 1_000, least.div_ceil(1_000))));
        }
        if let Verdict::Open(what) = of_copies {
            return Some(Wait::Told(what));
        }
        self.evidence_lacks().map(|what| Wait::Told(what + &self.beside_experiments()))
    }

    /// One breaker that tripped is reason enough not to go on.
    fn trips(&self) -> Option<String> {
        let is_of_this = |router: &&RouterSeen| router.trip.as_ref().is_some_and(|trip| trip.version == self.rollout.candidate);
        let router = self.routers.iter().filter(|router| router.is_known).find(is_of_this)?;
        let why = router.trip.as_ref().map(|trip| trip.why.as_str()).unwrap_or_default();
        Some(format!("the breaker of {} tripped: {why}", router.id))
    }

    /// Nothing goes on before everybody who is heard of is where the rollout is.
    fn not_obeyed(&self) -> Option<String> {
        let known = || self.routers.iter().filter(|router| router.is_known);
        let behind = known().filter(|router| router.epoch < self.flags.epoch).count();
        (behind > 0).then(|| format!("{behind} of {} routers do not obey epoch {} yet", known().count(), self.flags.epoch))
    }

    /// What is known of this candidate against this control, in this rollout.
    fn of_this(&self) -> Option<&EvidenceView> {
        let Rollout { candidate, control, .. } = self.rollout;
        self.evidence
            .filter(|evidence| evidence.candidate.version == *candidate && evidence.control.version == *control && !evidence.is_over)
    }

    /// That there is little to judge, where that is so.
    fn beside_experiments(&self) -> String {
        let left = self.flags.experiments.as_ref().map(|all| all.left_for_rollouts());
        left.filter(|left| left.get() < Ppm::ALL.get() / 2)
            .map_or_else(String::new, |left| format!("; experiments leave {left} % of the units"))
    }

    /// What the evidence lacks for the next transition. No data never decides.
    fn evidence_lacks(&self) -> Option<String> {
        let rollout = self.rollout;
        // Nobody is answered by the candidate while it mirrors, and nobody is compared with without a holdback.
        let is_nobody_compared = rollout.phase == Phase::Baking && rollout.plan.holdback.get() == 0;
        if matches!(rollout.phase, Phase::Loading | Phase::Pending | Phase::Mirroring) || is_nobody_compared {
            return None;
        }
        let Some(evidence) = self.of_this() else { return Some("nothing was judged yet".to_owned()) };
        let age = self.now_ms.saturating_sub(evidence.judged_unix_ms);
        if age > FRESH_MS {
            return Some(format!("nothing was judged for {} s", age / 1_000));
        }
        // A window that began after this step did, on every router.
        if u64::from(evidence.judged_until_unix_seconds) * 1_000 < rollout.since_ms + 2_000 {
            return Some("no window of this step was judged yet".to_owned());
        }
        if let Some(failing) = evidence.candidate_failing.filter(|failing| *failing > OUTAGE) {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let control =
                evidence.control_failing.map_or_else(|| "has no requests".to_owned(), |share| format!("{} of control's", percent(share)));
            return Some(format!("{} of the candidate's requests fail ({control}): nothing goes on in an outage", percent(failing)));
        }
        match evidence.verdict {
            None | Some("no_data") => return Some(evidence.summary.clone()),
            Some("hold") if rollout.phase == Phase::Canary => return Some(evidence.summary.clone()),
            Some("roll_back") => return Some(evidence.summary.clone()),
            Some(_) => {}
        }
        // With the bake, control goes: what is about to be found out would never be.
        if let (Phase::Baking, Some(harm), Some(threshold)) = (rollout.phase, evidence.log_harm, evidence.threshold_log)
            && harm > threshold * LINGERS
        {
            return Some(format!("it bakes on: evidence of harm {harm:.1} of {threshold:.1}"));
        }
        let least = rollout.planned().map_or(0, |step| step.min_samples);
        let samples = samples_since(evidence.candidate_requests, rollout.samples_before);
        (rollout.phase == Phase::Canary && samples < least).then(|| format!("{samples} of {least} requests of the candidate in this step"))
    }

    fn advance(&self) -> Next {
        let rollout = self.rollout;
        let Some(after) = after(rollout, self.route) else { return Next::Rest };
        let is_step = rollout.phase == Phase::Canary && rollout.hurry.is_none();
        if is_step && rollout.planned().is_some_and(|step| step.approval) && !rollout.is_approved {
            let what = "an operator has to approve: switchback rollout approve".to_owned();
            if !rollout.is_asked {
                return self.go(Event::ApprovalNeeded, Rollout { is_asked: true, ..rollout.clone() }, what);
            }
            return self.wait(what);
        }
        match not_ready(&after, self) {
            Some(Lack::Version(to_load)) => return self.load(to_load),
            Some(Lack::Other(what)) => return self.wait(what),
            None => {}
        }
        // No gate holds up what an operator wants.
        if let Some(what) = self.gate.filter(|_| rollout.hurry.is_none()) {
            return self.wait(what.to_owned());
        }
        if let Some(next) = self.looks_first(&after) {
            return next;
        }
        let why = match rollout.phase {
            _ if rollout.hurry.is_some() || rollout.is_at_once() => rollout.why.clone(),
            Phase::Loading => "the servers have the version".to_owned(),
            Phase::Pending => "every gate says yes".to_owned(),
            Phase::Canary | Phase::Baking => {
                let nobody = || "its time is over, and there is nobody to compare it with".to_owned();
                self.of_this().map_or_else(nobody, |evidence| match evidence.summary.strip_prefix("hold: ") {
                    // A bake ends when nothing was found in its time.
                    Some(what) => format!("its time is over: {what}"),
                    None => evidence.summary.clone(),
                })
            }
            _ => copies::time_is_over(self),
        };
        self.go(event_of(&after), after, why)
    }

    /// What becomes of a load that has to come first.
    fn load(&self, to_load: ToLoad) -> Next {
        let load = self.load.filter(|load| (&load.pool, &load.version) == (&to_load.pool, &to_load.version));
        match load.map(|load| &load.state) {
            None => Next::Load(to_load),
            Some(LoadState::Underway(what)) => match self.wait(self.cannot_load(&to_load).unwrap_or_else(|| what.clone())) {
                Next::Wait(_) => Next::Load(to_load),
                told => told,
            },
            Some(LoadState::Loaded { what, took_ms }) => {
                // What an operator wants at once, and why, stays said until it is done.
                let why = if self.rollout.hurry.is_some() { format!("{}; {what}", self.rollout.why) } else { what.clone() };
                let (load_ms, loaded_on) = (Some(*took_ms), Some(to_load.pool.clone()));
                let mut loaded = self.moved(Event::Loaded, Rollout { load_ms, loaded_on, ..self.rollout.clone() }, &why);
                loaded.fields.insert(format!("version.{}", to_load.pool), Some(to_load.version));
                Next::Go(Box::new(loaded))
            }
            Some(LoadState::Refused(what)) => self.end(&format!("not loaded: {what}")),
        }
    }

    /// The candidate gets nobody any more.
    fn end(&self, why: &str) -> Next {
        let ended = Rollout { phase: Phase::Aborted, ..self.rollout.clone() };
        Next::Go(Box::new(ended_by(self, ended, why)))
    }

    /// Waits; operators are told once when that takes too long.
    pub(super) fn wait(&self, what: String) -> Next {
        let rollout = self.rollout;
        let most = rollout.plan.max_step_ms + if rollout.phase == Phase::Baking { rollout.plan.bake_ms } else { 0 };
        let elapsed = self.now_ms.saturating_sub(rollout.first_began_ms.unwrap_or(rollout.since_ms));
        if rollout.is_stalled || elapsed <= most {
            return Next::Wait(what);
        }
        let why = format!("this takes {} s already: {what}", elapsed / 1_000);
        self.go(Event::Stalled, Rollout { is_stalled: true, ..rollout.clone() }, why)
    }

    pub(super) fn go(&self, event: Event, rollout: Rollout, why: String) -> Next {
        Next::Go(Box::new(self.moved(event, rollout, &why)))
    }

    /// A transition: `to` is the record after it, but for what every transition notes.
    pub(super) fn moved(&self, event: Event, to: Rollout, why: &str) -> Move {
        let mut rollout = Rollout { moves: to.moves.saturating_add(1), why: why.chars().take(1_024).collect(), ..to };
        let begins =
            (rollout.phase, rollout.step) != (self.rollout.phase, self.rollout.step) || matches!(event, Event::Resumed | Event::StepBegan);
        let is_anew = (rollout.phase, rollout.step) == (self.rollout.phase, self.rollout.step) && event == Event::StepBegan;
        if begins {
            rollout.since_ms = self.now_ms;
            rollout.samples_before = self.evidence.map_or(0, |evidence| evidence.candidate_requests);
            (rollout.is_approved, rollout.is_asked, rollout.is_tripped) = (false, false, false);
            // One that begins again and again is told as stalled all the same, and once.
            rollout.first_began_ms = is_anew.then(|| self.rollout.first_began_ms.unwrap_or(self.rollout.since_ms));
            rollout.is_stalled &= is_anew;
        }
        if begins && self.rollout.phase == Phase::Mirroring && rollout.phase == Phase::Mirroring {
            rollout.copies_before = all_copies_of(self.rollout, self.routers);
        }
        if begins && event != Event::Resumed {
            rollout.hurry = None;
        }
        let fields = match event {
            // What somebody changed by hand stays; copies are nobody's.
            Event::Aborted if self.rollout.phase == Phase::Mirroring => {
                Fields::from([("rollout".to_owned(), Some(rollout.render())), ("mirror_percent".to_owned(), None)])
            }
            Event::Paused
            | Event::Approved
            | Event::ApprovalNeeded
            | Event::Stalled
            | Event::BreakerTripped
            | Event::Loaded
            | Event::Promoted
            | Event::Aborted => Fields::from([("rollout".to_owned(), Some(rollout.render()))]),
            // Nobody is sent anywhere by it.
            Event::StepBegan if is_anew => Fields::from([("rollout".to_owned(), Some(rollout.render()))]),
            _ => fields(&rollout, self.route),
        };
        Move { event, rollout, fields }
    }
}

/// Whether gates are asked before anybody is sent to a candidate.
pub(super) fn is_gated(route: &Route) -> bool {
    route.rollout.gates.iter().any(|gate: &Gate| matches!(gate.kind, GateKind::ConfirmRollout | GateKind::PreRollout))
}

/// What comes after a phase or step that is through.
pub(super) fn after(rollout: &Rollout, route: &Route) -> Option<Rollout> {
    let is_to_be_live = rollout.hurry == Some(Hurry::Live) && rollout.phase.is_active() && rollout.phase != Phase::Baking;
    let (phase, step) = match rollout.phase {
        _ if is_to_be_live => (Phase::Baking, rollout.plan.steps.len().saturating_sub(1)),
        Phase::Loading if is_gated(route) => (Phase::Pending, 0),
        Phase::Loading => (rollout.plan.first(), 0),
        Phase::Pending => (rollout.plan.first(), 0),
        Phase::Mirroring => (Phase::Canary, 0),
        Phase::Canary if rollout.is_last_step() => (Phase::Baking, rollout.step),
        Phase::Canary => (Phase::Canary, rollout.step + 1),
        Phase::Baking => (Phase::Done, rollout.step),
        Phase::Done | Phase::RolledBack | Phase::Aborted | Phase::Retired => return None,
    };
    Some(Rollout { phase, step, ..rollout.clone() })
}

pub(super) fn event_of(after: &Rollout) -> Event {
    match after.phase {
        Phase::Baking => Event::Switched,
        Phase::Done => Event::Done,
        Phase::Retired => Event::Retired,
        _ => Event::StepBegan,
    }
}

/// A comparison that began anew counts from nothing.
fn samples_since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
