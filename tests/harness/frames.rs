//! HTTP/2 as bytes, for what no library of HTTP/2 would send.

/// `DATA`.
pub const DATA: u8 = 0;
/// `HEADERS`.
pub const HEADERS: u8 = 1;
/// `RST_STREAM`.
pub const RESET: u8 = 3;
/// `SETTINGS`.
pub const SETTINGS: u8 = 4;
/// `PING`.
pub const PING: u8 = 6;
/// `GOAWAY`.
pub const GO_AWAY: u8 = 7;
/// The flag for an answer to a PING or to SETTINGS.
pub const ACK: u8 = 0x1;
/// The flag for the last frame of a stream.
pub const END_STREAM: u8 = 0x1;
/// The flag for a head that no CONTINUATION follows.
pub const END_HEADERS: u8 = 0x4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and SETTINGS that change nothing.
pub fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A field as HPACK has it at its simplest: literal, without indexing, without Huffman codes.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x00], length(name).as_slice(), name, &length(value), value].concat()
}

/// How many bytes follow, as an integer with a prefix of seven bits.
fn length(bytes: &[u8]) -> Vec<u8> {
    match u8::try_from(bytes.len()) {
        Ok(short @ ..127) => vec![short],
        Ok(long) if long - 127 < 128 => vec![127, long - 127],
        _ => panic!("{} bytes: longer than any test needs", bytes.len()),
    }
}

/// The status of a response's head, which comes first in it: from HPACK's static table, or as digits.
pub fn status(head: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match head {
        // A change of the table's size may come before it.
        [0x20..=0x3f, rest @ ..] => status(rest),
        [index @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(index - 0x88)]),
        [0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e, 0x03, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        [0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e, 0x82 | 0x83, codes @ ..] => {
            Some(from_huffman(codes.iter().chain([&0; 3]).take(3).fold(0, |bits, byte| bits << 8 | u32::from(*byte))))
        }
        _ => None,
    }
}

/// Three digits in Huffman codes, in the upper of 24 bits: 0, 1 and 2 have five bits, the others six.
fn from_huffman(bits: u32) -> u16 {
    let (mut bits, mut status) = (bits << 8, 0);
    for _ in 0..3 {
        let (short, long) = ((bits >> 27) as u16, (bits >> 26) as u16);
        let (digit, length) = if short < 3 { (short, 5) } else { (long.saturating_sub(0b01_1001 - 3), 6) };
        status = status * 10 + digit;
        bits <<= length;
    }
    status
}

#[test]
fn a_status_is_read_in_all_its_forms() {
    assert_eq!(status(&[0x8c]), Some(400));
    assert_eq!(status(&[0x20, 0x48, 0x03, b'4', b'1', b'3']), Some(413));
    // 011010 00000 011011, and 00010 00000 00001 in two bytes.
    assert_eq!(status(&[0x48, 0x83, 0b0110_1000, 0b0000_1101, 0b1111_1111]), Some(405));
    assert_eq!(status(&[0x48, 0x82, 0b0001_0000, 0b0000_0011]), Some(201));
}
