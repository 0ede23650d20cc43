//! Durations and sizes as people write them: `250ms`, `5s`, `64KiB`, `16MiB`.

use std::time::Duration;

/// Reads a duration: a whole number and one of `us`, `ms`, `s`, `m`, `h`. Nothing else and nothing
/// between, so that `5` is never five of anything.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let micros: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    };
    Some(Duration::from_micros(number.checked_mul(micros)?))
}

/// Reads a duration that a person asks for: as [`duration`], or days, `30d`. Written settings have no days.
pub(crate) fn long_duration(text: &str) -> Option<Duration> {
    match split_number(text)? {
        (days, "d") => Some(Duration::from_micros(days.checked_mul(24 * 3_600_000_000)?)),
        _ => duration(text),
    }
}

/// Reads a size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Writes a duration as [`duration`] reads it.
pub(super) fn show_duration(value: Duration) -> String {
    let micros = value.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    for (factor, unit) in units {
        if micros >= factor && micros.is_multiple_of(factor) {
            return format!("{}{unit}", micros / factor);
        }
    }
    format!("{micros}us")
}

/// Writes a size as [`bytes()`] reads it.
pub(super) fn show_bytes(value: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if value >= 1 << shift && value.is_multiple_of(1 << shift) {
            return format!("{}{unit}", value >> shift);
        }
    }
    format!("{value}B")
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back() {
        for text in ["1us", "250ms", "5s", "2m", "1h"] {
            assert_eq!(duration(text).map(show_duration).as_deref(), Some(text));
        }
        for text in ["1B", "64KiB", "16MiB", "2GiB"] {
            assert_eq!(bytes(text).map(show_bytes).as_deref(), Some(text));
        }
    }

    #[test]
    fn people_ask_in_days_too() {
        assert_eq!(long_duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(long_duration("90m"), duration("90m"));
        for text in ["d", "1.5d", "1w", "18446744073709551615d"] {
            assert_eq!(long_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_no_duration() {
        for text in ["5", "", "s", "5 s", " 5s", "5s ", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
