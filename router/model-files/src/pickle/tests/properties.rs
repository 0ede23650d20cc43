//! What holds for any bytes.

use proptest::prelude::*;

use super::super::{Allowed, Limits, Unsafe, examine, fuzz};
use super::golden::goods;
use super::look;

#[test]
fn a_good_file_that_is_cut_anywhere_is_refused() {
    for bytes in goods() {
        let whole = look(&bytes).unwrap();
        for length in 0..bytes.len() {
            match look(&bytes[..length]) {
                Err(error) => assert!(!matches!(error, Unsafe::Refused(_)), "{length}: {error}"),
                // Several pickles after each other may be cut between two.
                Ok(part) => assert!(part.pickles < whole.pickles, "{length} of {}", bytes.len()),
            }
        }
    }
}

#[test]
fn deep_nesting_and_long_runs_take_linear_memory() {
    for (run, end) in [("](", ""), ("(", ""), ("N\u{85}", ""), ("2", ""), ("}", "")] {
        let bytes: Vec<u8> = run.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).cycle().take(400_000).collect();
        let bytes = [b"N".as_slice(), &bytes, end.as_bytes()].concat();
        assert!(examine(&bytes, &Allowed::default(), &Limits::default()).is_err());
    }
}

const OPCODES: &[u8] = b"IJKMLSTUBCNVFGX]lt)d}aesu021(ghjpqrciobPQR.\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98";

proptest! {
    #[test]
    fn random_opcodes_never_panic(ops in prop::collection::vec((prop::sample::select(OPCODES), prop::collection::vec(any::<u8>(), 0..4)), 0..200)) {
        let bytes: Vec<u8> = ops.into_iter().flat_map(|(code, rest)| std::iter::once(code).chain(rest)).collect();
        drop(fuzz(&bytes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), start in 0_usize..8) {
        let starts: [&[u8]; 8] = [b"", b"\x80\x04", b"PK\x03\x04", b"\x93NUMPY\x01\0", b"\x1f\x8b\x08\0", b"BZh9", b"\x5d\0\0", b"\xfd7zXZ\0"];
        drop(fuzz(&[starts[start], &bytes].concat()));
    }

    #[test]
    fn changed_good_files_never_panic_and_name_only_what_is_allowed(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let all = goods();
        let mut bytes = which.get(&all).clone();
        let at = at.index(bytes.len());
        bytes[at] = to;
        drop(fuzz(&bytes));
    }
}
