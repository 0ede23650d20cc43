//! ONNX files: what is read, and what is refused with its place.
use prost::Message as _;

use super::proto::{Function, Graph, Model, Node, OpsetId, Sparse, Tensor};
use super::samples::{self, branches, floats, graph_of, int, ints, model, node, ranker, raw, tensor, tensor_of, value};
use super::*;

fn read_model(model: &Model) -> Result<OnnxShape, Malformed> {
    read(&model.encode_to_vec(), &Limits::default(), &Opsets::ONNX_RUNTIME_1_32)
}

#[track_caller]
fn assert_refused(model: &Model, expected: &str) {
    let fault = read_model(model).expect_err(expected).to_string();
    assert!(fault.contains(expected), "{fault:?}, not {expected:?}");
}

fn graph(model: &mut Model) -> &mut Graph {
    model.graph.as_mut().unwrap()
}

/// The ranker, after a change of its tree ensemble's attribute.
fn with_ints(model: fn() -> Model, name: &str, place: usize, to: i64) -> Model {
    let mut model = model();
    let attribute = graph(&mut model).node[0].attribute.iter_mut().find(|attribute| attribute.name.as_deref() == Some(name)).unwrap();
    attribute.ints[place] = to;
    model
}

#[test]
fn a_model_is_read() {
    let shape = read_model(&ranker()).unwrap();
    assert_eq!((shape.ir_version, shape.producer.as_str(), shape.loops, shape.trees), (8, "hand 1.0", 0, 2));
    assert_eq!(shape.opsets, BTreeMap::from([("ai.onnx".to_owned(), 17), ("ai.onnx.ml".to_owned(), 3)]));
    assert_eq!(shape.inputs, [TensorShape { name: "x".to_owned(), element: "float32".to_owned(), shape: Some(vec![-1, 2]) }]);
    assert_eq!(shape.outputs[0].shape, Some(vec![-1, 1]));
    assert_eq!(shape.operators.keys().collect::<Vec<_>>(), ["Add", "MatMul", "ai.onnx.ml.TreeEnsembleRegressor"]);
    assert_eq!((shape.parameters, shape.ensembles_of_unknown_width), (6 + 4 + 2, 0));
    assert_eq!(shape.feature_names, ["bm25", "shop"]);
    let shape = read_model(&branches()).unwrap();
    assert_eq!((shape.trees, shape.parameters), (1, 2 + 2 + 3 + 3));
    let bytes = ranker().encode_to_vec();
    assert_eq!(
        read_shared(bytes.clone().into(), &Limits::default(), &Opsets::ONNX_RUNTIME_1_32),
        read(&bytes, &Limits::default(), &Opsets::ONNX_RUNTIME_1_32)
    );
}

#[test]
fn an_initializer_that_is_listed_as_an_input_is_none() {
    let mut old = ranker();
    graph(&mut old).input.push(value("w", &[1, 1]));
    assert_eq!(read_model(&old).unwrap().inputs.len(), 1);
}

#[test]
fn versions_are_those_of_the_runtime() {
    for (ir, is_right) in [(2, false), (3, true), (14, true), (15, false)] {
        assert_eq!(read_model(&Model { ir_version: Some(ir), ..ranker() }).is_ok(), is_right, "IR {ir}");
    }
    let import = |domain: &str, version| {
        let mut model = ranker();
        model.opset_import.retain(|import| import.domain.as_deref() != Some(domain));
        model.opset_import.push(OpsetId { domain: Some(domain.to_owned()), version: Some(version) });
        read_model(&model).map(|_| ())
    };
    assert!(import("", 28).is_ok() && import("ai.onnx.ml", 5).is_ok() && import("com.example", 7).is_ok());
    assert_eq!(import("", 29).unwrap_err().to_string(), "opset \"ai.onnx\" = 29: must be from 1 to 28");
    assert_eq!(import("ai.onnx.ml", 6).unwrap_err().what, "must be from 1 to 5");
    assert_eq!(import("ai.onnx", 16).unwrap_err().what, "is also imported as 17", "two names of one domain");
}

#[test]
fn custom_operators_are_refused_by_name() {
    let mut custom = ranker();
    graph(&mut custom).node[1] = node("com.example", "Evil", &["s"], &["p"], Vec::new());
    assert_refused(&custom, "graph: node 1, \"com.example.Evil\": operator \"Evil\" of domain \"com.example\": is a custom operator");
    graph(&mut custom).node[1] = node("com.microsoft", "FusedMatMul", &["s", "w"], &["p"], Vec::new());
    assert_refused(&custom, "its domain \"com.microsoft\" is not imported");
}

