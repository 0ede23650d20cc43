//! Numbers (RFC 7541, 5.1): what fits beside the first byte's other bits stands there, the rest in bytes of seven bits behind it.

use super::Fault;

/// The largest that is read.
const MOST: u64 = 1 << 31;
/// The most bytes beyond the first.
const BYTES: usize = 5;

/// The number that begins in the bits of `mask` of `first`, and what stands behind it.
///
/// # Errors
/// [`Fault::Short`] when it does not end, [`Fault::Number`] when it is over 2^31 or has more than 5 bytes beyond its first.
#[inline]
pub(super) fn read(first: u8, mask: u8, rest: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let number = first & mask;
    if number < mask { Ok((number.into(), rest)) } else { read_on(mask, rest) }
}

#[inline(never)]
fn read_on(mask: u8, mut rest: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let mut number = u64::from(mask);
    for place in 0..BYTES {
        let Some((byte, behind)) = rest.split_first() else { return Err(Fault::Short) };
        rest = behind;
        number += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let number = if number > MOST { None } else { usize::try_from(number).ok() };
            return Ok((number.ok_or(Fault::Number)?, rest));
        }
    }
    Err(Fault::Number)
}

/// Writes a number into the bits of `mask`, beside the other bits of the first byte, and behind it.
#[inline]
pub(super) fn write(bits: u8, mask: u8, number: usize, out: &mut Vec<u8>) {
    match u8::try_from(number) {
        Ok(small) if small < mask => out.push(bits | small),
        _ => write_on(bits | mask, number.saturating_sub(mask.into()), out),
    }
}

#[inline(never)]
fn write_on(first: u8, mut number: usize, out: &mut Vec<u8>) {
    out.push(first);
    while number >= 0x80 {
        // Seven bits of it.
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}
