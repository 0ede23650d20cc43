//! What may be done with what is allowed.

use super::super::{Allowed, Limits, Unsafe, examine};
use super::asm::Asm;
use super::{look, refused};

fn contains(bytes: &[u8], words: &str) {
    let text = refused(bytes);
    assert!(text.contains(words), "{text}");
}

#[test]
fn what_a_call_made_is_never_called() {
    contains(
        &Asm::protocol(2).global("builtins", "str").text("x").raw(b"\x85R)R").stop(),
        "calls what builtins.str made, which is not allowed",
    );
    contains(&Asm::protocol(2).text("os").raw(b")R").stop(), "calls a text, which is not allowed");
    contains(&Asm::protocol(2).raw(b"})R").stop(), "calls a collection");
}

#[test]
fn what_may_only_be_made_is_not_called() {
    let model_file = Asm::protocol(2).global("lightgbm.basic", "Booster").raw(b"N").text("/etc/passwd").raw(b"\x86R").stop();
    contains(&model_file, "calls lightgbm.basic.Booster, which is not allowed");
    contains(&Asm::protocol(2).global("lightgbm.basic", "Booster").text("x").raw(b"\x85\x81").stop(), "as a class with arguments");
    contains(&Asm::protocol(2).raw(b"(").global("xgboost.core", "Booster").text("x").raw(b"o").stop(), "calls xgboost.core.Booster");
    assert!(look(&Asm::protocol(2).global("lightgbm.basic", "Booster").raw(b")\x81}b").stop()).is_ok());
}

#[test]
fn a_state_sets_no_attribute_that_python_looks_at() {
    for key in ["__class__", "__setstate__", "__dict__", "__reduce__", "__getattr__", "__init__"] {
        let made = |asm: Asm| asm.global("sklearn.linear_model._ridge", "Ridge").raw(b")\x81");
        contains(&made(Asm::protocol(2)).raw(b"}").text(key).raw(b"Nsb").stop(), &format!("which sets {key}"));
        contains(&made(Asm::protocol(2)).raw(b"(").text("a").raw(b"N").text(key).raw(b"Ndb").stop(), &format!("which sets {key}"));
        // The second of a pair is set through setters.
        contains(&made(Asm::protocol(2)).raw(b"N}").text(key).raw(b"Ns\x86b").stop(), "which is not a dict of attributes");
    }
    contains(
        &Asm::protocol(2).global("sklearn.linear_model._ridge", "Ridge").raw(b")\x81}C\x01aNsb").stop(),
        "whose attributes cannot be told",
    );
}

#[test]
fn only_an_instance_gets_a_state() {
    contains(
        &Asm::protocol(2).global("sklearn.linear_model._ridge", "Ridge").raw(b"N}").text("predict").raw(b"Ns\x86b").stop(),
        "gives a state to the global",
    );
    contains(&Asm::protocol(2).raw(b"}}b").stop(), "gives a state to a collection");
    contains(&Asm::protocol(2).global("builtins", "str").raw(b")R}b").stop(), "which has none");
    contains(&Asm::protocol(2).global("numpy", "ndarray").raw(b"NK\x01s").stop(), "puts items in the global numpy.ndarray");
}

#[test]
fn reconstructors_make_allowed_classes_only() {
    let one = |class: (&str, &str), base: (&str, &str), state: &[u8]| {
        Asm::default()
            .global("copy_reg", "_reconstructor")
            .raw(b"(")
            .global(class.0, class.1)
            .global(base.0, base.1)
            .raw(state)
            .raw(b"tR")
            .stop()
    };
    let (ridge, object) = (("sklearn.linear_model._ridge", "Ridge"), ("__builtin__", "object"));
    assert!(look(&one(ridge, object, b"N")).is_ok());
    contains(&one(("subprocess", "Popen"), object, b"N"), "names subprocess.Popen");
    contains(&one(("numpy", "dtype"), object, b"N"), "may not be made so");
    contains(&one(ridge, ridge, b"N"), "may not be made so");
    contains(&one(ridge, object, b"I1\n"), "may not be made so");
    contains(
        &Asm::protocol(2).global("numpy.core.multiarray", "_reconstruct").global("numpy", "dtype").raw(b"K\x00\x85C\x01b\x87R").stop(),
        "other arguments",
    );
}