#[test]
fn functions_are_operators_of_the_models_own() {
    let function = |name: &str, nodes: Vec<Node>| Function {
        name: Some(name.to_owned()),
        domain: Some("own".to_owned()),
        node: nodes,
        opset_import: vec![OpsetId { domain: None, version: Some(17) }, OpsetId { domain: Some("own".to_owned()), version: Some(1) }],
        attribute_proto: Vec::new(),
    };
    let call = |name: &str| node("own", name, &["a"], &["b"], Vec::new());
    let mut own = ranker();
    own.opset_import.push(OpsetId { domain: Some("own".to_owned()), version: Some(1) });
    own.functions = vec![function("Twice", vec![node("", "Add", &["a", "a"], &["b"], Vec::new())])];
    graph(&mut own).node[2] = call("Twice");
    assert_eq!(read_model(&own).unwrap().operators["own.Twice"], 1);
    own.functions[0].node.push(call("Twice"));
    assert_refused(&own, "function 0: calls itself");
    own.functions[0].node.pop();
    own.functions.extend((0..40).map(|level| {
        let called = if level == 0 { "Twice".to_owned() } else { format!("F{}", level - 1) };
        function(&format!("F{level}"), vec![call(&called), call(&called)])
    }));
    assert_refused(&own, "nodes, with functions put in");
    own.functions.truncate(1);
    own.functions[0].node[0].attribute.push(tensor_of("t", external("secret", "/etc/passwd")));
    assert_refused(&own, "is in another file, \"/etc/passwd\"");
    own.functions[0].domain = Some("ai.onnx".to_owned());
    assert_refused(&own, "is in a domain of the runtime");
}

fn external(name: &str, location: &str) -> Tensor {
    let entry = proto::Entry { key: Some("location".to_owned()), value: Some(location.to_owned()) };
    Tensor { float_data: Vec::new(), data_location: Some(1), external_data: vec![entry], ..tensor(name, &[1], &[]) }
}

#[test]
fn data_in_other_files_is_refused_at_any_depth() {
    let deep = external("w2", "../weights.bin");
    let inner = Graph { initializer: vec![deep.clone()], ..Graph::default() };
    let branch = Graph { node: vec![node("", "If", &["c"], &["y"], vec![graph_of("then_branch", inner)])], ..Graph::default() };
    let sparse = Sparse { values: Some(deep.clone()), indices: Some(raw("i", &[0], 7, &[])), dims: vec![4] };
    let constant = samples::tensor_of("value", deep.clone());
    let put: [&dyn Fn(&mut Graph); 4] = [
        &|graph| graph.initializer.push(deep.clone()),
        &|graph| graph.node.push(node("", "If", &["c"], &["z"], vec![graph_of("else_branch", branch.clone())])),
        &|graph| graph.sparse_initializer.push(sparse.clone()),
        &|graph| graph.node.push(node("", "Constant", &[], &["z"], vec![constant.clone()])),
    ];
    for put in put {
        let mut model = ranker();
        put(graph(&mut model));
        assert_refused(&model, "tensor \"w2\": its data is in another file, \"../weights.bin\": a model must be one file");
    }
    // Saying where it is, is enough.
    let mut model = ranker();
    graph(&mut model).initializer.push(Tensor { data_location: None, float_data: vec![1.0], ..deep });
    assert_refused(&model, "is in another file");
}

