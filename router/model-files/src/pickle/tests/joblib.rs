//! joblib's arrays: raw bytes, or another pickle, between the opcodes of one.

use super::super::Container;
use super::asm::Asm;
use super::{look, refused, refused_globals};

/// An array wrapper up to its BUILD.
fn wrapper(asm: Asm, form: &str, flags: u8, shape: u8) -> Asm {
    let open =
        asm.stack_global("joblib.numpy_pickle", "NumpyArrayWrapper").raw(b")\x81}(").text("subclass").stack_global("numpy", "ndarray");
    let open = open.text("shape").raw(&[b'K', shape, 0x85]).text("order").text("C").text("dtype");
    let order = if form == "O8" { "|" } else { "<" };
    open.dtype(form, order, -1, flags).text("allow_mmap").raw(b"\x88").text("numpy_array_alignment_bytes").raw(b"K\x10ub")
}

fn raw(padding: &[u8], data: &[u8]) -> Vec<u8> {
    wrapper(Asm::protocol(4), "f8", 0, 2).raw(padding).raw(data).stop()
}

#[test]
fn raw_bytes_of_an_array_are_no_opcodes() {
    let examined = look(&raw(b"\x02\xff\xff", b"cos\nsystem\n)R...")).unwrap();
    assert_eq!((examined.container, examined.pickles), (Container::Joblib, 1));
    assert_eq!(examined.globals, ["joblib.numpy_pickle.NumpyArrayWrapper", "numpy.dtype", "numpy.ndarray"]);
}

#[test]
fn an_array_that_a_plain_unpickler_would_run_is_refused() {
    // The length of the padding as an opcode: MARK, PROTO, and what joblib never writes.
    for padding in [&b"(cos\nsystem\n"[..], b"\x80\x04", b"\x00", b"\x11\xff", b"\x01."] {
        assert!(refused(&raw(padding, &[0; 40])).contains("not padded as joblib pads it"), "{padding:?}");
    }
    let old = wrapper(Asm::protocol(4), "f8", 0, 2).0;
    let at = old.windows(2).rposition(|window| window == b"K\x10").unwrap();
    let mut unaligned = old.clone();
    unaligned[at + 1] = 0;
    assert!(refused(&unaligned).contains("can be read in two ways"));
    assert!(refused(&[old, b"\x01\xff12345678".to_vec()].concat()).contains("ends in the middle"));
}

#[test]
fn an_inner_pickle_is_walked() {
    let inner = |pickle: &[u8]| wrapper(Asm::protocol(4), "O8", 63, 1).raw(pickle).stop();
    assert_eq!(look(&inner(&Asm::protocol(5).raw(b"](Ne").stop())).unwrap().pickles, 2);
    assert_eq!(refused_globals(&inner(&Asm::protocol(5).stack_global("os", "system").stop())), ["os.system"]);
    // What comes after it is the outer one's again.
    let after =
        wrapper(Asm::protocol(4), "O8", 63, 1).raw(&Asm::protocol(5).raw(b"N").stop()).stack_global("os", "system").raw(b"0").stop();
    assert_eq!(refused_globals(&after), ["os.system"]);
}

#[test]
fn an_inner_pickle_is_also_read_with_the_outer_memo() {
    // joblib sees numpy and dtype; pickle.load goes on with the memo it has, and sees os and system.
    let outer = Asm::protocol(4).text("os").raw(b"\x940").text("system").raw(b"\x940");
    let inner = Asm::protocol(4).text("numpy").raw(b"\x94").text("dtype").raw(b"\x9400h\x00h\x01\x93").stop();
    let bytes = wrapper(outer, "O8", 63, 1).raw(&inner).stop();
    assert!(
        refused(&bytes).ends_with("names os.system, which is not among the allowed globals, as pickle.load would read it"),
        "{}",
        refused(&bytes)
    );
    // A good file makes it look for a module that is called like a feature.
    let features = Asm::protocol(4).text("price").raw(b"\x940").text("clicks").raw(b"\x940");
    let inner = Asm::protocol(4).text("numpy").raw(b"\x94").text("dtype").raw(b"0h\x00").text("dtype").raw(b"\x93").stop();
    assert!(look(&wrapper(features, "O8", 63, 1).raw(&inner).stop()).is_ok());
    let elsewhere = Asm::protocol(4).text("os.path").raw(b"\x940");
    assert!(refused(&wrapper(elsewhere, "O8", 63, 1).raw(&inner).stop()).contains("os.path.dtype"));
}

#[test]
fn an_array_in_an_inner_pickle_is_refused() {
    let inner = wrapper(Asm::protocol(4), "f8", 0, 1).stop();
    assert!(refused(&wrapper(Asm::protocol(4), "O8", 63, 1).raw(&inner).stop()).contains("where joblib reads none"));
}
