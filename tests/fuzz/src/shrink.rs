//! Makes an input that breaks a promise smaller, so that a person can read it.

/// Tries in all: a target that takes long is not shrunk for hours.
const TRIES: usize = 2_000;

/// The smallest input found for which `breaks` still holds.
pub(crate) fn smallest(input: &[u8], mut breaks: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut tries = 0;
    let mut piece = smallest.len().div_ceil(2);
    while piece > 0 && tries < TRIES {
        let mut at = 0;
        while at < smallest.len() && tries < TRIES {
            let end = (at + piece).min(smallest.len());
            let without = [&smallest[..at], &smallest[end..]].concat();
            tries += 1;
            if breaks(&without) {
                smallest = without;
            } else {
                at = end;
            }
        }
        piece /= 2;
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_it_is_left() {
        let noise = b"a long text with an x in it, and a y after that, and more text".to_vec();
        let breaks = |input: &[u8]| {
            let x = input.iter().position(|byte| *byte == b'x');
            x.is_some_and(|x| input[x..].contains(&b'y'))
        };
        assert!(breaks(&noise));
        assert_eq!(smallest(&noise, breaks), b"xt y".iter().copied().filter(|byte| b"xy".contains(byte)).collect::<Vec<_>>());
    }
}
