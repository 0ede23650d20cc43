//! From an event to what it counts: the token is verified, repeats are dropped, and the rest is attributed to the version that answered. Pure.

use std::collections::HashMap;

use super::read::{Action, Event};
use super::refusal::EventRefusal;
use super::repeats::{Repeats, Turn};
use crate::quality::{Secret, TokenFault, TokenKeys, route_id, route_of};

/// What events are held to.
#[derive(Debug)]
pub(super) struct Rules {
    /// By [`route_id`]: the route's name and keys.
    routes: HashMap<u32, (String, TokenKeys)>,
    /// Of a token, in seconds.
    pub(super) lifetime: u32,
    /// Of repeats, in bytes.
    pub(super) memory: usize,
}

impl Rules {
    pub(super) fn of<'a>(routes: impl Iterator<Item = &'a str>, secrets: &[Secret], lifetime: u32, memory: usize) -> Rules {
        let routes = routes.map(|name| (route_id(name), (name.to_owned(), TokenKeys::of(name, secrets)))).collect();
        Rules { routes, lifetime, memory }
    }

    /// Each route's id and name, in the order of names.
    pub(super) fn route_names(&self) -> Vec<(u32, &str)> {
        let mut names: Vec<(u32, &str)> = self.routes.iter().map(|(id, (name, _))| (*id, name.as_str())).collect();
        names.sort_unstable_by_key(|(_, name)| *name);
        names
    }
}

/// Something that counts, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booking {
    /// As [`route_id`] has it.
    pub route: u32,
    /// As [`crate::quality::version_id`] has it; or the arm's, as [`crate::vocabulary::arm_id`] has it.
    pub version: u32,
    /// That the query counts in.
    pub window: u32,
    /// Of its unit.
    pub group: u8,
    /// What.
    pub what: What,
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The token was clicked for the first time.
    Click,
    /// The token led to a conversion for the first time.
    Conversion,
    /// A number in 0..=1, in millionths.
    Quality(u32),
}

/// A good event: of which route, and what it counts, if anything. Impressions count nothing, since the tokens that were issued are the
/// denominator; nor do clicks and conversions after a token's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) route: u32,
    pub(super) booking: Option<Booking>,
}

