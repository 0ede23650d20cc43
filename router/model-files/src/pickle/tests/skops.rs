//! Archives of skops: real ones, and what would be made of others.

use super::super::{Allowed, Container, Examined, Limits, Unsafe, examine_opaque};
use super::containers::{part, renaming, zip};

fn look(bytes: &[u8]) -> Result<Option<Examined>, Unsafe> {
    examine_opaque(bytes, &Allowed::default(), &Limits::default())
}

fn contains(bytes: &[u8], words: &str) {
    let text = look(bytes).expect_err("it is accepted").to_string();
    assert!(text.contains(words), "{text}");
}

/// An archive with this text in it.
fn archive(schema: &str) -> Vec<u8> {
    zip(&[part("schema.json", schema.as_bytes())]).0
}

/// What a part begins with, without the brace at its end.
fn begun(made: &str, name: &str) -> String {
    let (module, class) = name.rsplit_once('.').unwrap();
    format!("{{\"__module__\": \"{module}\", \"__class__\": \"{class}\", \"__loader__\": \"{made}\"")
}

fn node(made: &str, name: &str, content: &str) -> String {
    format!("{}, \"content\": {content}}}", begun(made, name))
}

/// A type as a value; it has no content.
fn type_of(name: &str) -> String {
    format!("{}}}", begun("TypeNode", name))
}

/// A part of JSON, of which the text is `text`.
fn json(text: &str) -> String {
    node("JsonNode", "builtins.str", &serde_json::to_string(text).unwrap())
}

/// A dict whose keys are of the type `key`.
fn dict_of(key: &str, items: &[(&str, String)]) -> String {
    let content: Vec<String> = items.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
    let types = vec![key.to_owned(); items.len()].join(", ");
    let keys = node("ListNode", "builtins.list", &format!("[{types}]"));
    node("DictNode", "builtins.dict", &format!("{{{}}}, \"key_types\": {keys}", content.join(", ")))
}

fn dict(items: &[(&str, String)]) -> String {
    dict_of(&type_of("builtins.str"), items)
}

/// Archives, and names of theirs. `skops/README.md` says how they were made.
const REAL: [(&[u8], &[&str]); 7] = [
    (include_bytes!("skops/linear.skops"), &["numpy.float64", "sklearn.linear_model._base.LinearRegression"]),
    (
        include_bytes!("skops/pipeline.skops"),
        &["builtins.tuple", "sklearn.pipeline.Pipeline", "sklearn.preprocessing._data.StandardScaler"],
    ),
    (include_bytes!("skops/pipeline_0_13.skops"), &["sklearn.linear_model._ridge.Ridge", "sklearn.pipeline.Pipeline"]),
    (include_bytes!("skops/forest.skops"), &["sklearn.ensemble._forest.RandomForestRegressor", "sklearn.tree._tree.Tree"]),
    (include_bytes!("skops/boosting.skops"), &["numpy.random.mtrand.RandomState", "sklearn._loss._loss.CyHalfSquaredError"]),
    (include_bytes!("skops/histogram.skops"), &["numpy.random._generator.Generator", "sklearn._loss._loss.CyHalfSquaredError"]),
    (include_bytes!("skops/lightgbm.skops"), &["collections.OrderedDict", "collections.defaultdict", "lightgbm.basic.Booster"]),
];

#[test]
fn real_archives_pass() {
    for (bytes, names) in REAL {
        let found = look(bytes).unwrap_or_else(|error| panic!("{names:?}: {error}")).unwrap();
        assert_eq!((found.container, found.pickles), (Container::Archive, 0), "{names:?}");
        for name in names {
            assert!(found.globals.iter().any(|global| global == name), "{name}: {:?}", found.globals);
        }
    }
    let linear = look(REAL[0].0).unwrap().unwrap();
    let names =
        ["builtins.dict", "builtins.list", "builtins.str", "numpy.float64", "numpy.ndarray", "sklearn.linear_model._base.LinearRegression"];
    assert_eq!(linear.globals, names);
}

