//! Small ONNX models, for tests.

use bytes::Bytes;

use super::proto::{Attribute, Dimension, Entry, Graph, Model, Node, OpsetId, Tensor, TensorShapeProto, TensorType, Type, ValueInfo};

pub(super) fn value(name: &str, shape: &[i64]) -> ValueInfo {
    let dim = |size: &i64| {
        if *size < 0 {
            Dimension { dim_param: Some("N".into()), ..Dimension::default() }
        } else {
            Dimension { dim_value: Some(*size), dim_param: None }
        }
    };
    let tensor = TensorType { elem_type: Some(1), shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }) };
    ValueInfo { name: Some(name.into()), of: Some(Type { tensor: Some(tensor), ..Type::default() }) }
}

pub(super) fn node(domain: &str, operator: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<Attribute>) -> Node {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Node {
        input: texts(inputs),
        output: texts(outputs),
        name: None,
        op_type: Some(operator.into()),
        attribute,
        domain: Some(domain.into()),
    }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: Some(name.into()), ints: ints.to_vec(), kind: Some(7), ..Attribute::default() }
}

pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: Some(name.into()), i: Some(value), kind: Some(2), ..Attribute::default() }
}

pub(super) fn floats(name: &str, floats: &[f32]) -> Attribute {
    Attribute { name: Some(name.into()), floats: floats.to_vec(), kind: Some(6), ..Attribute::default() }
}

pub(super) fn strings(name: &str, strings: &[&str]) -> Attribute {
    let strings = strings.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Attribute { name: Some(name.into()), strings, kind: Some(8), ..Attribute::default() }
}

pub(super) fn tensor_of(name: &str, tensor: Tensor) -> Attribute {
    Attribute { name: Some(name.into()), t: Some(Box::new(tensor)), kind: Some(4), ..Attribute::default() }
}

pub(super) fn graph_of(name: &str, graph: Graph) -> Attribute {
    Attribute { name: Some(name.into()), g: Some(Box::new(graph)), kind: Some(5), ..Attribute::default() }
}

pub(super) fn tensor(name: &str, dims: &[i64], numbers: &[f32]) -> Tensor {
    Tensor { name: Some(name.into()), dims: dims.to_vec(), data_type: Some(1), float_data: numbers.to_vec(), ..Tensor::default() }
}

pub(super) fn raw(name: &str, dims: &[i64], data_type: i32, bytes: &[u8]) -> Tensor {
    let raw_data = Some(Bytes::copy_from_slice(bytes));
    Tensor { name: Some(name.into()), dims: dims.to_vec(), data_type: Some(data_type), raw_data, ..Tensor::default() }
}

pub(super) fn model(nodes: Vec<Node>, initializer: Vec<Tensor>) -> Model {
    let opset = |domain: &str, version| OpsetId { domain: Some(domain.into()), version: Some(version) };
    let graph =
        Graph { node: nodes, initializer, input: vec![value("x", &[-1, 2])], output: vec![value("y", &[-1, 1])], ..Graph::default() };
    Model {
        ir_version: Some(8),
        producer_name: Some("hand".into()),
        producer_version: Some("1.0".into()),
        graph: Some(graph),
        opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3), opset("", 17)],
        metadata_props: vec![Entry { key: Some("feature_names".into()), value: Some(r#"["bm25", "shop"]"#.into()) }],
        ..Model::default()
    }
}

/// The old form of a tree ensemble: two trees of one split each. Its scores go through a product and a sum.
pub(super) fn ranker() -> Model {
    let attributes = vec![
        int("n_targets", 1),
        ints("nodes_treeids", &[0, 0, 0, 1, 1, 1]),
        ints("nodes_nodeids", &[0, 1, 2, 0, 1, 2]),
        ints("nodes_featureids", &[0, 0, 0, 1, 0, 0]),
        strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_EQ", "LEAF", "LEAF"]),
        floats("nodes_values", &[0.5, 0.0, 0.0, f32::INFINITY, 0.0, 0.0]),
        ints("nodes_truenodeids", &[1, 0, 0, 1, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 0, 2, 0, 0]),
        ints("target_ids", &[0, 0, 0, 0]),
        ints("target_treeids", &[0, 0, 1, 1]),
        ints("target_nodeids", &[1, 2, 1, 2]),
        floats("target_weights", &[0.1, 0.2, 0.3, 0.4]),
    ];
    let trees = node("ai.onnx.ml", "TreeEnsembleRegressor", &["x"], &["s"], attributes);
    let product = node("", "MatMul", &["s", "w"], &["p"], Vec::new());
    let sum = node("", "Add", &["p", "b"], &["y"], Vec::new());
    model(vec![trees, product, sum], vec![tensor("w", &[1, 1], &[2.0]), raw("b", &[1], 1, &1.5_f32.to_le_bytes())])
}

/// The new form: a tree of two branches, one of them by a set.
pub(super) fn branches() -> Model {
    let attributes = vec![
        ints("tree_roots", &[0]),
        tensor_of("nodes_modes", raw("m", &[2], 2, &[0, 6])),
        ints("nodes_featureids", &[0, 1]),
        tensor_of("nodes_splits", tensor("s", &[2], &[0.5, 0.0])),
        ints("nodes_truenodeids", &[1, 0]),
        ints("nodes_trueleafs", &[0, 1]),
        ints("nodes_falsenodeids", &[2, 1]),
        ints("nodes_falseleafs", &[1, 1]),
        ints("leaf_targetids", &[0, 0, 0]),
        tensor_of("leaf_weights", tensor("w", &[3], &[1.0, 2.0, 3.0])),
        tensor_of("membership_values", tensor("v", &[3], &[1.0, 4.0, f32::NAN])),
    ];
    let mut model = model(vec![node("ai.onnx.ml", "TreeEnsemble", &["x"], &["y"], attributes)], Vec::new());
    for import in model.opset_import.iter_mut().filter(|import| import.domain.as_deref() == Some("ai.onnx.ml")) {
        import.version = Some(5);
    }
    model
}

/// Good files.
pub(in super::super) fn files() -> [Vec<u8>; 2] {
    [ranker(), branches()].map(|model| prost::Message::encode_to_vec(&model))
}
