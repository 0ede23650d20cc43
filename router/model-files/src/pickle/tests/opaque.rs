//! What is said to be opaque, and is unpickled all the same.

use std::io::Write as _;

use super::super::{Allowed, Container, Examined, Limits, Unsafe, examine_opaque, is_pickle};
use super::asm::Asm;
use super::containers::{part, zip};

fn look(bytes: &[u8]) -> Result<Option<Examined>, Unsafe> {
    examine_opaque(bytes, &Allowed::default(), &Limits::default())
}

fn contains(bytes: &[u8], words: &str) {
    let text = look(bytes).expect_err("it is accepted").to_string();
    assert!(text.contains(words), "{text}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

const EVIL: &str = "names os.system, which is not among the allowed globals";

#[test]
fn a_pickle_is_walked_whatever_it_is_called() {
    let evil = Asm::protocol(4).stack_global("os", "system").text("id").raw(b"\x85R").stop();
    for bytes in [evil.clone(), gzip(&evil), b"cos\nsystem\n(S'id'\ntR.".to_vec(), gzip(b"cos\nsystem\n(S'id'\ntR.")] {
        contains(&bytes, EVIL);
        assert!(is_pickle(&bytes));
    }
    // Without a protocol, after numbers as Python takes them, and before bytes that are no opcodes.
    contains(b"I1\n0(S'id'\nios\nsystem\n.", EVIL);
    assert!(look(b"I 1\n0cos\nsystem\n(S'id'\ntR\xff\xff").is_err());
    assert!(look(b"S'os'\nS'system'\n\x93(S'id'\ntR.").is_err());
    // Behind an empty stream, which a reader goes on after.
    assert!(look(&[gzip(b""), gzip(&evil)].concat()).is_err());
    let good = look(&Asm::protocol(2).global("sklearn.linear_model._ridge", "Ridge").raw(b")\x81}b").stop()).unwrap().unwrap();
    assert_eq!((good.container, good.globals), (Container::Pickle, vec!["sklearn.linear_model._ridge.Ridge".to_owned()]));
}

#[test]
fn what_nobody_unpickles_is_let_through() {
    for bytes in
        [&b"CBM1\x10\0\0\0"[..], b"a model", b"category,shop\n1,2\n", b"tree\nversion=v4\n", gzip(b"a model").as_slice(), &[7; 4_096]]
    {
        assert_eq!(look(bytes), Ok(None), "{bytes:?}");
        assert!(!is_pickle(bytes), "{bytes:?}");
    }
    // A safetensors file begins with the length of its header: 640 is PROTO 2, and 376 begins as zlib.
    let tensors = |length: u64| [&length.to_le_bytes()[..], b"{\"w\":{\"dtype\":\"F32\"}}"].concat();
    for length in [376_u64, 640, 896, 1_152, 1_408, 24_184, 40_056, 55_928] {
        assert_eq!(look(&tensors(length)), Ok(None), "{length}");
        assert!(!is_pickle(&tensors(length)), "{length}");
        assert_eq!(look(&zip(&[part("model/config", b"{}"), part("model/weights/0", &tensors(length))]).0), Ok(None), "{length}");
    }
    let keras = zip(&[part("metadata.json", b"{}"), part("model.weights.h5", b"\x89HDF\r\n\x1a\n")]).0;
    assert_eq!(look(&keras), Ok(None));
}

/// What says a protocol is held to be a pickle as soon as anything in it finds a global, by whatever name, or it comes to its end.
#[test]
fn a_protocol_alone_is_no_pickle_and_whatever_finds_a_global_after_it_is_one() {
    let long = ["path.os"; 1_000].join(".");
    for evil in [
        Asm::protocol(4).raw(b"N0").stack_global("os", "system").stop(),
        Asm::protocol(4).global("os", &format!("{long}.system")).stop(),
        Asm::protocol(2).raw(b"\x82\x01").stop(),
        b"\x80\x04N0cos\nsystem\n\xff".to_vec(),
        b"N0\x80\x04c\xff\n\xfe\n".to_vec(),
    ] {
        assert!(look(&evil).is_err(), "{evil:?}");
        assert!(look(&gzip(&evil)).is_err(), "{evil:?}");
        assert!(look(&zip(&[part("model/0", &evil), part("model/config", b"{}")]).0).is_err(), "{evil:?}");
    }
    for harmless in [&b"\x80\x04\0\0"[..], b"\x80\x04N\xff", b"\x80\x02"] {
        assert_eq!(look(harmless), Ok(None), "{harmless:?}");
    }
    assert!(look(b"\x80\x02N.").unwrap().is_some());
}

#[test]
fn what_others_would_open_is_not_looked_into_where_it_is_compressed() {
    let evil = Asm::protocol(2).global("os", "system").stop();
    let mut array = b"\x93NUMPY\x01\0\x76\0".to_vec();
    array.extend_from_slice(format!("{:<117}\n", "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }").as_bytes());
    array.extend_from_slice(&evil);
    // A tar archive whose first name is a pickle, too.
    let mut tar = vec![0_u8; 1_536];
    tar[..4].copy_from_slice(b"\x80\x02N.");
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (inner, what) in [
        (array, "an array file"),
        (zip(&[part("a/data.pkl", &evil)]).0, "a ZIP archive"),
        (tar, "a tar archive"),
        (gzip(&evil), "something compressed"),
    ] {
        contains(&gzip(&inner), &format!("the file is {what} that is compressed, which is not looked into"));
    }
    // Its beginning counts, also where the rest cannot be unpacked.
    let mut cut = gzip(&zip(&[part("a/data.pkl", &evil)]).0);
    cut.truncate(cut.len() - 6);
    contains(&cut, "the file is a ZIP archive that is compressed");
}

#[test]
fn entries_of_an_archive_are_walked_by_their_bytes() {
    let evil = Asm::protocol(2).global("os", "system").stop();
    for deflated in [false, true] {
        let mut hidden = part("weights/7", &evil);
        hidden.deflated = deflated;
        contains(&zip(&[part("model.ini", b"[model]"), hidden]).0, "weights/7, at byte 2 (GLOBAL): names os.system");
    }
    contains(&zip(&[part("a/data.pkl", &evil), part("a/code/m.py", b"pass")]).0, "names os.system");
    contains(&zip(&[part("a.bin", &gzip(&evil))]).0, "it is compressed in an archive (gzip)");
    contains(&zip(&[part("a.bin", &zip(&[part("b.pkl", &evil)]).0)]).0, "it is an archive in an archive");
    let good = Asm::protocol(2).global("collections", "OrderedDict").raw(b")R").stop();
    let found = look(&zip(&[part("model.ini", b"[model]"), part("state", &good)]).0).unwrap().unwrap();
    assert_eq!((found.container, found.pickles), (Container::Archive, 1));
    // Others look for an archive from the end.
    contains(&[b"a model".to_vec(), zip(&[part("b.pkl", &evil)]).0].concat(), "the file is also a ZIP archive");
}

#[test]
fn formats_are_told_by_what_is_read() {
    for (bytes, is) in [
        (&b"(dp0\nS'w'\np1\nF1.5\ns."[..], true),
        (b"\x80\x03}q\0.", true),
        (b"\x93NUMPY\x01\0", true),
        (b".", false),
        (b"N.B. the model", false),
        (b"{}", false),
        (b"", false),
    ] {
        assert_eq!(is_pickle(bytes), is, "{bytes:?}");
    }
    assert!(is_pickle(&zip(&[part("archive/data.pkl", b"\x80\x02}.")]).0) && is_pickle(&zip(&[part("w.npy", b"x")]).0));
    assert!(!is_pickle(&zip(&[part("config.json", b"{}")]).0));
    // Its beginning is enough.
    let long = gzip(&Asm::protocol(4).raw(&vec![b'N'; 200_000]).stop());
    assert!(is_pickle(&long[..long.len() / 2]));
}