/// Books an event at `now`, in seconds since 1970.
pub(super) fn book(event: &Event, repeats: &mut Repeats, rules: &Rules, now: u32) -> Result<Accepted, EventRefusal> {
    let text = event.token.as_bytes();
    let route = route_of(text).ok_or(EventRefusal::Token(TokenFault::Malformed))?;
    let (_, keys) = rules.routes.get(&route).ok_or(EventRefusal::UnknownRoute)?;
    let token = keys.read(text, now, rules.lifetime).map_err(EventRefusal::Token)?;
    if !token.is_counted {
        return Err(EventRefusal::Uncounted);
    }
    if event.action == Action::Impression {
        return Ok(Accepted { route, booking: None });
    }
    let turn = repeats.note(route, &token, event.action, event.position, rules.memory)?;
    let what = match event.action {
        Action::Quality(_, value) => What::Quality(value),
        Action::Click | Action::Impression => What::Click,
        Action::Conversion | Action::Purchase | Action::AddToCart => What::Conversion,
    };
    let version = if token.arm == 0 { token.version } else { token.arm };
    let booking = Booking { route, version, window: token.window, group: token.group, what };
    Ok(Accepted { route, booking: (turn == Turn::First).then_some(booking) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::{Token, version_id};
    use proptest::prelude::*;

    const NOW: u32 = 1_800_000_000;
    const HOUR: u32 = 3_600;

    fn rules() -> Rules {
        Rules::of(["search", "ads"].into_iter(), &[[7; 32]], HOUR, 1 << 20)
    }

    fn token() -> Token {
        Token { epoch: 1, pool: 0, is_counted: true, version: version_id("blue", "1"), arm: 0, window: NOW, group: 9, nonce: 1 }
    }

    fn issued(route: &str, secret: u8, token: &Token) -> String {
        String::from_utf8(TokenKeys::of(route, &[[secret; 32]]).issue(token).unwrap().to_vec()).unwrap()
    }

    fn event(action: Action, token: String, position: u16) -> Event {
        Event { action, token, position }
    }

    #[test]
    fn a_click_is_attributed_by_its_token_and_counts_once() {
        let (rules, mut repeats, text) = (rules(), Repeats::default(), issued("search", 7, &token()));
        let mut click = |position| book(&event(Action::Click, text.clone(), position), &mut repeats, &rules, NOW);
        let route = route_id("search");
        let booking = Booking { route, version: token().version, window: NOW, group: 9, what: What::Click };
        assert_eq!(click(2), Ok(Accepted { route, booking: Some(booking) }));
        assert_eq!(click(3), Ok(Accepted { route, booking: None }));
        assert_eq!(click(3), Err(EventRefusal::Repeated));
    }

    #[test]
    fn each_bad_token_has_its_reason() {
        let (rules, mut repeats) = (rules(), Repeats::default());
        let mut refused = |text: String| book(&event(Action::Click, text, 1), &mut repeats, &rules, NOW).unwrap_err();
        let fault = EventRefusal::Token;
        assert_eq!(refused("query-1".to_owned()), fault(TokenFault::Malformed));
        assert_eq!(refused(issued("search", 8, &token())), fault(TokenFault::Forged));
        assert_eq!(refused(issued("search", 7, &Token { window: NOW - HOUR - 1, ..token() })), fault(TokenFault::Expired));
        assert_eq!(refused(issued("search", 7, &Token { window: NOW + HOUR, ..token() })), fault(TokenFault::Early));
        assert_eq!(refused(issued("shop", 7, &token())), EventRefusal::UnknownRoute);
        assert_eq!(refused(issued("search", 7, &Token { is_counted: false, ..token() })), EventRefusal::Uncounted);
        assert_eq!(repeats.tokens(), 0, "nothing is remembered of them");
    }

    #[test]
    fn a_click_in_an_experiment_is_the_arms() {
        let (rules, mut repeats) = (rules(), Repeats::default());
        let event = event(Action::Click, issued("search", 7, &Token { arm: 77, ..token() }), 1);
        let booking = book(&event, &mut repeats, &rules, NOW).unwrap().booking;
        assert_eq!(booking.map(|booking| booking.version), Some(77));
    }

    #[test]
    fn impressions_are_taken_and_count_nothing() {
        let (rules, mut repeats) = (rules(), Repeats::default());
        let accepted = book(&event(Action::Impression, issued("ads", 7, &token()), 1), &mut repeats, &rules, NOW);
        assert_eq!(accepted, Ok(Accepted { route: route_id("ads"), booking: None }));
        assert_eq!(repeats.tokens(), 0);
    }

    proptest! {
        /// In any order and however often: what is counted is what a set of (token, action) would count.
        #[test]
        fn what_counts_is_the_same_in_any_order(events in prop::collection::vec((0..5_u64, 0..4_u8, 1..4_u16), 0..60)) {
            let (rules, mut repeats) = (rules(), Repeats::default());
            let actions = [Action::Click, Action::Conversion, Action::Purchase, Action::Quality(0, 5)];
            let mut counted = std::collections::BTreeMap::new();
            let mut expected = std::collections::BTreeSet::new();
            for (nonce, action, position) in events {
                let action = actions[usize::from(action)];
                let text = issued("search", 7, &Token { nonce, ..token() });
                if let Ok(Accepted { booking: Some(booking), .. }) = book(&event(action, text, position), &mut repeats, &rules, NOW) {
                    let kind = match booking.what { What::Click => 0, What::Conversion => 1, What::Quality(_) => 2 };
                    *counted.entry((nonce, kind)).or_insert(0) += 1;
                }
                expected.insert((nonce, match action { Action::Click => 0, Action::Quality(..) => 2, _ => 1 }));
            }
            prop_assert!(counted.values().all(|times| *times == 1));
            prop_assert_eq!(counted.into_keys().collect::<std::collections::BTreeSet<_>>(), expected);
        }
    }
}
