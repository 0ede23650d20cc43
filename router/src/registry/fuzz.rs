//! Fuzz targets of the registry: a manifest and an alias's move are read or refused with reasons, whatever is in the store.
#![allow(clippy::unwrap_used)]

use switchback_fuzz::{Target, kind_of, trace};

use super::aliases::AliasMove;
use super::manifest::{Manifest, Sealed};
use super::names::Reference;

const WORDS: [&[u8]; 30] = [
    b"{\"manifest\":{\"form\":1,",
    b"\"push\":\"0\",",
    b"\"model\":\"search\",",
    b"\"version\":1,",
    b"\"format\":\"onnx\",",
    b"\"format\":\"pickle\",",
    b"\"file\":\"a\",",
    b"\"sha256\":\"",
    b"0000000000000000000000000000000000000000000000000000000000000000",
    b"\"bytes\":1,",
    b"\"inputs\":[",
    b"\"outputs\":[",
    b"{\"name\":\"x\",\"type\":\"float32\",\"shape\":[-1,4]}",
    b"\"about\":{",
    b"\"parent\":1,",
    b"\"metrics\":{\"ndcg\":0.5}",
    b"\"tags\":{\"a\":\"b\"}",
    b"\"why\":\"x\"",
    b"\"who\":\"a\",",
    b"\"pushed_ms\":1",
    b"\"signature\":{\"key\":\"0\",\"ed25519\":\"AA==\"}",
    b"1e400",
    b"-1",
    b"18446744073709551616",
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
];

#[test]
fn manifest() {
    Target { name: "manifest", words: &WORDS, seeds: Vec::new(), most_bytes: 8_192 }.run(|bytes| match Sealed::read(bytes) {
        Ok(Sealed { manifest, signature, signed }) => {
            assert_eq!(manifest.check(), Ok(()));
            // What is read is written as it can be read again, and is the same.
            let again = Sealed::read(&manifest.render(None)).unwrap();
            assert_eq!(again.manifest, manifest);
            assert!(serde_json::from_slice::<Manifest>(&signed).unwrap() == manifest);
            trace((manifest.format.label(), signature.is_some(), manifest.inputs.len(), manifest.about.tags.len().min(3)))
        }
        Err(fault) => trace(kind_of(&fault.to_string())),
    });
}

#[test]
fn alias_move() {
    let words: [&[u8]; 12] = [
        b"{\"form\":1,",
        b"\"id\":\"a\",",
        b"\"version\":2,",
        b"\"version\":null,",
        b"\"before\":1,",
        b"\"who\":\"a\",",
        b"\"why\":\"b\",",
        b"\"moved_ms\":1}",
        b"0",
        b"-1",
        b"search@champion",
        b"search:12",
    ];
    Target { name: "alias_move", words: &words, seeds: Vec::new(), most_bytes: 2_048 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference {
            assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(reference));
        }
        match AliasMove::read(bytes) {
            Ok(moved) => trace((moved.version.is_some(), moved.before.is_some(), moved.why.is_empty())),
            Err(fault) => trace((reference.is_ok(), kind_of(&fault.to_string()))),
        }
    });
}