#[test]
fn types_are_those_that_a_pickle_may_name() {
    let good = node("ObjectNode", "sklearn.linear_model._ridge.Ridge", &dict(&[("alpha", json("1.0"))]));
    let found = look(&archive(&good)).unwrap().unwrap();
    assert_eq!(found.globals, ["builtins.dict", "builtins.list", "builtins.str", "sklearn.linear_model._ridge.Ridge"]);
    let hidden = node("ObjectNode", "sklearn.linear_model._ridge.Ridge", &node("ObjectNode", "os._wrap_close", "{}"));
    contains(&archive(&hidden), "schema.json: names os._wrap_close, which is not among the allowed globals");
    contains(&archive(&type_of("os.system")), "schema.json: names os.system, which is not among the allowed globals");
    let texts = node("ObjectNode", "sklearn.feature_extraction.text.TfidfVectorizer", "{}");
    contains(&archive(&texts), "names sklearn.feature_extraction.text.TfidfVectorizer, which may hold functions");
    contains(&archive("{"), "schema.json: ");
    contains(&archive("{\"__loader__\": \"ObjectNode\", \"content\": {}}"), "a part that is made by ObjectNode says no type");
    // Somebody's own.
    let own = archive(&node("ObjectNode", "shop.Ranker", &dict(&[])));
    assert!(examine_opaque(&own, &Allowed::with(&["shop.Ranker"]), &Limits::default()).is_ok());
    contains(&own, "names shop.Ranker");
    for (name, made) in [("numpy.dtype", "DTypeNode"), ("numpy.ma.MaskedArray", "MaskedArrayNode"), ("builtins.bytes", "BytesNode")] {
        let found = look(&archive(&node(made, name, &json("1.0")))).unwrap().unwrap();
        assert_eq!(found.globals, [name]);
        contains(&archive(&node(made, name, &hidden)), "names os._wrap_close");
    }
}

/// Skops imports what a type says in itself, and calls it with a key of the dict. It reads no content of it.
#[test]
fn the_types_of_keys_are_looked_at() {
    let decoy = node("TypeNode", "os.system", "{\"__module__\": \"builtins\", \"__class__\": \"str\"}");
    for key in [decoy, type_of("os.system")] {
        contains(
            &archive(&dict_of(&key, &[("touch x", json("1"))])),
            "schema.json: names os.system, which is not among the allowed globals",
        );
    }
    let names = "builtins.int builtins.str builtins.float builtins.bool builtins.NoneType builtins.list builtins.dict builtins.tuple builtins.set \
                 builtins.complex collections.OrderedDict numpy.float32 numpy.int64 numpy.str_ numpy.bool";
    for name in names.split_ascii_whitespace() {
        let found = look(&archive(&dict_of(&type_of(name), &[("1", json("1"))])));
        assert!(found.is_ok(), "{name}: {found:?}");
    }
    let default = |factory: &str| {
        let content = format!("{{\"main\": {}, \"default_factory\": {}}}", dict(&[]), type_of(factory));
        archive(&node("DefaultDictNode", "collections.defaultdict", &content))
    };
    assert!(look(&default("builtins.list")).is_ok());
    contains(&default("os.getcwd"), "names os.getcwd");
}

#[test]
fn a_part_is_made_as_a_pickle_would_make_it() {
    for (made, name) in [
        // Called with what is in the file.
        ("DictNode", "lightgbm.basic.Booster"),
        ("ListNode", "xgboost.core.Booster"),
        ("SetNode", "lightgbm.basic.Booster"),
        ("NdArrayNode", "torch.FloatStorage"),
        ("NdArrayNode", "sklearn.feature_selection._univariate_selection.f_classif"),
        ("LossNode", "builtins.list"),
        ("TypeNode", "lightgbm.basic.Booster"),
        ("TypeNode", "numpy.core.multiarray._reconstruct"),
        // Made without a call.
        ("ObjectNode", "numpy.ndarray"),
        ("ObjectNode", "builtins.range"),
        // Always the same, whatever its name.
        ("BytesNode", "os.abort"),
        ("DTypeNode", "os.abort"),
        ("MaskedArrayNode", "os.abort"),
        ("RandomStateNode", "os.abort"),
        ("RandomGeneratorNode", "os.abort"),
        ("TreeNode", "os.abort"),
    ] {
        contains(&archive(&node(made, name, "{}")), &format!("a part is made by {made} of {name}, which is not allowed"));
    }
    for made in
        ["FunctionNode", "MethodNode", "PartialNode", "OperatorFuncNode", "ConstructorFromReduceNode", "SparseMatrixNode", "CachedNode", ""]
    {
        contains(&archive(&node(made, "builtins.list", "{}")), &format!("a part is made by {made}, which is not allowed"));
    }
    contains(&archive(&node("TupleNode", "os.system", "[]")), "names os.system");
    for key in ["__class__", "__setstate__"] {
        let state = dict(&[(key, json("1"))]);
        contains(&archive(&node("ObjectNode", "sklearn.linear_model._ridge.Ridge", &state)), &format!("a dict sets {key}"));
    }
    for protocol in ["3", "-1", "true", "1.0", "\"2\""] {
        let schema = node("ListNode", "builtins.list", &format!("[], \"protocol\": {protocol}"));
        contains(&archive(&schema), "must be from 0 to 2");
    }
}

