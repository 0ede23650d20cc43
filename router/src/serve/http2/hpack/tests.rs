//! Blocks there and back, blocks that cannot be read, and the table beside a simple one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::huffman::{self, coding};
use super::statics::{STATICS, index_of};
use super::table::{Name, Table};
use super::{Decoder, ENTRY_BYTES, Encoder, Fault, TABLE_BYTES, integer};

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// What a block says, and how it ends.
fn read(decoder: &mut Decoder, block: &[u8]) -> (Owned, Result<(), Fault>) {
    let mut fields = Vec::new();
    let result = decoder.decode(block, &mut |field| fields.push((field.name.to_vec(), field.value.to_vec())));
    (fields, result)
}

fn fault(block: &[u8]) -> Fault {
    read(&mut Decoder::new(), block).1.unwrap_err()
}

#[test]
fn every_code_is_read_and_of_the_length_that_it_should_have() {
    let codes = coding::codes();
    // Of a few that can be looked up in appendix B.
    for (symbol, code, length) in [
        (48, 0, 5),
        (97, 3, 5),
        (32, 0x14, 6),
        (122, 0x7b, 7),
        (63, 0x3fc, 10),
        (92, 0x7_fff0, 19),
        (10, 0x3fff_fffc, 30),
        (256, 0x3fff_ffff, 30),
    ] {
        assert_eq!(codes[symbol], (code, length), "{symbol}");
    }
    for byte in 0..=u8::MAX {
        // Beside others, at each place of a word.
        for before in 0..6 {
            let text = [&b"0aX&0e"[..before], &[byte], b"e"].concat();
            let mut out = b"kept".to_vec();
            assert_eq!(huffman::decode(&coding::encode(&text), &mut out), Ok(()), "{text:?}");
            assert_eq!(out, [b"kept".as_slice(), &text].concat());
        }
    }
}

#[test]
fn codes_that_do_not_end_as_they_must_are_faults() {
    let codes = coding::codes();
    let is_read = |bytes: &[u8]| huffman::decode(bytes, &mut Vec::new());
    assert_eq!(is_read(&[]), Ok(()));
    // An "a", and ones.
    assert_eq!(is_read(&[0x1f]), Ok(()));
    for bad in [
        // More than 7 bits of padding.
        &[0xff][..],
        &[0x1f, 0xff],
        &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff],
        // Not of ones.
        &[0x18],
        &[0x1e],
        &[0x00],
        // The middle of a long code.
        &[0x1f, 0xfe],
    ] {
        assert_eq!(is_read(bad), Err(Fault::Huffman), "{bad:x?}");
    }
    for before in 0..8 {
        let end = coding::bytes_of(vec![codes[48]; before].into_iter().chain([codes[256], codes[48]]));
        assert_eq!(is_read(&end), Err(Fault::Huffman));
    }
}

