//! Any bytes, and good files with changes: none makes a reader panic, and what is accepted keeps the invariants, which the fuzz entries assert.

use proptest::prelude::*;

use super::fuzz::{fuzz_lightgbm, fuzz_onnx, fuzz_xgboost};
use super::samples;

fn every_reader(bytes: &[u8]) {
    let _ = (fuzz_lightgbm(bytes), fuzz_xgboost(bytes), fuzz_onnx(bytes));
}

/// What is done to a file: at a place, one of these, with a number.
fn change(bytes: &mut Vec<u8>, place: usize, what: u8, number: u8) {
    let place = place % bytes.len().max(1);
    let Some(byte) = bytes.get_mut(place) else { return };
    match what {
        0 => *byte = number,
        1 => *byte ^= 1 << (number % 8),
        2 => bytes.truncate(place),
        3 => bytes.insert(place, number),
        4 => drop(bytes.remove(place)),
        5 => *byte = byte.wrapping_add(1),
        // A part again, or without it.
        6 => {
            let end = place.saturating_add(usize::from(number)).min(bytes.len());
            let part = bytes[place..end].to_vec();
            bytes.splice(place..place, part);
        }
        _ => drop(bytes.drain(place..place.saturating_add(usize::from(number)).min(bytes.len()))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        every_reader(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(lines in prop::collection::vec("(tree|version=v4|num_class=1|Tree=0|num_leaves=[0-9]|[{}\\[\\]\",:a-z0-9=\\-]{0,20})", 0..40)) {
        every_reader(lines.join("\n").as_bytes());
    }

    #[test]
    fn changed_files_are_read_or_refused(which in 0..4_usize, changes in prop::collection::vec((any::<usize>(), 0..8_u8, any::<u8>()), 1..6)) {
        let mut bytes = samples::all().swap_remove(which);
        for (place, what, number) in changes {
            change(&mut bytes, place, what, number);
        }
        every_reader(&bytes);
    }
}