/// Skops takes the first part of a number wherever the number comes again.
#[test]
fn parts_of_one_number_are_the_same() {
    let numbered = |number: &str, content: &str| node("BytesNode", "builtins.bytes", &format!("{content}, \"__id__\": {number}"));
    let both = |one: &str, other: &str| archive(&node("ListNode", "builtins.list", &format!("[{one}, {other}]")));
    assert!(look(&both(&numbered("5", "1"), &numbered("5", "1"))).is_ok());
    assert!(look(&both(&numbered("5", "1"), &numbered("6", "2"))).is_ok());
    assert!(look(&both(&numbered("5", "1, \"file\": \"a\""), &numbered("5", "1, \"file\": \"b\""))).is_ok());
    for other in ["2", "1, \"more\": 1", "[1]"] {
        contains(&both(&numbered("5", "1"), &numbered("5", other)), "two parts that differ have the number 5");
    }
    contains(&both(&numbered("5", "{\"a\": [{}]}"), &numbered("5", "{\"a\": [{\"b\": 1}]}")), "two parts that differ have the number 5");
    for number in ["1.0", "true", "-1", "\"5\"", "null"] {
        contains(&archive(&numbered(number, "1")), "a part has a number that is none");
    }
}

/// Skops calls the class of numpy that a text in a generator names, and numpy reads where its state says.
#[test]
fn generators_of_random_numbers_are_those_of_numpy() {
    let mersenne = |place: String| dict(&[("bit_generator", json("\"MT19937\"")), ("state", dict(&[("pos", place)]))]);
    let philox = |place: &str| dict(&[("bit_generator", json("\"Philox\"")), ("buffer_pos", json(place))]);
    let named = |name: &str| dict(&[("bit_generator", json(name))]);
    let ways = |state: &str| {
        let state_of = archive(&node("RandomStateNode", "numpy.random.mtrand.RandomState", state));
        let content = format!("{{\"bit_generator\": {state}}}");
        [state_of, archive(&node("RandomGeneratorNode", "numpy.random._generator.Generator", &content))]
    };
    for state in [mersenne(json("624")), mersenne(json("0")), philox("4"), named("\"PCG64\""), named("\"SFC64\"")] {
        for bytes in ways(&state) {
            assert!(look(&bytes).is_ok(), "{state}: {:?}", look(&bytes));
        }
    }
    let beside = format!("{}, \"bit_generator\": \"seed\"}}", named("\"PCG64\"").strip_suffix('}').unwrap());
    for state in [
        mersenne(json("625")),
        mersenne(json("-1")),
        mersenne(json("1.0")),
        mersenne("624".to_owned()),
        philox("5"),
        named("\"seed\""),
        named("1"),
        beside,
        json("\"MT19937\""),
        "{}".to_owned(),
    ] {
        for bytes in ways(&state) {
            contains(&bytes, "with a state that is not what numpy writes for a generator of random numbers");
        }
    }
}

/// Python reads an entry by its Unicode name from 3.12 on.
#[test]
fn no_entry_is_a_schema_by_another_name() {
    let evil = dict_of(&type_of("os.system"), &[("touch x", json("1"))]);
    let mut renamed = part("x.json", evil.as_bytes());
    renamed.extra = renaming(0x7075, "x.json", "schema.json");
    renamed.local_extra.clone_from(&renamed.extra);
    let good = part("schema.json", json("1").as_bytes());
    let says = "x.json: an extra field gives it another name, which some readers take";
    contains(&zip(std::slice::from_ref(&renamed)).0, says);
    contains(&zip(&[good, renamed]).0, says);
}
