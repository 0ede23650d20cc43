//! Why an event is refused.

use crate::quality::TokenFault;

/// Why an event, or a request with events, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventRefusal {
    /// The body has nothing in it.
    Empty,
    /// It is no JSON.
    BadJson,
    /// It is no UTF-8.
    BadUtf8,
    /// It is nested too deeply.
    TooDeep,
    /// A field is there twice.
    TwiceSaid,
    /// The event, or a field, is of another type than it must be.
    WrongType,
    /// The action, or the token, is missing.
    MissingField,
    /// The action is none that is known here.
    UnknownAction,
    /// The position is no whole number from 1.
    BadPosition,
    /// The number is not in 0..=1.
    BadNumber,
    /// What is wrong with its token.
    Token(TokenFault),
    /// Its token is of a route that this router has not.
    UnknownRoute,
    /// Its token says that the query counts for no pool: an override, or another pool's answer.
    Uncounted,
    /// It was said before.
    Repeated,
    /// More events than one request may have.
    TooMany,
    /// More events than are taken in this time.
    RateLimited,
    /// So many tokens have events that no more can be remembered.
    MemoryFull,
    /// The body is too large.
    TooLarge,
    /// The body did not come in time, or broke off.
    BrokenOff,
    /// The body has a coding.
    Encoded,
    /// The method is not POST.
    Method,
    /// Events are not taken here.
    Closed,
    /// So many requests wait that no more are taken.
    QueueFull,
}

impl EventRefusal {
    /// All of them, in the order of [`EventRefusal::place`].
    pub const ALL: [EventRefusal; 26] = [
        EventRefusal::Empty,
        EventRefusal::BadJson,
        EventRefusal::BadUtf8,
        EventRefusal::TooDeep,
        EventRefusal::TwiceSaid,
        EventRefusal::WrongType,
        EventRefusal::MissingField,
        EventRefusal::UnknownAction,
        EventRefusal::BadPosition,
        EventRefusal::BadNumber,
        EventRefusal::Token(TokenFault::Malformed),
        EventRefusal::Token(TokenFault::Forged),
        EventRefusal::Token(TokenFault::Expired),
        EventRefusal::Token(TokenFault::Early),
        EventRefusal::UnknownRoute,
        EventRefusal::Uncounted,
        EventRefusal::Repeated,
        EventRefusal::TooMany,
        EventRefusal::RateLimited,
        EventRefusal::MemoryFull,
        EventRefusal::TooLarge,
        EventRefusal::BrokenOff,
        EventRefusal::Encoded,
        EventRefusal::Method,
        EventRefusal::Closed,
        EventRefusal::QueueFull,
    ];

    /// In [`EventRefusal::ALL`].
    #[must_use]
    pub(super) fn place(self) -> usize {
        EventRefusal::ALL.iter().position(|other| *other == self).unwrap_or(0)
    }

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.words().0
    }

    /// What is allowed, for whoever sent it.
    #[must_use]
    pub fn why(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            EventRefusal::Empty => ("empty", "the body must hold an event, an array of events, or an event on each line"),
            EventRefusal::BadJson => ("bad_json", "must be JSON: an event, an array of events, or an event on each line"),
            EventRefusal::BadUtf8 => ("bad_utf8", "must be UTF-8"),
            EventRefusal::TooDeep => ("too_deep", "objects and arrays may be nested 16 deep"),
            EventRefusal::TwiceSaid => ("duplicate_field", "each field may be there once"),
            EventRefusal::WrongType => (
                "wrong_type",
                "an event is an object; action_name and query_id are text, event_attributes is an object, ordinal and value are numbers",
            ),
            EventRefusal::MissingField => ("missing_field", "an event needs action_name and query_id"),
            EventRefusal::UnknownAction => (
                "unknown_action",
                "action_name must be click, impression, conversion, purchase, add_to_cart or one of events.quality_actions",
            ),
            EventRefusal::BadPosition => ("bad_position", "position.ordinal must be a whole number from 1 to 10000: the first result is 1"),
            EventRefusal::BadNumber => ("bad_number", "the action needs a value from 0 to 1"),
            EventRefusal::Token(fault) => (
                fault.label(),
                match fault {
                    TokenFault::Malformed => "query_id must be the x-switchback-token of the response: 64 characters",
                    TokenFault::Forged => "no key of this router made this token",
                    TokenFault::Expired => "the token is older than events.token_lifetime",
                    TokenFault::Early => "the token is from the future: the clocks of routers differ",
                },
            ),
            EventRefusal::UnknownRoute => ("unknown_route", "the token is of a route that this router has not"),
            EventRefusal::Uncounted => {
                ("uncounted_token", "the query counts for no pool: it was an override, or another pool answered for its own")
            }
            EventRefusal::Repeated => ("repeated", "this token has had this action at this position"),
            EventRefusal::TooMany => ("too_many", "one request may have events.max_events events"),
            EventRefusal::RateLimited => {
                ("rate_limited", "more events than events.rate or events.rate_per_address allow: send it again later")
            }
            EventRefusal::MemoryFull => ("memory_full", "events.repeat_memory is full: an event that could be a repeat is not counted"),
            EventRefusal::TooLarge => ("too_large", "the body is larger than events.max_body"),
            EventRefusal::BrokenOff => ("broken_off", "the body did not come whole, or not in time"),
            EventRefusal::Encoded => ("encoded", "the body must come without Content-Encoding"),
            EventRefusal::Method => ("method", "send events with POST"),
            EventRefusal::Closed => ("closed", "no events are taken here"),
            EventRefusal::QueueFull => ("queue_full", "too many requests with events wait: send it again later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_has_a_label_and_a_place_of_its_own() {
        let labels: HashSet<&str> = EventRefusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), EventRefusal::ALL.len());
        assert!(EventRefusal::ALL.iter().enumerate().all(|(place, refusal)| refusal.place() == place && !refusal.why().is_empty()));
    }
}
