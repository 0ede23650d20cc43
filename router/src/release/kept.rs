//! How the store keeps what is known: one byte that tells the form, then postcard. Pure.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest record: states of a policy (256 KiB for a candidate, some 16 KiB for each arm of an experiment), and the sums.
pub(super) const RECORD_BYTES: usize = 1 << 20;

/// A record that the store keeps.
pub(super) trait Kept: Serialize + DeserializeOwned {
    /// Counts the forms that it had; a router that knows another one says so.
    const FORM: u8;

    /// Whether a router can have written it: it may have come from outside.
    fn is_sound(&self) -> bool;

    /// As bytes.
    fn write(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![Self::FORM]).unwrap_or_default()
    }

    /// Of bytes, which may be anybody's.
    ///
    /// # Errors
    /// [`RecordFault`].
    fn read(bytes: &[u8]) -> Result<Self, RecordFault> {
        if bytes.len() > RECORD_BYTES {
            return Err(RecordFault::TooLong);
        }
        let (form, rest) = bytes.split_first().ok_or(RecordFault::Unreadable)?;
        if *form != Self::FORM {
            return Err(RecordFault::OtherForm { form: *form, known: Self::FORM });
        }
        let (record, rest) = postcard::take_from_bytes::<Self>(rest).map_err(|_| RecordFault::Unreadable)?;
        if rest.is_empty() && record.is_sound() { Ok(record) } else { Err(RecordFault::Unsound) }
    }
}

/// Why a record is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordFault {
    #[error("it is longer than {RECORD_BYTES} bytes")]
    TooLong,
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is of form {form}, and this program knows form {known}")]
    OtherForm { form: u8, known: u8 },
    #[error("it says what no router would say")]
    Unsound,
}
