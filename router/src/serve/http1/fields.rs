//! Maps of fields that are used again, and numbers in fields.

use std::cell::RefCell;

use http::HeaderMap;

use super::lines::FIELDS;

/// Maps that wait to be used again, of each worker.
const SPARES: usize = 16;
thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub(super) fn roomy(fields: usize) -> HeaderMap {
    let mut headers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(fields);
    headers
}

/// Nobody needs it any more: its room is used again.
pub(crate) fn give_back(mut headers: HeaderMap) {
    if headers.capacity() <= 2 * FIELDS {
        headers.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                spare.push(headers);
            }
        });
    }
}

/// Digits and nothing else, up to 2^63 - 1: who counts with a sign would take more for another number.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| number.checked_mul(10)?.checked_add(char::from(*byte).to_digit(10)?.into());
    let number = if text.is_empty() { None } else { text.iter().try_fold(0, digit) };
    number.filter(|number| *number <= i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_that_anybody_can_count_to() {
        assert_eq!(
            ["0", "007", "42", "9223372036854775807"].map(|text| number(text.as_bytes())),
            [Some(0), Some(7), Some(42), Some(i64::MAX as u64)]
        );
        for odd in ["", "+1", "-1", "1 ", "0x1", "1e3", "9223372036854775808", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(number(odd.as_bytes()), None, "{odd:?}");
        }
    }
}