#[test]
fn a_tensor_is_as_large_as_it_says() {
    for (wrong, expected) in [
        (tensor("t", &[2], &[1.0]), "tensor \"t\": has 1 values of data: must be 2, for float32 [2]"),
        (raw("t", &[2], 1, &[0; 7]), "tensor \"t\": has 7 bytes of data: must be 8, for float32 [2]"),
        (raw("t", &[3], 22, &[0; 1]), "has 1 bytes of data: must be 2, for int4 [3]"),
        (raw("t", &[1 << 40, 1 << 40], 1, &[]), "are none that a tensor can have"),
        (raw("t", &[i64::MAX], 1, &[]), "must be more than there can be"),
        (raw("t", &[-1], 1, &[]), "are none that a tensor can have"),
        (raw("t", &[1], 99, &[0; 4]), "its data type 99 is none that ONNX has"),
        (raw("t", &[1], 8, &[0; 4]), "is text, and has raw data"),
        (Tensor { int64_data: vec![1], ..tensor("t", &[1], &[1.0]) }, "is float32, and has data as Int64 where it must not"),
        (Tensor { float_data: vec![1.0], ..raw("t", &[1], 1, &[0; 4]) }, "has data as Float where it must not"),
        (Tensor { segment: Some(proto::Segment {}), ..tensor("t", &[1], &[1.0]) }, "is stored in segments"),
    ] {
        assert_refused(&model(vec![node("", "Add", &["x", "t"], &["y"], Vec::new())], vec![wrong]), expected);
    }
    let sparse =
        |dims: &[i64]| Sparse { values: Some(tensor("v", &[1], &[1.0])), indices: Some(raw("i", &[1], 7, &[0; 8])), dims: dims.to_vec() };
    let mut bomb = ranker();
    graph(&mut bomb).sparse_initializer.push(sparse(&[1 << 20]));
    assert!(read_model(&bomb).is_ok());
    graph(&mut bomb).sparse_initializer.push(sparse(&[1 << 20, 1 << 20]));
    assert_refused(&bomb, "sparse tensor \"v\": its dimensions");
}

#[test]
fn numbers_that_score_are_finite() {
    let add = || vec![node("", "Add", &["x", "t"], &["y"], Vec::new())];
    for (wrong, index) in [
        (tensor("t", &[2], &[1.0, f32::NAN]), 1),
        (tensor("t", &[2], &[f32::NEG_INFINITY, 1.0]), 0),
        (raw("t", &[1], 1, &f32::INFINITY.to_le_bytes()), 0),
        (raw("t", &[2], 11, &[1.0_f64.to_le_bytes(), f64::NAN.to_le_bytes()].concat()), 1),
        (raw("t", &[2], 10, &[0xff, 0x7b, 0x00, 0x7c]), 1),
        (
            Tensor { int32_data: vec![0x7bff, 0xfe00], ..Tensor { float_data: Vec::new(), data_type: Some(10), ..tensor("t", &[2], &[]) } },
            1,
        ),
        (raw("t", &[2], 16, &[0x7f, 0x7f, 0x80, 0xff]), 1),
        (raw("t", &[2], 17, &[0x7e, 0xff]), 1),
        (raw("t", &[2], 18, &[0x7f, 0x80]), 1),
        (raw("t", &[2], 19, &[0x7b, 0x7c]), 1),
        (raw("t", &[2], 24, &[0xfe, 0xff]), 1),
    ] {
        assert_refused(&model(add(), vec![wrong]), &format!("graph: tensor \"t\"[{index}]: must be a finite number"));
    }
    assert!(read_model(&model(add(), vec![raw("t", &[3], 10, &[0xff, 0x7b, 0x00, 0x80, 0xff, 0xfb])])).is_ok());
    // A mask.
    let constant = |number: f32| node("", "Constant", &[], &["t"], vec![tensor_of("value", tensor("", &[1], &[number]))]);
    assert!(read_model(&model(vec![constant(f32::NEG_INFINITY)], Vec::new())).is_ok());
    assert_refused(&model(vec![constant(f32::NAN)], Vec::new()), "attribute \"value\": tensor \"\"[0]: must be a number, or infinite");
    // What is looked for.
    let imputer = node("ai.onnx.ml", "Imputer", &["x"], &["y"], vec![floats("imputed_value_floats", &[f32::NAN])]);
    assert!(read_model(&model(vec![imputer], Vec::new())).is_ok());
    let linear = node("ai.onnx.ml", "LinearRegressor", &["x"], &["y"], vec![floats("coefficients", &[1.0, f32::INFINITY])]);
    assert_refused(&model(vec![linear], Vec::new()), "attribute \"coefficients\"[1]: must be a finite number");
    let mut weights = ranker();
    graph(&mut weights).node[0].attribute[11].floats[3] = f32::NAN;
    assert_refused(&weights, "attribute \"target_weights\"[3]: must be a finite number");
}