#[test]
fn codecs_make_bytes_by_latin_1_only() {
    let one = |encoding: &str| Asm::protocol(2).global("_codecs", "encode").text("x").text(encoding).raw(b"\x86R").stop();
    assert!(look(&one("latin1")).is_ok());
    for encoding in ["rot13", "zlib", "hex", "utf-8", "unicode_escape"] {
        contains(&one(encoding), "calls _codecs.encode other than");
    }
}

#[test]
fn factories_are_constructors_of_nothing() {
    let one = |module: &str, name: &str| Asm::protocol(2).global("collections", "defaultdict").global(module, name).raw(b"\x85R").stop();
    assert!(look(&one("builtins", "list")).is_ok());
    contains(&one("lightgbm.basic", "Booster"), "calls collections.defaultdict with other arguments");
    contains(&one("os", "getcwd"), "names os.getcwd");
}

#[test]
fn a_constructor_gets_no_bomb_and_no_global() {
    contains(&Asm::protocol(2).global("builtins", "bytearray").raw(b"J\xff\xff\xff\x7f\x85R").stop(), "calls builtins.bytearray");
    let range = Asm::protocol(2).global("builtins", "list").global("builtins", "range").raw(b"J\xff\xff\xff\x7f\x85R\x85R").stop();
    contains(&range, "with arguments that are not plain data");
    contains(&Asm::protocol(2).global("builtins", "str").global("builtins", "list").raw(b"\x85R").stop(), "not plain data");
    // A tuple in a tuple, each twice: its hash would take 2^64 steps.
    let laughs = (0..64).fold(Asm::protocol(4).raw(b"N"), |asm, _| asm.raw(b"2\x86"));
    contains(&laughs.stop(), "values in a tuple");
    contains(&Asm::protocol(2).raw(b"N").raw(&b"\x85".repeat(1_000)).stop(), "tuples in each other");
}

#[test]
fn a_function_transformer_holds_no_functions() {
    let one = |func: &[u8]| {
        Asm::protocol(2)
            .global("sklearn.preprocessing._function_transformer", "FunctionTransformer")
            .raw(b")\x81}(")
            .text("func")
            .raw(func)
            .text("inverse_func")
            .raw(b"Nub")
            .stop()
    };
    assert!(look(&one(b"N")).is_ok());
    contains(&one(b"cbuiltins\nstr\n"), "which has functions");
}

#[test]
fn data_types_do_not_lie_about_objects() {
    assert!(look(&Asm::protocol(2).dtype("f8", "<", -1, 0).stop()).is_ok());
    assert!(look(&Asm::protocol(2).dtype("O8", "|", -1, 63).stop()).is_ok());
    let lie = "says something else than its name";
    contains(&Asm::protocol(2).dtype("O8", "|", -1, 0).stop(), lie);
    contains(&Asm::protocol(2).dtype("f8", "<", -1, 63).stop(), lie);
    contains(&Asm::protocol(2).dtype("V8", "|", 16, 0).stop(), lie);
    // Twice, and numpy's own type by the third argument.
    contains(
        &Asm::protocol(2).dtype("f8", "<", -1, 0).raw(b"(K\x03").text("<").raw(b"NNNK\x01K\x01K\x00tb").stop(),
        "was built or used before",
    );
    contains(&Asm::protocol(2).global("numpy", "dtype").text("f8").raw(b"\x89\x89\x87R").stop(), "other arguments than its pickles have");
    contains(&Asm::protocol(2).global("numpy", "dtype").text("f8,O").raw(b"\x89\x88\x87R").stop(), "other arguments than its pickles have");
    // Fields with objects; and fields that are changed afterwards.
    let fields = |inner: Asm| {
        Asm::protocol(2)
            .global("numpy", "dtype")
            .text("V8")
            .raw(b"\x89\x88\x87R(K\x03")
            .text("|")
            .raw(b"N")
            .text("a")
            .raw(b"\x85}q\x05")
            .text("a")
            .raw(&inner.0)
            .raw(b"K\x00\x86sK\x08K\x01K\x10tb")
    };
    assert!(look(&fields(Asm::default().dtype("f8", "<", -1, 0)).stop()).is_ok());
    contains(&fields(Asm::default().dtype("O8", "|", -1, 63)).stop(), lie);
    contains(&fields(Asm::default().dtype("f8", "<", -1, 0)).raw(b"0h\x05").text("a").raw(b"Ns").stop(), "changes the fields");
}

