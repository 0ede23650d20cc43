//! Fuzz target of events: whatever a body has in it, what is counted is bounded by the tokens in it, and every event is accepted or refused.
#![allow(clippy::unwrap_used)]

use switchback_fuzz::{Target, trace};

use super::book::{Rules, book};
use super::read::{Action, Reading, read};
use super::repeats::Repeats;
use super::{EventRefusal, What};
use crate::quality::{Token, TokenKeys, version_id};

const NOW: u32 = 1_800_000_000;
const HOUR: u32 = 3_600;
const MAX_EVENTS: usize = 8;

const WORDS: [&[u8]; 24] = [
    b"{\"action_name\": \"click\", \"query_id\": \"",
    b"\"action_name\": \"click\",",
    b"\"query_id\": ",
    b"\"event_attributes\": {\"position\": {\"ordinal\": 3}}",
    b"\"event_attributes\": ",
    b"\"position\": ",
    b"\"ordinal\": ",
    b"\"value\": ",
    b"\"impression\"",
    b"\"conversion\"",
    b"\"purchase\"",
    b"\"add_to_cart\"",
    b"\"quality\"",
    b"null",
    b"true",
    b"1e999",
    b"\"3\"",
    b"\n",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"\xef\xbb\xbf",
];

/// A good token of the route `search`.
fn token(nonce: u64) -> String {
    let token = Token { epoch: 1, pool: 0, is_counted: true, version: version_id("blue", "1"), arm: 0, window: NOW, group: 1, nonce };
    String::from_utf8(TokenKeys::of("search", &[[7; 32]]).issue(&token).unwrap().to_vec()).unwrap()
}

#[test]
fn events() {
    let tokens = [token(1), token(2)];
    let words: Vec<&[u8]> = WORDS.into_iter().chain(tokens.iter().map(String::as_bytes)).collect();
    let line = |token: &str, action: &str| {
        format!("{{\"action_name\": \"{action}\", \"query_id\": \"{token}\", \"value\": 0.5, \"position\": 2}}")
    };
    let seeds = vec![
        line(&tokens[0], "click").into_bytes(),
        format!("[{}, {}]", line(&tokens[0], "quality"), line(&tokens[1], "purchase")).into_bytes(),
        format!("{}\n{}\n", line(&tokens[0], "click"), line(&tokens[0], "click")).into_bytes(),
    ];
    let (names, rules) = (["quality".to_owned()], Rules::of(["search"].into_iter(), &[[7; 32]], HOUR, 1 << 20));
    Target { name: "events", words: &words, seeds, most_bytes: 4_096 }.run(|body| {
        let batch = read(body, Reading { max_events: MAX_EVENTS, quality_actions: &names });
        assert!(batch.events.len() <= MAX_EVENTS && batch.events.len() + batch.too_many <= body.len().max(1));
        assert!(!batch.events.is_empty() || body.contains(&b'['), "nothing but an empty array says nothing");
        let (mut repeats, mut ways, mut counted) = (Repeats::default(), Vec::new(), Vec::new());
        for event in &batch.events {
            let booked = event
                .as_ref()
                .map_err(|refusal| *refusal)
                .and_then(|event| book(event, &mut repeats, &rules, NOW).map(|done| (event, done)));
            match booked {
                Ok((event, done)) => {
                    // Only a token that was signed, and is in the body as it is or with escapes.
                    assert!(tokens.contains(&event.token), "{event:?}");
                    assert!(event.position <= 10_000);
                    if let Action::Quality(_, value) = event.action {
                        assert!(value <= 1_000_000);
                    }
                    if let Some(booking) = done.booking {
                        assert_eq!((booking.window, booking.group), (NOW, 1));
                        let kind = match booking.what {
                            What::Click => 0,
                            What::Conversion => 1,
                            What::Quality(_) => 2,
                        };
                        counted.push((event.token.clone(), kind));
                    }
                    ways.push((event.action.label(), done.booking.is_some(), event.position.min(2)));
                }
                Err(refusal) => ways.push((refusal.label(), refusal == EventRefusal::Repeated, 0)),
            }
        }
        let before = counted.len();
        counted.sort();
        counted.dedup();
        assert_eq!(counted.len(), before, "a token counts once");
        assert!(repeats.tokens() <= tokens.len());
        trace((ways, batch.too_many.min(3)))
    });
}