#[test]
fn tree_ensembles_are_trees() {
    for (name, place, to, expected) in [
        ("nodes_featureids", 0, 2, "nodes_featureids[0] = 2: must be from 0 to 1"),
        ("nodes_featureids", 3, -1, "nodes_featureids[3] = -1: must be from 0 to 1"),
        ("nodes_truenodeids", 0, 0, "tree 0: node 0: is reached twice"),
        ("nodes_truenodeids", 3, 7, "a node that a branch names: is a child, and there is no such node"),
        ("nodes_truenodeids", 0, 2, "tree 0: node 1: is not reached from its tree's first node"),
        ("nodes_treeids", 4, 0, "nodes_nodeids[4] = 1: is there twice in tree 0"),
        ("target_ids", 1, 1, "target_ids[1] = 1: must be below 1"),
        ("target_nodeids", 2, 9, "target_nodeids[2] = 9: there is no such node in tree 1"),
    ] {
        assert_refused(&with_ints(ranker, name, place, to), expected);
    }
    for (name, place, to, expected) in [
        ("nodes_featureids", 1, 2, "nodes_featureids[1] = 2: must be from 0 to 1"),
        ("nodes_truenodeids", 0, 0, "branch 0: is reached twice"),
        ("nodes_truenodeids", 1, 3, "nodes_truenodeids[1] = 3: must be below 3"),
        ("nodes_trueleafs", 0, 1, "branch 1: is not reached from a root"),
        ("nodes_trueleafs", 0, 2, "nodes_trueleafs[0] = 2: must be 0 or 1"),
        ("leaf_targetids", 0, 1, "leaf_targetids[0] = 1: must be below 1"),
        ("tree_roots", 0, 2, "tree_roots[0] = 2: must be below 2"),
    ] {
        assert_refused(&with_ints(branches, name, place, to), expected);
    }
    let mut without = branches();
    graph(&mut without).node[0].attribute.pop();
    assert_refused(&without, "membership_values: has 0 sets: must be 1");
    let mut short = ranker();
    graph(&mut short).node[0].attribute[11].floats.pop();
    assert_refused(&short, "target_weights: has 3 values: must be 4");
}

#[test]
fn a_width_is_followed_through_what_keeps_it() {
    let mut model = with_ints(ranker, "nodes_featureids", 0, 2);
    graph(&mut model).node[0].input[0] = "scaled".to_owned();
    graph(&mut model).node.push(node("ai.onnx.ml", "Scaler", &["cast"], &["scaled"], Vec::new()));
    graph(&mut model).node.push(node("", "Cast", &["x"], &["cast"], Vec::new()));
    assert_refused(&model, "nodes_featureids[0] = 2: must be from 0 to 1");
    graph(&mut model).node[0].input[0] = "elsewhere".to_owned();
    assert_eq!(read_model(&model).unwrap().ensembles_of_unknown_width, 1);
}

#[test]
fn what_would_be_made_out_of_nothing_is_limited() {
    let shape = raw("shape", &[2], 7, &[(1_i64 << 13).to_le_bytes(), (1_i64 << 12).to_le_bytes()].concat());
    for operator in ["ConstantOfShape", "Expand", "Tile"] {
        let inputs: &[&str] = if operator == "ConstantOfShape" { &["shape"] } else { &["x", "shape"] };
        let bomb = model(vec![node("", operator, inputs, &["y"], Vec::new())], vec![shape.clone()]);
        assert_refused(&bomb, "makes 33554432 numbers: must be at most 16777216");
    }
    assert_refused(&model(vec![node("", "RandomNormal", &[], &["y"], vec![ints("shape", &[1 << 30])])], Vec::new()), "makes 1073741824");
    let constant = node("", "Constant", &[], &["s"], vec![ints("value_ints", &[1 << 40])]);
    let body = Graph { node: vec![node("", "ConstantOfShape", &["s"], &["z"], Vec::new())], ..Graph::default() };
    let within = node("", "Loop", &["n", "", "x"], &["y"], vec![graph_of("body", body)]);
    let bomb = model(vec![constant, within], Vec::new());
    assert_refused(&bomb, "graph: \"body\": node 0, \"ConstantOfShape\": its output: with those before it, makes 1099511627776");
    let small = node("", "RandomNormal", &[], &["y"], vec![ints("shape", &[1 << 23])]);
    assert!(read_model(&model(vec![small.clone(), small.clone()], Vec::new())).is_ok());
    assert_refused(&model(vec![small.clone(), small.clone(), small], Vec::new()), "graph: node 2");
}

