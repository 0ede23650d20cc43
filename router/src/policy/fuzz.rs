//! The fuzz target of admission: whatever the bytes are, a plugin is admitted or refused in clear words, in bounded time and memory.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::time::Duration;

use switchback_fuzz::{Target, kind_of, trace};
use tokio::time::Instant;

use super::admission::{Setting, Terms, admit};
use super::engine::{Limits, PolicyEngine};
use super::policies::SHIPPED;
use super::rejection::Rejection;

/// The sections of modules and components, and a few instructions.
const WORDS: [&[u8]; 16] = [
    b"\0asm\x0d\0\x01\0",
    b"\0asm\x01\0\0\0",
    b"\x00\x05\x04name",
    b"\x01\x04\x01\x60\0\0",
    b"\x03\x02\x01\0",
    b"\x05\x03\x01\0\x01",
    b"\x05\x04\x01\x01\x01\x7f",
    b"\x0a\x04\x01\x02\0\x0b",
    b"\x41\0\x41\0",
    b"\x03\x40\x0c\0\x0b",
    b"\x10\0",
    b"\xfc\x0a\0\0",
    b"\x40\0",
    b"switchback:policy/split@0.1.0",
    b"switchback:policy/rollback@0.1.0",
    b"wasi:cli/environment@0.2.6",
];

/// Larger plugins have nothing that smaller ones do not have, and take longer.
const MOST_BYTES: usize = 64 << 10;
/// Above every limit of one admission taken together.
const LONGEST: Duration = Duration::from_secs(20);
/// What admissions may leave behind, all of them together.
const LEFT_BEHIND: u64 = 256 << 20;

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

#[test]
fn plugins() {
    let limits =
        Limits { deadline: Duration::from_millis(20), configure_deadline: Duration::from_millis(100), memory: 16 << 20, stack: 256 << 10 };
    let engine = PolicyEngine::new(limits).unwrap();
    let terms = Terms {
        file_bytes: MOST_BYTES as u64,
        decision_budget: Duration::from_millis(1),
        trial_timeout: Duration::from_secs(2),
        settings: vec![Setting { split_config: "{}".to_owned(), pools: ["blue", "green", "canary"].map(str::to_owned).to_vec() }],
    };
    let before = resident();
    // How far admissions got: told, so that a run which only ever met the door is seen.
    let (admitted_ones, tried, typed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |counter: &Cell<u64>| counter.set(counter.get() + 1);
    let shipped = SHIPPED.iter().map(|(_, bytes)| bytes.to_vec()).filter(|bytes| bytes.len() <= MOST_BYTES).collect();
    Target { name: "plugins", words: &WORDS, seeds: shipped, most_bytes: MOST_BYTES }.run(|bytes| {
        let began = Instant::now();
        let verdict = admit(&engine, None, &terms, bytes);
        assert!(began.elapsed() < LONGEST, "an admission took {:?}", began.elapsed());
        match verdict {
            Ok(admitted) => {
                count(&admitted_ones);
                trace((admitted.report.world as u8, admitted.report.decisions))
            }
            Err(rejection) => {
                let said = rejection.to_string();
                match rejection {
                    Rejection::Failed { .. } | Rejection::Unsteady { .. } | Rejection::Slow { .. } | Rejection::Late { .. } => {
                        count(&tried)
                    }
                    Rejection::Invalid { .. } | Rejection::NotWasm { .. } | Rejection::CoreModule | Rejection::TooLarge { .. } => {}
                    _ => count(&typed),
                }
                assert!(!said.is_empty() && said.len() < 4_096 && !said.contains('\0'), "{said:?}");
                // A slow machine is no way of its own.
                if matches!(rejection, Rejection::Slow { .. } | Rejection::Late { .. }) { 0 } else { trace(kind_of(&said)) }
            }
        }
    });
    let compiled = admitted_ones.get() + tried.get() + typed.get();
    println!("{compiled} compiled: {} admitted, {} failed their trial, {} refused before", admitted_ones.get(), tried.get(), typed.get());
    assert!(admitted_ones.get() > 0 && typed.get() > 0, "no input got past the door");
    let grown = resident().saturating_sub(before);
    assert!(grown < LEFT_BEHIND, "admissions left {} MiB behind", grown >> 20);
}
