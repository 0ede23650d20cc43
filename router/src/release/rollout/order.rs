//! What operators may do with a rollout.

use super::event::Event;
use super::layout::{Fields, loadable};
use super::next::{Move, Seen, after, event_of};
use super::ready::{Lack, not_ready};
use crate::flags::{Hurry, Phase, Rollout};
use crate::release::rollback::taken_back;

/// An operator's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing goes on until it is resumed.
    Pause,
    /// It goes on; this step begins anew, with the shares that it had.
    Resume,
    /// This step may end.
    Approve,
    /// The next step begins now, whatever the evidence says.
    Promote,
    /// The candidate becomes live now.
    PromoteFully,
    /// The candidate gets nobody any more.
    Abort,
    /// Of one that is done: the old colour lets go of the version before.
    Retire,
}

impl Order {
    /// It means the step that whoever orders it saw.
    #[must_use]
    pub fn is_of_one_step(self) -> bool {
        matches!(self, Order::Approve | Order::Promote | Order::PromoteFully)
    }
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// What an order makes of a rollout. `who` and `why` are the operator's.
///
/// # Errors
/// Why it makes nothing.
pub fn carry_out(order: Order, seen: &Seen<'_>, who: &str, why: &str) -> Result<Move, Refusal> {
    let rollout = seen.rollout;
    let refuse = |why: String| Err(Refusal(why));
    if order == Order::Retire {
        return retire(seen, who, why);
    }
    if !rollout.phase.is_active() {
        return refuse(format!("the last rollout is over: {}", rollout.summary()));
    }
    let why = if why.is_empty() { who.to_owned() } else { format!("{who}: {why}") };
    match order {
        Order::Pause if rollout.paused.is_some() => refuse(format!("it is paused already: {}", rollout.summary())),
        Order::Pause => Ok(seen.moved(Event::Paused, Rollout { paused: Some(why.clone()), ..rollout.clone() }, &why)),
        Order::Resume if rollout.paused.is_none() => refuse(format!("it is not paused: {}", rollout.summary())),
        Order::Resume => match not_ready(rollout, seen) {
            Some(lack) => refuse(lack.what()),
            None => Ok(seen.moved(Event::Resumed, Rollout { paused: None, ..rollout.clone() }, &why)),
        },
        Order::Approve if !rollout.planned().is_some_and(|step| step.approval) || rollout.phase != Phase::Canary => {
            refuse(format!("this step needs no approval: {}", rollout.summary()))
        }
        Order::Approve if rollout.is_approved => refuse(format!("this step is approved already: {}", rollout.summary())),
        Order::Approve => Ok(seen.moved(Event::Approved, Rollout { is_approved: true, ..rollout.clone() }, &why)),
        Order::Promote | Order::PromoteFully => promote(order, seen, &why),
        Order::Abort => {
            let ended = Rollout { phase: Phase::Aborted, paused: None, ..rollout.clone() };
            Ok(ended_by(seen, ended, &why))
        }
        // Done above.
        Order::Retire => refuse(format!("there is nothing to retire: {}", rollout.summary())),
    }
}

/// Once more is no harm: servers that did not answer the first time are asked again.
fn retire(seen: &Seen<'_>, who: &str, why: &str) -> Result<Move, Refusal> {
    let (rollout, route) = (seen.rollout, seen.route);
    if !matches!(rollout.phase, Phase::Done | Phase::Retired) {
        return Err(Refusal(format!("there is nothing to retire before a rollout is done: {}", rollout.summary())));
    }
    let live = route.pools.get(seen.flags.live.get()).map_or("", |pool| pool.name.as_str());
    if live == rollout.from {
        return Err(Refusal(format!("{live} is live: what it runs is not retired")));
    }
    if loadable(&rollout.control, route).is_none() {
        let why = "it was not loaded by Switchback: the servers of its pool are yours ([route.loading] says how they load versions)";
        return Err(Refusal(format!("{} is not retired: {why}", rollout.control)));
    }
    let why = match why {
        // Who asks the servers once more has no other reason than before.
        "" if rollout.phase == Phase::Retired && !rollout.why.is_empty() => rollout.why.clone(),
        "" => who.to_owned(),
        why => format!("{who}: {why}"),
    };
    Ok(seen.moved(Event::Retired, Rollout { phase: Phase::Retired, ..rollout.clone() }, &why))
}

/// The end of a rollout: the candidate gets nobody any more.
pub(super) fn ended_by(seen: &Seen<'_>, ended: Rollout, why: &str) -> Move {
    let mut ended = seen.moved(Event::Aborted, ended, why);
    ended.fields.extend(taken_back(seen.flags, seen.route).map_or_else(no_copies, |back| back.fields));
    ended.fields.extend(["mirror_percent", "candidate_pool"].map(|field| (field.to_owned(), None)));
    ended
}

fn no_copies() -> Fields {
    Fields::from([("canary_percent".to_owned(), Some("0".to_owned()))])
}

fn promote(order: Order, seen: &Seen<'_>, why: &str) -> Result<Move, Refusal> {
    let rollout = seen.rollout;
    if seen.flags.is_frozen {
        return Err(Refusal("freeze is set: take it back first (switchback flag set ROUTE freeze=false)".to_owned()));
    }
    if order == Order::Promote && rollout.hurry == Some(Hurry::Live) {
        return Err(Refusal(format!("it is promoted to the end already: {}", rollout.summary())));
    }
    let hurry = if order == Order::PromoteFully { Hurry::Live } else { Hurry::Next };
    let hurried = Rollout { hurry: Some(hurry), paused: None, ..rollout.clone() };
    let Some(next) = after(&hurried, seen.route) else {
        return Err(Refusal(format!("there is nothing to promote: {}", rollout.summary())));
    };
    let why = format!("promoted by {why}");
    match not_ready(&next, seen) {
        None if seen.looks_first(&next).is_none() => Ok(seen.moved(event_of(&next), next, &why)),
        // As soon as its servers have it.
        None | Some(Lack::Version(_)) if rollout.hurry != Some(hurry) => Ok(seen.moved(Event::Promoted, hurried, &why)),
        None => Err(Refusal("it is promoted already, as soon as its servers serve what they should".to_owned())),
        Some(lack) => Err(Refusal(lack.what())),
    }
}
