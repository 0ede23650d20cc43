//! Strings in Huffman codes (RFC 7541, 5.2 and appendix B): eight bits are looked up at a time, which is all of the codes that are sent as a rule.
//!
//! The codes are canonical: those of one length are numbers in a row, in the order of their symbols, and go on where the shorter ones ended. So
//! nothing has to be known but the symbols by length.

use super::Fault;

/// Bits that are looked up at a time.
const STEP: u32 = 8;
/// The longest code.
const LONGEST: usize = 30;
/// What stands for the end of a string, and is in none.
const END: u16 = 256;

/// The symbols in the order of their codes.
#[rustfmt::skip]
static SYMBOLS: [u16; 257] = [
    // 5 bits.
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116,
    // 6.
    32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117,
    // 7.
    58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122,
    // 8.
    38, 42, 44, 59, 88, 90,
    // 10.
    33, 34, 40, 41, 63,
    // 11.
    39, 43, 124,
    // 12.
    35, 62,
    // 13.
    0, 36, 64, 91, 93, 126,
    // 14.
    94, 125,
    // 15.
    60, 96, 123,
    // 19 and more.
    92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146,
    154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149,
    150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236,
    237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244,
    245, 246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127,
    220, 249, 10, 13, 22, 256,
];

/// How many codes there are of each length, from 0 bits on.
const COUNTS: [u16; LONGEST + 1] = [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// A length's codes.
#[derive(Clone, Copy)]
struct Row {
    /// The first code that is longer, with its bits at the left end of 32.
    end: u32,
    /// What is taken off a code of this length to get its place among the symbols, as far as 32 bits go.
    less: u32,
}

/// By length.
static ROWS: [Row; LONGEST + 1] = rows();

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler")]
const fn rows() -> [Row; LONGEST + 1] {
    let mut rows = [Row { end: 0, less: 0 }; LONGEST + 1];
    let (mut code, mut place, mut length) = (0_u32, 0_u32, 1);
    while length <= LONGEST {
        code <<= 1;
        let less = code.wrapping_sub(place);
        code += COUNTS[length] as u32;
        place += COUNTS[length] as u32;
        let end = (code as u64) << (32 - length);
        // All codes together take all numbers that there are.
        let end = if end > u32::MAX as u64 { u32::MAX } else { end as u32 };
        rows[length] = Row { end, less };
        length += 1;
    }
    rows
}

/// What eight bits begin with: the symbol, and its code's length; 0 for a longer one.
#[derive(Clone, Copy)]
struct Step {
    symbol: u8,
    length: u8,
}

static STEPS: [Step; 1 << STEP] = steps();

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler")]
const fn steps() -> [Step; 1 << STEP] {
    let mut steps = [Step { symbol: 0, length: 0 }; 1 << STEP];
    let (mut at, mut place, mut length) = (0, 0, 1);
    while length <= STEP {
        let mut left = COUNTS[length as usize];
        while left > 0 {
            let mut same = 1 << (STEP - length);
            while same > 0 {
                steps[at] = Step { symbol: SYMBOLS[place] as u8, length: length as u8 };
                at += 1;
                same -= 1;
            }
            place += 1;
            left -= 1;
        }
        length += 1;
    }
    steps
}

/// Reads a string's codes and puts its bytes behind those of `out`.
///
/// # Errors
/// [`Fault::Huffman`] when the string has the code of its end, or goes on behind its last code with more than 7 bits or with others than ones.
pub(super) fn decode(codes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    // No code is shorter than 5 bits.
    out.resize(start + codes.len() * 8 / 5, 0);
    let mut free = out.get_mut(start..).unwrap_or_default().iter_mut();
    let (words, tail) = codes.as_chunks();
    // The next bits, from the left; behind them zeros.
    let (mut bits, mut count) = (0_u64, 0);
    for word in words {
        bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
        count += 32;
        while count >= 32 {
            let (symbol, length) = next(bits)?;
            if let Some(place) = free.next() {
                *place = symbol;
            }
            bits <<= length;
            count -= length;
        }
    }
    for byte in tail {
        bits |= u64::from(*byte) << (56 - count);
        count += 8;
    }
    while count > 0 {
        let padded = bits | (u64::MAX >> count);
        if count < 8 && padded == u64::MAX {
            break;
        }
        let (symbol, length) = next(padded)?;
        if length > count {
            return Err(Fault::Huffman);
        }
        if let Some(place) = free.next() {
            *place = symbol;
        }
        bits <<= length;
        count -= length;
    }
    let unused = free.len();
    out.truncate(out.len() - unused);
    Ok(())
}

/// The symbol that these bits begin with, and the length of its code.
#[inline]
fn next(bits: u64) -> Result<(u8, u32), Fault> {
    match STEPS.get((bits >> (64 - STEP)) as usize) {
        Some(step) if step.length != 0 => Ok((step.symbol, step.length.into())),
        _ => next_long((bits >> 32) as u32),
    }
}

#[inline(never)]
fn next_long(bits: u32) -> Result<(u8, u32), Fault> {
    let (length, row) = (0_u32..).zip(&ROWS).skip(STEP as usize).find(|(_, row)| bits < row.end).ok_or(Fault::Huffman)?;
    let place = (bits >> (32 - length)).wrapping_sub(row.less);
    let symbol = SYMBOLS.get(place as usize).copied().unwrap_or(END);
    Ok((u8::try_from(symbol).map_err(|_| Fault::Huffman)?, length))
}

#[cfg(test)]
pub(super) mod coding {
    //! The other way, for tests.

    use super::{COUNTS, SYMBOLS};

    /// Code and length of each symbol, and of the end.
    pub(in super::super) fn codes() -> Vec<(u32, u32)> {
        let lengths = (0_u32..).zip(COUNTS).flat_map(|(length, count)| (0..count).map(move |_| length));
        let (mut codes, mut code, mut before) = (vec![(0, 0); 257], 0_u32, 0);
        for (symbol, length) in SYMBOLS.iter().zip(lengths) {
            code <<= length - before;
            codes[usize::from(*symbol)] = (code, length);
            code += 1;
            before = length;
        }
        codes
    }

    /// A string in codes.
    pub(in super::super) fn encode(text: &[u8]) -> Vec<u8> {
        let codes = codes();
        bytes_of(text.iter().map(|byte| codes[usize::from(*byte)]))
    }

    /// Codes in a row, and ones up to a whole byte.
    pub(in super::super) fn bytes_of(codes: impl IntoIterator<Item = (u32, u32)>) -> Vec<u8> {
        let mut bits: Vec<bool> =
            codes.into_iter().flat_map(|(code, length)| (0..length).rev().map(move |bit| code >> bit & 1 == 1)).collect();
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }
}