#[test]
fn numbers_are_written_and_read() {
    // RFC 7541, C.1.
    for (number, mask, bytes) in [(10, 0x1f, &[0x0a][..]), (1_337, 0x1f, &[0x1f, 0x9a, 0x0a]), (42, 0xff, &[0x2a])] {
        let mut out = Vec::new();
        integer::write(0, mask, number, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(integer::read(out[0], mask, &out[1..]), Ok((number, &[][..])));
    }
    // 2^31, beside other bits, and one more than that.
    assert_eq!(integer::read(0xff, 0x7f, &[0x81, 0xff, 0xff, 0xff, 0x07, 9]), Ok((1 << 31, &[9][..])));
    assert_eq!(integer::read(0xff, 0x7f, &[0x82, 0xff, 0xff, 0xff, 0x07]), Err(Fault::Number));
    assert_eq!(integer::read(0x7f, 0x7f, &[0x80, 0x80, 0x80, 0x80, 0x00]), Ok((127, &[][..])));
    assert_eq!(integer::read(0x7f, 0x7f, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(Fault::Number));
    assert_eq!(integer::read(0x7f, 0x7f, &[0xff; 9]), Err(Fault::Number));
    assert_eq!(integer::read(0x7f, 0x7f, &[0x80]), Err(Fault::Short));
}

#[test]
fn blocks_that_cannot_be_read() {
    for (block, expected) in [
        // Index 0, and the first and a far one beyond the tables; the same of names.
        (&[0x80][..], Fault::Index),
        (&[0xbe], Fault::Index),
        (&[0xff, 0xff, 0xff, 0x7f], Fault::Index),
        (&[0x7e, 0x01, b'a'], Fault::Index),
        (&[0x0f, 0x2f, 0x01, b'a'], Fault::Index),
        (&[0x1f, 0x2f, 0x01, b'a'], Fault::Index),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Fault::Number),
        (&[0xff], Fault::Short),
        (&[0x40], Fault::Short),
        (&[0x40, 0x01], Fault::Short),
        (&[0x40, 0x01, b'a'], Fault::Short),
        (&[0x40, 0x01, b'a', 0x02, b'b'], Fault::Short),
        (&[0x04, 0x7f, 0x81, 0xff, 0xff, 0xff, 0x07], Fault::Short),
        (&[0x04, 0x81, 0xff], Fault::Huffman),
        (&[0x40, 0x81, 0xff, 0x00], Fault::Huffman),
        // 4,097 bytes; any size behind a field.
        (&[0x3f, 0xe2, 0x1f], Fault::Size),
        (&[0x82, 0x20], Fault::LateSize),
        (&[0x3f], Fault::Short),
    ] {
        assert_eq!(fault(block), expected, "{block:x?}");
    }
}

#[test]
fn fields_before_a_fault_are_told() {
    assert_eq!(read(&mut Decoder::new(), &[0x82, 0x86, 0x80]), (pairs(&[(":method", "GET"), (":scheme", "http")]), Err(Fault::Index)));
}

fn pairs(fields: &[(&str, &str)]) -> Owned {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn sizes_at_the_beginning_are_obeyed() {
    let mut decoder = Decoder::new();
    assert!(read(&mut decoder, b"\x40\x01a\x01b\x40\x01c\x01d").1.is_ok());
    assert_eq!((decoder.table().len(), decoder.table().size()), (2, 68));
    // To 34 bytes, where one fits; then to none, and to all.
    assert_eq!(read(&mut decoder, b"\x3f\x03\xbe"), (pairs(&[("c", "d")]), Ok(())));
    assert_eq!(read(&mut decoder, b"\x20\x3f\xe1\x1f\xbe"), (vec![], Err(Fault::Index)));
    assert!(read(&mut decoder, b"\x40\x01a\x01b\xbe").1.is_ok());
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::with_table(40);
    assert!(read(&mut decoder, b"\x40\x01a\x01b").1.is_ok());
    assert_eq!(read(&mut decoder, b"\x7e\x08bbbbbbbb"), (pairs(&[("a", "bbbbbbbb")]), Ok(())));
    assert_eq!((decoder.table().len(), decoder.table().size()), (0, 0));
}

#[test]
fn a_name_outlives_the_entry_that_it_is_of() {
    let mut decoder = Decoder::with_table(40);
    assert!(read(&mut decoder, b"\x40\x03abc\x01b").1.is_ok());
    assert_eq!(read(&mut decoder, b"\x7e\x05bbbbb\xbe"), (pairs(&[("abc", "bbbbb"), ("abc", "bbbbb")]), Ok(())));
    assert_eq!((decoder.table().len(), decoder.table().size()), (1, 40));
}

/// Whether each field of a block is sound.
fn soundness(decoder: &mut Decoder, block: &[u8]) -> Vec<bool> {
    let mut sound = Vec::new();
    decoder.decode(block, &mut |field| sound.push(field.is_sound)).unwrap();
    sound
}

#[test]
fn soundness_is_judged_once_and_kept() {
    for (name, value, is_sound) in [
        ("a", "b", true),
        (":a", "", true),
        ("A", "b", false),
        ("", "b", false),
        (":", "b", false),
        ("a b", "b", false),
        ("a", " b", true),
        ("a", "b\t", true),
        ("a", "b\tc", true),
        ("a", "b\nc", false),
        ("a", "\0", false),
    ] {
        let mut decoder = Decoder::new();
        let mut block = vec![0x40, name.len() as u8];
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
        assert_eq!(soundness(&mut decoder, &block), [is_sound], "{name:?} {value:?}");
        assert_eq!(soundness(&mut decoder, b"\xbe"), [is_sound], "{name:?} {value:?}");
        // Its name with a value that is sound, and with one that is not.
        let is_name_sound = super::letters::is_sound_name(name.as_bytes());
        assert_eq!(soundness(&mut decoder, b"\x0f\x2f\x01v\x0f\x2f\x01\n"), [is_name_sound, false], "{name:?} {value:?}");
    }
    assert_eq!(soundness(&mut Decoder::new(), b"\x82\x01\x01v\x01\x01\x07"), [true, true, false]);
}

#[test]
fn names_that_both_sides_know_are_found() {
    for (place, (name, _)) in STATICS.iter().enumerate() {
        let expected = if name.starts_with(b":") { 0 } else { place + 1 };
        assert_eq!(usize::from(index_of(name)), expected);
        assert_eq!(usize::from(index_of(&name.to_ascii_uppercase())), expected);
        assert_eq!(index_of(&[name, &b"x"[..]].concat()), 0);
    }
    for other in ["", "a", "dabe", "content-lengtx", "accept-encodingg", "a\0e"] {
        assert_eq!(index_of(other.as_bytes()), 0, "{other}");
    }
}

/// One block with these fields.
fn written(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

#[test]
fn a_field_is_written_in_letters_once() {
    let mut encoder = Encoder::new();
    assert_eq!(written(&mut encoder, &[("Server", "a"), ("X-B", "c")]), b"\x76\x01a\x40\x03x-b\x01c");
    assert_eq!(written(&mut encoder, &[("server", "a"), ("x-b", "c"), ("SERVER", "a")]), b"\xbf\xbe\xbf");
    assert_eq!(written(&mut encoder, &[("accept-encoding", "gzip, deflate"), ("accept", "")]), b"\x90\x93");
    let mut out = Vec::new();
    for status in [200, 204, 206, 304, 400, 404, 500, 103, 999] {
        encoder.status(status, &mut out);
    }
    assert_eq!(out, b"\x88\x89\x8a\x8b\x8c\x8d\x8e\x08\x03103\x08\x03999");
    out.clear();
    encoder.field_once(b"Set-Cookie", b"a", &mut out);
    encoder.field_once(b"X-B", b"c", &mut out);
    assert_eq!(out, b"\x1f\x28\x01a\x10\x03x-b\x01c");
    assert_eq!(encoder.kept(), (2, 32 + 7 + 32 + 4));
}

#[test]
fn what_changes_each_time_does_not_fill_the_table() {
    let mut encoder = Encoder::new();
    for value in 0..1_000 {
        written(&mut encoder, &[("x-a", &value.to_string()), ("x-b", "b")]);
    }
    assert_eq!(encoder.kept().0, 2 + 3);
    // Those that come after it still have room.
    written(&mut encoder, &[("x-c", "c")]);
    assert_eq!(written(&mut encoder, &[("x-c", "c")]), b"\xbe");
}

#[test]
fn one_other_value_does_not_take_the_place_of_the_usual_one() {
    let mut encoder = Encoder::new();
    written(&mut encoder, &[("x-a", "usual")]);
    for _ in 0..10 {
        assert_eq!(written(&mut encoder, &[("x-a", "odd")]), b"\x0f\x2f\x03odd");
        assert_eq!(written(&mut encoder, &[("x-a", "usual")]), b"\xbe");
    }
    // Twice in a row does.
    written(&mut encoder, &[("x-a", "odd"), ("x-a", "odd")]);
    assert_eq!(written(&mut encoder, &[("x-a", "odd")]), b"\xbe");
}

#[test]
fn a_table_that_is_full_stays_as_it_is() {
    let mut encoder = Encoder::new();
    let value = "v".repeat(1_990);
    written(&mut encoder, &[("x-a", &value), ("x-b", &value), ("x-c", &value)]);
    assert_eq!(encoder.kept().0, 2);
    assert_eq!(written(&mut encoder, &[("x-a", &value), ("x-b", &value)]), b"\xbf\xbe");
    assert_eq!(written(&mut encoder, &[("x-c", "c")]), b"\x40\x03x-c\x01c");
}

#[test]
fn another_limit_is_said_once_and_empties_the_table() {
    let mut encoder = Encoder::new();
    written(&mut encoder, &[("x-a", "b")]);
    encoder.limit(65_536);
    assert_eq!(written(&mut encoder, &[("x-a", "b")]), b"\xbe");
    encoder.limit(30);
    encoder.limit(4_096);
    encoder.limit(4_096);
    assert_eq!(written(&mut encoder, &[("x-a", "b")]), b"\x20\x3f\xe1\x1f\x40\x03x-a\x01b");
    assert_eq!(written(&mut encoder, &[("x-a", "b")]), b"\xbe");
    encoder.limit(0);
    assert_eq!(written(&mut encoder, &[("x-a", "b")]), b"\x20\x20\x00\x03x-a\x01b");
}

/// What can be said to an encoder.
#[derive(Debug, Clone)]
enum Said {
    Limit(u32),
    Block(Vec<(String, String, bool)>),
}

fn said() -> impl Strategy<Value = Said> {
    let name = prop_oneof![
        "[aAxX][bB-]{0,3}",
        "[a-c]{1,2}-header-with-a-(long|LONG|short)-name",
        prop::sample::select(vec!["Content-Type", "date", "ETag", "accept-encoding", "www-authenticate", "x-quite-another"])
            .prop_map(str::to_owned),
    ];
    let value = prop_oneof![8 => "[ab]{0,2}", 1 => "[a-z]{0,400}", 1 => Just("gzip, deflate".to_owned()), 1 => "c{3000,3100}"];
    let block = prop::collection::vec((name, value, prop::bool::weighted(0.1)), 0..20);
    let limit = prop_oneof![Just(0), Just(4_096), Just(100), 0..5_000_u32];
    prop_oneof![1 => limit.prop_map(Said::Limit), 8 => block.prop_map(Said::Block)]
}

/// The table as RFC 7541 tells it: the newest is first.
struct Simple {
    entries: Vec<(Vec<u8>, Vec<u8>, bool)>,
    limit: usize,
}

impl Simple {
    fn size(&self) -> usize {
        self.entries.iter().map(|(name, value, _)| name.len() + value.len() + ENTRY_BYTES).sum()
    }

    fn shrink(&mut self) {
        while self.size() > self.limit {
            self.entries.pop();
        }
    }
}

/// What is done to a table.
#[derive(Debug, Clone)]
enum Done {
    Resize(usize),
    Insert {
        name: Vec<u8>,
        value: Vec<u8>,
        is_sound: bool,
    },
    /// The name is that of an entry.
    InsertNamed {
        place: usize,
        value: Vec<u8>,
    },
}

fn done() -> impl Strategy<Value = Done> {
    let bytes = || prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..60), 1 => prop::collection::vec(any::<u8>(), 0..1_500)];
    prop_oneof![
        1 => prop_oneof![0..300_usize, 0..5_000_usize].prop_map(Done::Resize),
        6 => (bytes(), bytes(), any::<bool>()).prop_map(|(name, value, is_sound)| Done::Insert { name, value, is_sound }),
        6 => (0..120_usize, bytes()).prop_map(|(place, value)| Done::InsertNamed { place, value }),
    ]
}

/// Does the same to both.
fn apply(done: Done, table: &mut Table, simple: &mut Simple) {
    let (kept, (name, value, is_sound)) = match done {
        Done::Resize(limit) => {
            assert_eq!(table.resize(limit).is_err(), limit > TABLE_BYTES);
            simple.limit = if limit > TABLE_BYTES { simple.limit } else { limit };
            simple.shrink();
            return;
        }
        Done::Insert { name, value, is_sound } => (None, (name, value, is_sound)),
        Done::InsertNamed { place, value } => match simple.entries.get(place) {
            Some((name, ..)) => (Some(62 + place), (name.clone(), value, true)),
            None => return,
        },
    };
    let own = kept.map_or(Name::Given(&name), |index| table.name(index).unwrap().0);
    table.insert(&own, &value, is_sound, is_sound);
    simple.entries.insert(0, (name, value, is_sound));
    simple.shrink();
}

proptest! {
    /// Blocks that are written say what they should to who reads them, whatever the peer lets the table have.
    #[test]
    fn what_is_written_is_read(all in prop::collection::vec(said(), 0..40)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for said in all {
            let block = match said {
                Said::Limit(limit) => {
                    encoder.limit(limit);
                    continue;
                }
                Said::Block(block) => block,
            };
            let mut out = Vec::new();
            encoder.begin(&mut out);
            for (name, value, is_once) in &block {
                if *is_once {
                    encoder.field_once(name.as_bytes(), value.as_bytes(), &mut out);
                } else {
                    encoder.field(name.as_bytes(), value.as_bytes(), &mut out);
                }
            }
            let expected: Owned = block.iter().map(|(name, value, _)| (name.to_ascii_lowercase().into(), value.clone().into())).collect();
            prop_assert_eq!(read(&mut decoder, &out), (expected, Ok(())));
            // Nothing was taken out of the table.
            prop_assert_eq!((decoder.table().len(), decoder.table().size()), encoder.kept());
        }
    }

    /// Whatever comes is read or refused, and what is kept for it has an end.
    #[test]
    fn any_bytes_are_read_or_refused(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let (fields, _) = read(&mut decoder, &block);
            prop_assert!(fields.len() <= block.len());
            prop_assert!(decoder.table().size() <= TABLE_BYTES && decoder.table().room() <= 4 * TABLE_BYTES);
        }
    }

    /// The table is as a simple one would be.
    #[test]
    fn the_table_is_as_told(all in prop::collection::vec(done(), 0..200)) {
        let (mut table, mut simple) = (Table::new(TABLE_BYTES), Simple { entries: Vec::new(), limit: TABLE_BYTES });
        for done in all {
            apply(done, &mut table, &mut simple);
            prop_assert_eq!((table.len(), table.size()), (simple.entries.len(), simple.size()));
            for (place, (name, value, is_sound)) in simple.entries.iter().enumerate() {
                let field = table.field(62 + place).unwrap();
                prop_assert_eq!((field.name, field.value, field.is_sound), (name.as_slice(), value.as_slice(), *is_sound));
            }
            prop_assert!(table.field(62 + simple.entries.len()).is_err());
            prop_assert!(table.room() <= 4 * TABLE_BYTES);
        }
    }

    /// Any text there and back.
    #[test]
    fn any_text_is_read_from_its_codes(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        prop_assert_eq!(huffman::decode(&coding::encode(&text), &mut out), Ok(()));
        prop_assert_eq!(out, text);
    }

    /// Codes that are none, too.
    #[test]
    fn any_bytes_are_codes_or_refused(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..60)) {
        let mut out = Vec::new();
        if huffman::decode(&bytes, &mut out).is_ok() {
            prop_assert_eq!(coding::encode(&out), bytes);
        }
    }
}