#[test]
fn arrays_get_raw_bytes_by_a_known_type_only() {
    let scalar = |dtype: Asm| Asm::protocol(2).global("numpy.core.multiarray", "scalar").raw(&dtype.0).raw(b"C\x08abcdefgh\x86R").stop();
    assert!(look(&scalar(Asm::default().dtype("f8", "<", -1, 0))).is_ok());
    contains(&scalar(Asm::default().dtype("O8", "|", -1, 63)), "calls numpy.core.multiarray.scalar with other arguments");
    contains(&scalar(Asm::default().text("f8")), "calls numpy.core.multiarray.scalar with other arguments");
    let array = |dtype: Asm, data: &[u8]| {
        Asm::protocol(2)
            .global("numpy.core.multiarray", "_reconstruct")
            .global("numpy", "ndarray")
            .raw(b"K\x00\x85C\x01b\x87R(K\x01K\x01\x85")
            .raw(&dtype.0)
            .raw(b"\x89")
            .raw(data)
            .raw(b"tb")
            .stop()
    };
    assert!(look(&array(Asm::default().dtype("f8", "<", -1, 0), b"C\x08abcdefgh")).is_ok());
    assert!(look(&array(Asm::default().dtype("O8", "|", -1, 63), b"](Ne")).is_ok());
    contains(&array(Asm::default().dtype("O8", "|", -1, 63), b"C\x08abcdefgh"), "not what numpy writes for an array");
    contains(&array(Asm::default().dtype("f8", "<", -1, 0), b"](Ne"), "not what numpy writes for an array");
}

