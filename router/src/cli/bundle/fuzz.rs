//! A fuzz target: whatever a file holds, it is read as a bundle that is what its manifest says, or refused in words; in bounded memory.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use switchback_fuzz::{Target, kind_of, trace};

use super::manifest::sha256;
use super::read::{read, tests::bundle};
use super::{is_name, pack};

const WORDS: [&[u8]; 14] = [
    b"manifest.json\0",
    b"../../etc/passwd\0",
    b"README.txt\0",
    b"windows/1/a.jsonl\0",
    b"ustar\x0000",
    b"00000000007\0",
    b"77777777777\0",
    b"\x80\0\0\0\0\0\0\0\xff\xff\xff\xff",
    b"{\"form\":1,",
    b"\"members\":[",
    b"\"missing\":[]",
    b"\"sha256\":\"",
    b"L",
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
];

fn packed(archive: &[u8]) -> Vec<u8> {
    let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packing.write_all(archive).unwrap();
    packing.finish().unwrap()
}

/// The archive inside, which is mutated: of what is packed, nearly every change is found by gzip alone.
fn archive() -> Vec<u8> {
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(pack(&bundle()).unwrap().as_slice()), &mut archive).unwrap();
    archive
}

#[test]
fn bundle_archive() {
    Target { name: "bundle_archive", words: &WORDS, seeds: vec![archive()], most_bytes: 16_384 }.run(|bytes| {
        // As a file as it is, and as what a file unpacks to.
        let as_it_is = read(bytes).is_ok();
        match read(packed(bytes).as_slice()) {
            Ok(bundle) => {
                for member in &bundle.manifest.members {
                    assert!(is_name(&member.name) && sha256(&bundle.members[&member.name]) == member.sha256);
                }
                assert_eq!(bundle.manifest.members.len(), bundle.members.len());
                assert!(read(pack(&bundle).unwrap().as_slice()).unwrap() == bundle);
                trace((true, as_it_is, bundle.members.len()))
            }
            Err(why) => trace((false, as_it_is, kind_of(&why))),
        }
    });
}
