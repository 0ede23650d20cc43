//! Fuzz targets of what comes back from outside: tokens (only what was signed is read, and as it was signed), and what other routers counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use switchback_fuzz::{Target, trace};

use super::pages::{self, Half, Written};
use super::{CHARACTERS, Counts, GROUPS, Number, Token, TokenFault, TokenKeys, Window, route_id, route_of};

const NOW: u32 = 1_800_000_000;
const HOUR: u32 = 3_600;

/// A token made of bytes, so that mutations reach every field.
fn token_of(bytes: &[u8]) -> Token {
    let byte = |place: usize| bytes.get(place).copied().unwrap_or(0);
    let word = |place: usize| u32::from_be_bytes([byte(place), byte(place + 1), byte(place + 2), byte(place + 3)]);
    let number = |place: usize| u64::from(word(place)) << 16 | u64::from(byte(place + 4));
    let window = (NOW + 60).wrapping_sub(word(6) % (2 * HOUR));
    Token {
        epoch: number(0),
        pool: byte(5) & 63,
        is_counted: byte(5) & 64 == 0,
        version: word(10),
        arm: word(14),
        window,
        group: byte(18) % GROUPS,
        nonce: number(19),
    }
}

#[test]
fn quality_token() {
    let (ours, old, theirs) =
        (TokenKeys::of("search", &[[1; 32], [2; 32]]), TokenKeys::of("search", &[[2; 32]]), TokenKeys::of("ads", &[[1; 32]]));
    let signed: Vec<Vec<u8>> =
        [&ours, &old, &theirs].iter().map(|keys| keys.issue(&token_of(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 120])).unwrap().to_vec()).collect();
    let words: [&[u8]; 6] = [&signed[0], &signed[1], &signed[2], b"AQ", b"_", b"="];
    Target { name: "quality_token", words: &words, seeds: signed.clone(), most_bytes: 200 }.run(|bytes| {
        // As a token that somebody sends.
        let read = ours.read(bytes, NOW, HOUR);
        let is_ours = signed[..2].iter().any(|text| text == bytes);
        assert_eq!(read.is_ok(), is_ours, "{read:?}");
        if bytes.len() != CHARACTERS || URL_SAFE_NO_PAD.decode(bytes).is_err() {
            assert_eq!((read, route_of(bytes)), (Err(TokenFault::Malformed), None));
        }
        // As what a token is made of.
        let token = token_of(bytes);
        for keys in [&ours, &old] {
            let text = keys.issue(&token).unwrap();
            assert_eq!(route_of(&text), Some(route_id("search")));
            let expected = match token.window {
                window if window > NOW + 5 => Err(TokenFault::Early),
                window if window + HOUR < NOW => Err(TokenFault::Expired),
                _ => Ok(token),
            };
            assert_eq!(ours.read(&text, NOW, HOUR), expected);
            assert_eq!(theirs.read(&text, NOW, HOUR), Err(TokenFault::Forged));
        }
        trace((read.map(|token| token.is_counted).map_err(TokenFault::label), token.window > NOW, token.is_counted))
    });
}

#[test]
fn fleet_pages() {
    let page = pages::page_of(NOW);
    let mut counts = Counts::default();
    for number in Number::ALL {
        counts.add(number, 7, 3);
    }
    counts.latency.insert(700, 2);
    let windows = Written::from([(NOW, Window::from([(7, counts.clone()), (9, counts.clone())])), (NOW + 1, Window::from([(7, counts)]))]);
    let seeds = Half::ALL.map(|half| pages::write(half, windows.iter().map(|(second, window)| (*second, window)))).to_vec();
    let words: [&[u8]; 3] = [&[1, 1], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 9]];
    Target { name: "fleet_pages", words: &words, seeds, most_bytes: 2_048 }.run(|bytes| {
        let read = match pages::read(page, bytes) {
            Ok(read) => read,
            Err(fault) => return trace(fault.to_string()),
        };
        assert!(read.keys().all(|second| pages::page_of(*second) == page));
        assert!(read.values().flat_map(Window::values).all(Counts::is_of_a_window));
        // Merging it with anything, in either order, is the same and does not overflow.
        let (mut one, mut other) = (windows.clone(), read.clone());
        pages::add(&mut one, &read);
        pages::add(&mut other, &windows);
        assert_eq!(one, other);
        // What is said again of it says the same.
        let mut again = Written::new();
        for half in Half::ALL {
            let field = pages::write(half, read.iter().map(|(second, window)| (*second, window)));
            if !field.is_empty() {
                pages::add(&mut again, &pages::read(page, &field).unwrap());
            }
        }
        let sum =
            |windows: &Written| windows.values().flat_map(Window::values).map(|counts| u128::from(counts[Number::Requests])).sum::<u128>();
        assert_eq!(sum(&again), sum(&read));
        trace((read.len(), read.values().map(Window::len).sum::<usize>()))
    });
}