/// Numpy takes so many out of a list without a look at its length.
#[test]
fn an_array_of_objects_gets_as_many_as_its_shape_says() {
    let array = |start: Asm, shape: &[u8], list: &[u8]| {
        let empty = start.global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray").raw(b"K\x00\x85C\x01b\x87R(K\x01");
        empty.raw(shape).raw(&Asm::default().dtype("O8", "|", -1, 63).0).raw(b"\x89").raw(list).raw(b"tb")
    };
    let plain = |shape: &[u8], list: &[u8]| array(Asm::protocol(2), shape, list);
    for (shape, list) in [
        (&b"K\x02\x85"[..], &b"](NNe"[..]),
        (b"K\x02\x85", b"(NNl"),
        (b"K\x02\x85", b"]NaNa"),
        (b"K\x02\x85", b"]q\x05(Neh\x05Na0"),
        (b"K\x02K\x03\x86", b"](NNNNe(NNe"),
        (b"L2L\n\x85", b"](NNe"),
        (b")", b"]Na"),
        (b"K\x00\x85", b"]"),
    ] {
        let bytes = plain(shape, list).stop();
        assert!(look(&bytes).is_ok(), "{shape:?} {list:?}: {:?}", look(&bytes));
    }
    contains(&plain(b"M\xe8\x03\x85", b"(Nl").stop(), "what numpy.ndarray made, whose shape has 1000 objects, and whose list 1");
    contains(&plain(b"K\x01\x85", b"](NNe").stop(), "whose shape has 1 objects, and whose list 2");
    // What is appended after the array took its items comes too late.
    contains(&plain(b"K\x02\x85", b"]q\x05Na").raw(b"0h\x05Na").stop(), "whose shape has 2 objects, and whose list 1");
    // With what the pointers would be taken from laid beside it.
    let laid = (0_u8..4).fold(Asm::protocol(5), |asm, number| {
        asm.raw(b"\x96\x2f\0\0\0\0\0\0\0").raw(&b"ABCDEFGH".repeat(6)[..47]).raw(&[b'q', number + 10, b'0'])
    });
    contains(&array(laid.raw(b"(NNNNNNlq\x050"), b"K\x42\x85", b"h\x05").stop(), "whose shape has 66 objects, and whose list 6");
    // Shapes that nobody can tell, also of raw numbers.
    for shape in [
        &b"(Nt"[..],
        b"J\xff\xff\xff\xff\x85",
        b"\x88\x85",
        b"G\x3f\xf0\0\0\0\0\0\0\x85",
        b"\x8a\x09\0\0\0\0\0\0\0\0\x01\x85",
        b"\x8a\x05\0\0\0\0\x01\x8a\x05\0\0\0\0\x01\x86",
        b"](K\x01e",
        b"K\x01",
    ] {
        contains(&plain(shape, b"](Ne").stop(), "which is not what numpy writes for an array");
    }
    let raw = Asm::protocol(2).global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray");
    let raw = raw.raw(b"K\x00\x85C\x01b\x87R(K\x01N\x85").raw(&Asm::default().dtype("f8", "<", -1, 0).0);
    contains(&raw.raw(b"\x89C\x08abcdefghtb").stop(), "which is not what numpy writes for an array");
}

/// The state says where a generator reads next in what it holds.
#[test]
fn a_generator_of_random_numbers_reads_only_what_it_holds() {
    let made = |module: &str, name: &str| {
        Asm::protocol(2).global("numpy.random._pickle", "__bit_generator_ctor").global(module, name).raw(b"\x85R")
    };
    let mersenne = |place: &[u8], end: &[u8]| {
        let state = made("numpy.random._mt19937", "MT19937").raw(b"}(").text("bit_generator").text("MT19937").text("state");
        state.raw(b"}").text("pos").raw(place).raw(b"su").raw(end).stop()
    };
    let philox = |place: &[u8]| {
        let state = made("numpy.random._philox", "Philox").raw(b"}(").text("bit_generator").text("Philox");
        state.text("buffer_pos").raw(place).raw(b"ub").stop()
    };
    let other = "which is not what numpy writes for a generator of random numbers";
    for end in [&b"b"[..], b"N\x86b"] {
        assert!(look(&mersenne(b"M\x70\x02", end)).is_ok() && look(&mersenne(b"K\x00", end)).is_ok());
        for place in [&b"M\x71\x02"[..], b"J\xff\xff\xff\xff", b"N", b"\x8a\x09\0\0\0\0\0\0\0\0\x01"] {
            contains(&mersenne(place, end), other);
        }
    }
    assert!(look(&philox(b"K\x04")).is_ok());
    contains(&philox(b"K\x05"), other);
    contains(&philox(b"J\xff\xff\xff\xff"), other);
    let pcg = |name: &str| made("numpy.random._pcg64", "PCG64").raw(b"}").text("bit_generator").text(name).raw(b"sb").stop();
    assert!(look(&pcg("PCG64")).is_ok());
    contains(&pcg("Unknown"), other);
    contains(&made("numpy.random._pcg64", "PCG64").raw(b"K\x01b").stop(), other);
    contains(&made("numpy.random._pcg64", "PCG64").raw(b"}NN\x87b").stop(), other);
}

#[test]
fn names_can_be_added_and_only_whole_ones() {
    let bytes = Asm::protocol(4).stack_global("shop.ranking", "Model").raw(b")\x81}b").stop();
    let with = |names: &[&str]| examine(&bytes, &Allowed::with(names), &Limits::default());
    assert!(with(&["shop.ranking.Model"]).is_ok());
    for other in ["shop.ranking.*", "shop.*", "*", "shop.ranking", "Model", "shop.ranking.Mode", ""] {
        assert!(matches!(with(&[other]), Err(Unsafe::Refused(_))), "{other}");
    }
    // The parts of a name are its module and the one name in it.
    let traversal = Asm::protocol(4).stack_global("shop", "ranking.Model").stop();
    assert!(examine(&traversal, &Allowed::with(&["shop.ranking.Model"]), &Limits::default()).is_err());
}

#[test]
fn limits_hold() {
    let limits = Limits { opcodes: 100, memo: 10, stack: 20, globals: 2, pickles: 3, kept_bytes: 1 << 10, ..Limits::default() };
    let over = |bytes: Vec<u8>, word: &str| match examine(&bytes, &Allowed::default(), &limits) {
        Err(Unsafe::Limit { what, .. }) => assert!(what.contains(word), "{what}"),
        other => panic!("{word}: {other:?}"),
    };
    over(Asm::default().raw(&b"N0".repeat(60)).stop(), "opcodes");
    over(Asm::default().raw(&[b'N'; 30]).stop(), "stack");
    over(Asm::default().raw(&[b'('; 30]).stop(), "stack");
    over(Asm::default().raw(b"N").raw(&b"\x94".repeat(12)).stop(), "memo");
    over(Asm::default().raw(b"Nr\xff\xff\xff\xff").stop(), "memo");
    over(b"N.".repeat(5), "pickles");
    let three = Asm::default().global("builtins", "list").global("builtins", "dict").global("builtins", "set").stop();
    over(three, "globals");
    over(Asm::default().raw(&b"\x8c\x40".iter().copied().chain([b'a'; 64]).collect::<Vec<u8>>().repeat(19)).stop(), "texts");
}

#[test]
fn what_python_could_not_read_is_broken() {
    for (bytes, words) in [
        (&b""[..], "ends in the middle"),
        (b".", "too few values"),
        (b"N", "ends in the middle"),
        (b"N.\x00", "0x00 is no opcode"),
        (b"(.", "too few values"),
        (b"N(R.", "too few values"),
        (b"1.", "there is no mark"),
        (b"h\x00.", "nothing has the number 0"),
        (b"\x80\x06N.", "must be from 0 to 5"),
        (b"N\x80\x02.", "not at the beginning"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0N", "ends in the middle"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0N.", "bytes are left in the frame"),
        (b"\x80\x04\x95\x03\0\0\0\0\0\0\0C\x03abc.", "inside an opcode"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0N.NN.", "bytes are left in the frame"),
        (b"\x80\x04\x95\x0c\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0NNN.", "a frame begins in a frame"),
        (b"T\xff\xff\xff\xff.", "a length is negative"),
        (b"(NNNd.", "a key without a value"),
        (b"N(N.", ""),
    ] {
        match look(bytes) {
            Err(Unsafe::Broken(refusal)) => assert!(refusal.why.contains(words), "{bytes:?}: {refusal}"),
            Ok(_) if words.is_empty() => {}
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
}

#[test]
fn what_reads_texts_calls_nothing_and_opens_nothing() {
    let state = |input: &str, tokenizer: &[u8], accents: &[u8]| {
        let made = Asm::protocol(4).stack_global("sklearn.feature_extraction.text", "TfidfVectorizer").raw(b")\x81}(");
        let made = made.text("input").text(input).text("preprocessor").raw(b"N").text("tokenizer").raw(tokenizer);
        made.text("analyzer").text("word").text("strip_accents").raw(accents).raw(b"ub").stop()
    };
    let function = Asm::default().stack_global("sklearn.feature_selection._univariate_selection", "chi2").0;
    assert!(look(&state("content", b"N", b"N")).is_ok());
    contains(&state("filename", b"N", b"N"), "whose input is not said to be the texts themselves");
    contains(&state("content", &function, b"N"), "which has functions");
    contains(&state("content", b"N", &function), "which has functions");
    let bare = Asm::protocol(4).stack_global("sklearn.feature_extraction.text", "CountVectorizer").raw(b")\x81}b").stop();
    contains(&bare, "whose input is not said");
}
