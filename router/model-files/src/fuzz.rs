//! Fuzz targets: a model file is read or refused with a place and a reason, whatever is in it.

use switchback_fuzz::{Target, Trace, kind_of, trace};

use super::{Limits, Malformed, lightgbm, onnx, pickle, samples, xgboost};

#[test]
fn lightgbm_text() {
    let words: [&[u8]; 24] = [
        b"tree\n",
        b"version=v4\n",
        b"num_class=1\n",
        b"num_tree_per_iteration=1\n",
        b"label_index=0\n",
        b"max_feature_idx=",
        b"objective=lambdarank\n",
        b"feature_names=",
        b"feature_infos=",
        b"tree_sizes=",
        b"\nTree=0\n",
        b"num_leaves=",
        b"num_cat=",
        b"split_feature=",
        b"threshold=",
        b"decision_type=",
        b"left_child=",
        b"right_child=",
        b"leaf_value=",
        b"cat_boundaries=",
        b"cat_threshold=",
        b"is_linear=1\n",
        b"end of trees\n",
        b"nan",
    ];
    run("model_lightgbm", &words, fuzz_lightgbm);
}

#[test]
fn xgboost_json() {
    let words: [&[u8]; 20] = [
        b"{\"learner\":",
        b"\"gradient_booster\":",
        b"\"model\":",
        b"\"trees\":[",
        b"\"tree_param\":",
        b"\"num_feature\":\"4\"",
        b"\"left_children\":[",
        b"\"right_children\":[",
        b"\"split_indices\":[",
        b"\"split_conditions\":[",
        b"\"base_weights\":[",
        b"\"parents\":[",
        b"\"name\":\"gbtree\"",
        b"\"name\":\"dart\"",
        b"\"weight_drop\":[",
        b"\"base_score\":\"[5E-1]\"",
        b"2147483647",
        b"-1",
        b"NaN",
        b"[[[[",
    ];
    run("model_xgboost", &words, fuzz_xgboost);
}

#[test]
fn onnx_file() {
    let words: [&[u8]; 10] = [
        b"TreeEnsembleRegressor",
        b"nodes_truenodeids",
        b"Identity",
        b"Loop",
        b"location",
        b"../x",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"ai.onnx.ml",
        b"feature_names",
        b"ConstantOfShape",
    ];
    run("model_onnx", &words, fuzz_onnx);
}

#[test]
fn pickle_walker() {
    let words: [&[u8]; 24] = [
        b"\x80\x04",
        b"\x95\x10\0\0\0\0\0\0\0",
        b"cos\nsystem\n",
        b"cbuiltins\nlist\n",
        b"\x8c\x02os\x94\x8c\x06system\x94\x93",
        b"R",
        b"\x81",
        b"b",
        b"o",
        b"(",
        b"t",
        b".",
        b"cnumpy\ndtype\n",
        b"ccollections\nOrderedDict\n",
        b"\x94h\0",
        b"\x8f",
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"\x1f\x8b\x08",
        b"x\x9c",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"\x93NUMPY",
    ];
    let target = Target { name: "model_pickle", words: &words, seeds: Vec::new(), most_bytes: 8_192 };
    target.run(|bytes| match pickle::fuzz(bytes) {
        Ok(examined) => trace((examined.protocol, examined.pickles.min(3), examined.globals.len().min(4))),
        Err(message) => trace(kind_of(&message)),
    });
}

fn run(name: &str, words: &[&[u8]], read: fn(&[u8]) -> Result<usize, Malformed>) {
    let way = |bytes: &[u8]| -> Trace {
        match read(bytes) {
            Ok(size) => trace(size.min(8)),
            Err(fault) => trace(kind_of(&fault.to_string())),
        }
    };
    Target { name, words, seeds: samples::all(), most_bytes: 16_384 }.run(way);
}

/// LightGBM's text: how many trees.
pub(super) fn fuzz_lightgbm(data: &[u8]) -> Result<usize, Malformed> {
    let limits = Limits::default();
    match lightgbm::read(data, &limits) {
        Ok(shape) => {
            assert!(shape.trees >= 1 && shape.leaves >= shape.trees && shape.trees <= limits.trees, "{shape:?}");
            assert!((1..=limits.features).contains(&shape.features) && shape.feature_names.len() == shape.features, "{shape:?}");
            Ok(shape.trees)
        }
        Err(fault) => {
            assert_named(&fault);
            Err(fault)
        }
    }
}

/// XGBoost's JSON: how many trees.
pub(super) fn fuzz_xgboost(data: &[u8]) -> Result<usize, Malformed> {
    let limits = Limits::default();
    match xgboost::read(data, &limits) {
        Ok(shape) => {
            assert!(shape.leaves >= shape.trees && shape.trees <= limits.trees, "{shape:?}");
            assert!((1..=limits.features).contains(&shape.features), "{shape:?}");
            assert!(shape.feature_names.is_empty() || shape.feature_names.len() == shape.features, "{shape:?}");
            Ok(shape.trees)
        }
        Err(fault) => {
            assert_named(&fault);
            Err(fault)
        }
    }
}

/// ONNX: how many kinds of operators.
pub(super) fn fuzz_onnx(data: &[u8]) -> Result<usize, Malformed> {
    let limits = Limits::default();
    match onnx::read(data, &limits, &onnx::Opsets::ONNX_RUNTIME_1_32) {
        Ok(shape) => {
            assert!(!shape.outputs.is_empty() && shape.operators.values().sum::<usize>() <= limits.graph_nodes, "{shape:?}");
            assert!(shape.inputs.iter().chain(&shape.outputs).all(|value| !value.name.is_empty()), "{shape:?}");
            let sizes = shape.inputs.iter().chain(&shape.outputs).flat_map(|value| value.shape.iter().flatten());
            assert!(sizes.into_iter().all(|size| *size == -1 || *size > 0), "{shape:?}");
            Ok(shape.operators.len())
        }
        Err(fault) => {
            assert_named(&fault);
            Err(fault)
        }
    }
}

/// A fault says where and what, and is not as long as the file.
fn assert_named(fault: &super::Malformed) {
    let text = fault.to_string();
    assert!(!fault.place.is_empty() && !fault.what.is_empty() && text.len() < 8_192, "{text}");
}
