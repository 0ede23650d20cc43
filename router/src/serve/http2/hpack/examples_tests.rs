//! The examples of RFC 7541, appendix C.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Decoder;

/// A block in hexadecimal digits, what it says, and what the table holds then: the newest first, and its size.
type Example = (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)], usize);

fn bytes(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn pair(name: &[u8], value: &[u8]) -> (String, String) {
    (String::from_utf8(name.to_vec()).unwrap(), String::from_utf8(value.to_vec()).unwrap())
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| pair(name.as_bytes(), value.as_bytes())).collect()
}

/// That these blocks of one connection say what they should.
fn assert_read(table: usize, examples: &[Example]) {
    let mut decoder = Decoder::with_table(table);
    for (block, fields, kept, size) in examples {
        let mut read = Vec::new();
        let result = decoder.decode(&bytes(block), &mut |field| {
            assert!(field.is_sound, "{field:?}");
            read.push(pair(field.name, field.value));
        });
        assert_eq!((result, read), (Ok(()), owned(fields)), "{block}");
        let table = decoder.table();
        let held: Vec<_> =
            (0..table.len()).map(|place| table.field(62 + place).unwrap()).map(|field| pair(field.name, field.value)).collect();
        assert_eq!((held, table.size()), (owned(kept), *size), "{block}");
    }
}

const CUSTOM: (&str, &str) = ("custom-key", "custom-header");
const GET: (&str, &str) = (":method", "GET");
const HTTP: (&str, &str) = (":scheme", "http");
const HTTPS: (&str, &str) = (":scheme", "https");
const ROOT: (&str, &str) = (":path", "/");
const INDEX: (&str, &str) = (":path", "/index.html");
const EXAMPLE: (&str, &str) = (":authority", "www.example.com");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const VALUE: (&str, &str) = ("custom-key", "custom-value");

#[test]
fn single_fields() {
    assert_read(4_096, &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", &[CUSTOM], &[CUSTOM], 55)]);
    assert_read(4_096, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0)]);
    assert_read(4_096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0)]);
    assert_read(4_096, &[("82", &[GET], &[], 0)]);
}

/// The three requests, as these blocks.
fn assert_requests([first, second, third]: [&'static str; 3]) {
    assert_read(
        4_096,
        &[
            (first, &[GET, HTTP, ROOT, EXAMPLE], &[EXAMPLE], 57),
            (second, &[GET, HTTP, ROOT, EXAMPLE, NO_CACHE], &[NO_CACHE, EXAMPLE], 110),
            (third, &[GET, HTTPS, INDEX, EXAMPLE, VALUE], &[VALUE, NO_CACHE, EXAMPLE], 164),
        ],
    );
}

#[test]
fn requests_in_letters() {
    assert_requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn requests_in_codes() {
    assert_requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

const FOUND: (&str, &str) = (":status", "302");
const MOVED: (&str, &str) = (":status", "307");
const OK: (&str, &str) = (":status", "200");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

/// The three answers, as these blocks, with a table of 256 bytes.
fn assert_answers([first, second, third]: [&'static str; 3]) {
    assert_read(
        256,
        &[
            (first, &[FOUND, PRIVATE, DATE, LOCATION], &[LOCATION, DATE, PRIVATE, FOUND], 222),
            (second, &[MOVED, PRIVATE, DATE, LOCATION], &[MOVED, LOCATION, DATE, PRIVATE], 222),
            (third, &[OK, PRIVATE, LATER, LOCATION, GZIP, COOKIE], &[COOKIE, GZIP, LATER], 215),
        ],
    );
}

#[test]
fn answers_in_letters() {
    assert_answers([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 \
         3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 \
         514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn answers_in_codes() {
    assert_answers([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af \
         2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}
