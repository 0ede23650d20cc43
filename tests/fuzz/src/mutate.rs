//! Mutations: what is done to an input of the pool to make the next one. Pure.

/// A small generator of numbers (xorshift64*): the same seed gives the same run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        // A state of zero would stay zero.
        Dice((seed ^ 0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from((u128::from(self.roll()) * u128::from(limit)) >> 64).unwrap_or(0)
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let start = self.below(length + 1);
        // Most pieces are short, some reach to the end.
        let most = if self.below(8) == 0 { length - start } else { 16.min(length - start) };
        (start, start + self.below(most + 1))
    }
}

/// Bytes that parsers treat in ways of their own.
const ODD: &[u8] = b"\0\t\n\x0b\r \"#%&'(),-./0:;<=>?@[\\]_{}~\x7f\x80\xc3\xff";
/// Numbers at the borders of the usual widths.
const NUMBERS: [&[u8]; 10] = [
    b"0",
    b"-1",
    b"00",
    b"1e999",
    b"255",
    b"65536",
    b"4294967296",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
];

/// The next input: one of the pool with one, two, four or eight things done to it. Every second time it is one of the first `seeds`, which
/// are good ones: of what was found since, most is broken early.
pub fn mutated(pool: &[Vec<u8>], seeds: usize, words: &[&[u8]], most_bytes: usize, dice: &mut Dice) -> Vec<u8> {
    let among = if dice.below(2) == 0 { seeds } else { pool.len() };
    let mut input = pool.get(dice.below(among)).cloned().unwrap_or_default();
    for _ in 0..1 << dice.below(4) {
        change(&mut input, pool, words, dice);
    }
    input.truncate(most_bytes);
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) {
    let (start, end) = dice.range(input.len());
    match dice.below(10) {
        // Removed.
        0 => drop(input.drain(start..end)),
        // One bit, one byte.
        1 => set(input, start, |byte, dice| byte ^ (1 << dice.below(8)), dice),
        2 => set(input, start, |_, dice| dice.roll().to_le_bytes()[0], dice),
        3 => set(input, start, |_, dice| ODD[dice.below(ODD.len())], dice),
        4 => input.insert(start, ODD[dice.below(ODD.len())]),
        // A word or a number put in, or in the place of something.
        5 => put(input, start, start, words.get(dice.below(words.len())).copied().unwrap_or_default()),
        6 => put(input, start, end, words.get(dice.below(words.len())).copied().unwrap_or_default()),
        7 => put(input, start, end, NUMBERS[dice.below(NUMBERS.len())]),
        // A piece of its own once more.
        8 => {
            let piece = input[start..end].to_vec();
            let place = dice.below(input.len() + 1);
            put(input, place, place, &piece);
        }
        // A piece of another one.
        _ => {
            let other = pool.get(dice.below(pool.len())).map_or(&[][..], Vec::as_slice);
            let (from, to) = dice.range(other.len());
            put(input, start, end, &other[from..to]);
        }
    }
}

fn set(input: &mut [u8], place: usize, new: impl Fn(u8, &mut Dice) -> u8, dice: &mut Dice) {
    if let Some(byte) = input.get_mut(place) {
        *byte = new(*byte, dice);
    }
}

fn put(input: &mut Vec<u8>, start: usize, end: usize, piece: &[u8]) {
    input.splice(start..end, piece.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_one_others() {
        let pool = vec![b"GET / HTTP/1.1".to_vec(), b"POST".to_vec()];
        let inputs = |seed| {
            let mut dice = Dice::new(seed);
            (0..200).map(|_| mutated(&pool, 2, &[b"host"], 64, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(3).iter().all(|input| input.len() <= 64));
        assert!(inputs(4).iter().any(|input| input.windows(4).any(|piece| piece == b"host")));
    }

    #[test]
    fn numbers_stay_below_their_limit() {
        let mut dice = Dice::new(0);
        let mut seen = [0; 7];
        for _ in 0..7_000 {
            seen[dice.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| (700..1_300).contains(count)), "{seen:?}");
        assert_eq!(dice.below(0), 0);
    }
}
