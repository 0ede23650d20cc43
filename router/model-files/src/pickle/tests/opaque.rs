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
    let keras = zip(&[part("metadata.json", b"{}"), part("model.weights.h5", b"\x89HDF\r\n\x1a\n")]).0;
    assert_eq!(look(&keras), Ok(None));
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
fn types_of_skops_are_those_that_a_pickle_may_name() {
    let node = |module: &str, class: &str, made: &str, content: &str| {
        format!("{{\"__module__\": \"{module}\", \"__class__\": \"{class}\", \"__loader__\": \"{made}\", \"content\": {content}}}")
    };
    let skops = |schema: &str| zip(&[part("schema.json", schema.as_bytes())]).0;
    let number = node("builtins", "float", "JsonNode", "\"1.0\"");
    let good = node("sklearn.linear_model._ridge", "Ridge", "ObjectNode", &format!("{{\"alpha\": {number}}}"));
    let found = look(&skops(&good)).unwrap().unwrap();
    assert_eq!(found.globals, ["sklearn.linear_model._ridge.Ridge"]);
    let hidden = node("sklearn.linear_model._ridge", "Ridge", "ObjectNode", &node("os", "_wrap_close", "ObjectNode", "{}"));
    contains(&skops(&hidden), "schema.json: names os._wrap_close, which is not among the allowed globals");
    contains(&skops(&node("builtins", "function", "FunctionNode", "{}")), "a part is made by FunctionNode, which is not allowed");
    let of_type = node("builtins", "system", "TypeNode", "{\"__module__\": \"os\", \"__class__\": \"system\"}");
    contains(&skops(&of_type), "names os.system");
    let texts = node("sklearn.feature_extraction.text", "TfidfVectorizer", "ObjectNode", "{}");
    contains(&skops(&texts), "names sklearn.feature_extraction.text.TfidfVectorizer, which may hold functions");
    contains(&skops("{"), "schema.json: ");
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