#[test]
fn loops_are_counted_and_nesting_is_limited() {
    let nest = |levels: usize| {
        let mut graph = Graph::default();
        for _ in 1..levels {
            graph = Graph { node: vec![node("", "Loop", &["n"], &["y"], vec![graph_of("body", graph)])], ..Graph::default() };
        }
        let mut model = model(Vec::new(), Vec::new());
        self::graph(&mut model).node = graph.node;
        model
    };
    assert_eq!(read_model(&nest(8)).unwrap().loops, 7);
    assert_refused(&nest(9), "graphs within graphs: must be at most 8 deep");
    assert!(read_model(&nest(40)).is_err());
}

#[test]
fn what_readers_would_read_differently_is_refused() {
    let good = ranker().encode_to_vec();
    let with = |more: &[u8]| read(&[&good, more].concat(), &Limits::default(), &Opsets::ONNX_RUNTIME_1_32).unwrap_err().to_string();
    assert!(with(&Model { graph: Some(Graph::default()), ..Model::default() }.encode_to_vec()).contains("field 7 is there twice"));
    assert!(with(&[0x08, 8]).contains("field 1 is there twice"));
    assert!(with(&[0xf8, 0x01, 0]).contains("field 31 is none that ONNX has"));
    assert!(with(&[0x2d, 0, 0, 0, 0]).contains("is of another type"));
    assert!(with(&[0x22, 0x05, b'a']).contains("was cut off"));
    let mut twice = ranker();
    graph(&mut twice).node[0].attribute.push(int("n_targets", 2));
    assert_refused(&twice, "attribute \"n_targets\": is there twice");
    let mut two = ranker();
    graph(&mut two).node[0].attribute[0].floats.push(1.0);
    assert_refused(&two, "has values of several types");
    graph(&mut two).node[0].attribute[0].i = None;
    assert_refused(&two, "has a value of another type than it says");
}

#[test]
fn a_file_that_grows_in_memory_is_refused() {
    // Attributes that are empty: two bytes each.
    let attributes = [0x2a_u8, 0].repeat(1 << 20);
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    let bytes = wrap(0x3a, &wrap(0x0a, &attributes));
    let fault = read(&bytes, &Limits::default(), &Opsets::ONNX_RUNTIME_1_32).unwrap_err();
    assert!(fault.what.contains("bytes of memory"), "{fault}");
}

#[test]
fn names_of_features_fit_the_input() {
    let with = |names: &str| {
        let mut model = ranker();
        model.metadata_props[0].value = Some(names.to_owned());
        read_model(&model).map(|shape| shape.feature_names)
    };
    assert_eq!(with("[\"a\", \"a\"]").unwrap_err().what, "is there twice");
    assert_eq!(with("[\"a\"]").unwrap_err().what, "has 1 names: must be 2, as the input is wide");
    assert!(with("a,b").unwrap_err().what.starts_with("must be a JSON list of texts"));
}

#[test]
fn limits_hold() {
    let limited =
        |model: &Model, limits: Limits| read(&model.encode_to_vec(), &limits, &Opsets::ONNX_RUNTIME_1_32).unwrap_err().to_string();
    assert!(limited(&ranker(), Limits { graph_nodes: 2, ..Limits::default() }).starts_with("nodes of all graphs = 3"));
    assert!(limited(&ranker(), Limits { trees: 1, ..Limits::default() }).contains("trees of all ensembles = 2"));
    assert!(limited(&ranker(), Limits { nodes: 5, ..Limits::default() }).contains("nodes of all trees = 6"));
    assert!(limited(&ranker(), Limits { depth: 0, ..Limits::default() }).contains("is deeper than 0 levels"));
    assert!(limited(&branches(), Limits { depth: 0, ..Limits::default() }).contains("is deeper than 0 levels"));
    assert!(limited(&ranker(), Limits { features: 1, ..Limits::default() }).contains("nodes_featureids[3] = 1: must be from 0 to 0"));
    assert!(limited(&ranker(), Limits { name_bytes: 7, ..Limits::default() }).contains("bytes of the operator's name"));
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    for good in [ranker(), branches()] {
        let bytes = good.encode_to_vec();
        for cut in 0..bytes.len() {
            // Between two imports or entries of metadata, nothing shows that there were more.
            let read = read(&bytes[..cut], &Limits::default(), &Opsets::ONNX_RUNTIME_1_32);
            let graph = |model: &Model| model.graph.as_ref().map(Graph::encode_to_vec);
            let graph_is_whole = Model::decode(&bytes[..cut]).is_ok_and(|model| graph(&model) == graph(&good));
            assert!(read.is_err() || graph_is_whole, "cut at {cut} of {}", bytes.len());
        }
    }
}
