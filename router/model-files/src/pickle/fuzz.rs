//! The entry for fuzzing: whatever the bytes are, an examination ends, within limits that are small here, and does not panic.

use super::allowed::Allowed;
use super::examine::{Examined, examine};
use super::limits::Limits;

/// Limits that a short input can reach.
fn small() -> Limits {
    Limits {
        bytes: 1 << 20,
        unpacked_bytes: 1 << 20,
        ratio: 50,
        ratio_from: 64 << 10,
        opcodes: 10_000,
        memo: 1_000,
        stack: 1_000,
        text_bytes: 256,
        kept_bytes: 256 << 10,
        nesting: 3,
        pickles: 20,
        globals: 50,
        entries: 50,
        dictionary_bytes: 1 << 20,
    }
}

/// Examines `data`. `Err`: the message of what is refused.
///
/// # Panics
///
/// If the verdict breaks a promise: a file that is accepted names only what is allowed, and a refusal says something.
pub(crate) fn fuzz(data: &[u8]) -> Result<Examined, String> {
    thread_local! {
        static ALLOWED: (Allowed, Vec<String>) = { let allowed = Allowed::default(); let names = allowed.names(); (allowed, names) };
    }
    ALLOWED.with(|(allowed, names)| match examine(data, allowed, &small()) {
        Ok(examined) => {
            assert!(examined.globals.iter().all(|global| names.binary_search(global).is_ok()), "{examined:?}");
            Ok(examined)
        }
        Err(refused) => {
            let message = refused.to_string();
            assert!(!message.is_empty());
            Err(message)
        }
    })
}
