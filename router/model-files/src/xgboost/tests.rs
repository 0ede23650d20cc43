//! XGBoost's JSON: what is read, and what is refused with its place.
use super::super::samples;
use super::*;

fn read_text(text: &str) -> Result<Trees, Malformed> {
    read(text.as_bytes(), &Limits::default())
}

fn changed(from: &str, to: &str) -> Result<Trees, Malformed> {
    let good = samples::xgboost();
    assert!(good.contains(from), "{from}");
    read_text(&good.replacen(from, to, 1))
}

#[test]
fn a_model_is_read() {
    let names = vec!["bm25".to_owned(), "shop".to_owned()];
    let shape = Trees { features: 2, feature_names: names, trees: 1, leaves: 3, objective: "rank:ndcg".to_owned() };
    assert_eq!(read_text(&samples::xgboost()), Ok(shape.clone()));
    assert_eq!(changed("\"[5E-1]\"", "\"5E-1\""), Ok(shape.clone()), "before version 3");
    assert_eq!(changed("\"default_left\":[1,0,0,0,0]", "\"default_left\":[true,false,false,false,false]"), Ok(shape), "before version 1.6");
    assert!(changed("\"iteration_indptr\":[0,1],", "").is_ok() && changed(",\"num_target\":\"1\"", "").is_ok());
    assert!(changed("[\"bm25\",\"shop\"]", "[]").unwrap().feature_names.is_empty());
    assert!(changed("\"num_nodes\":\"5\"", "\"num_nodes\":5").is_ok());
}

#[test]
fn other_boosters_are_read() {
    let good = samples::xgboost();
    let from = good.find("{\"model\":").unwrap();
    let to = good.find(",\"name\":\"gbtree\"}").unwrap() + 17;
    let gbtree = good.get(from..to).unwrap();
    let dart =
        |weights: &str| read_text(&samples::xgboost_with(&format!(r#"{{"gbtree":{gbtree},"name":"dart","weight_drop":{weights}}}"#)));
    assert_eq!(dart("[0.5]").unwrap().trees, 1);
    assert_eq!(dart("[]").unwrap_err().to_string(), "weight_drop: has 0 values: must be 1");
    assert_eq!(dart("[1e99]").unwrap_err().to_string(), "weight_drop[0]: must be a finite number");
    let linear = |weights: &str| read_text(&samples::xgboost_with(&format!(r#"{{"model":{{"weights":{weights}}},"name":"gblinear"}}"#)));
    assert_eq!(linear("[1.5,2,0]").map(|shape| (shape.trees, shape.leaves)), Ok((0, 0)));
    assert_eq!(linear("[1.5,2]").unwrap_err().to_string(), "weights: has 2 values: must be 3");
    assert_eq!(linear("[1,2,3,4]").unwrap_err().to_string(), "weights: has more than 3 values");
    assert_eq!(linear("[1.5,2,-Infinity]").unwrap_err().what, "must be a finite number");
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, expected) in [
        ("[3,2,0]", "[4,0,0]", "version = [4, 0, 0]: must be from"),
        ("\"[5E-1]\"", "\"[5E-1,1]\"", "base_score = \"[5E-1,1]\": must be one finite number"),
        ("\"[5E-1]\"", "\"nan\"", "base_score = \"nan\": must be one finite number"),
        ("\"num_class\":\"0\"", "\"num_class\":\"3\"", "num_class = 3: must be from 0 to 1"),
        ("\"num_class\":\"0\"", "\"num_class\":\"x\"", "the model: learner.learner_model_param.num_class: must be a whole number"),
        ("\"num_target\":\"1\"", "\"num_target\":\"2\"", "num_target = 2: must be from 0 to 1"),
        ("\"num_feature\":\"2\",\"num_target\"", "\"num_feature\":\"10001\",\"num_target\"", "num_feature = 10001: must be at most 10000"),
        ("[\"bm25\",\"shop\"]", "[\"bm25\",\"bm25\"]", "feature_names[1] = \"bm25\": is there twice"),
        ("[\"bm25\",\"shop\"]", "[\"bm25\"]", "feature_names: has 1 values: must be none, or num_feature = 2"),
        ("\"name\":\"gbtree\"", "\"name\":\"forest\"", "gradient_booster.name = \"forest\": must be gbtree, dart or gblinear"),
        ("\"num_trees\":\"1\"", "\"num_trees\":\"2\"", "trees: has 1 values: must be 2"),
        ("\"num_trees\":\"1\"", "\"num_trees\":\"0\"", "num_trees = 0: must be from 1"),
        ("\"tree_info\":[0]", "\"tree_info\":[1]", "tree_info[0] = 1: must be 0"),
        ("\"iteration_indptr\":[0,1]", "\"iteration_indptr\":[0,2]", "iteration_indptr: must rise from 0 to num_trees = 1"),
        ("\"id\":0", "\"id\":1", "tree 0: id = 1: must be from 0 to 0"),
        ("\"num_nodes\":\"5\"", "\"num_nodes\":\"6\"", "tree 0: left_children: has 5 values: must be 6"),
        ("\"left_children\":[1,3,", "\"left_children\":[1,9,", "tree 0: left_children[1] = 9: must be -1, or below num_nodes = 5"),
        ("\"left_children\":[1,3,", "\"left_children\":[1,\"3\",", "tree 0: the tree: left_children[1]: invalid type"),
        ("\"left_children\":[1,3,", "\"left_children\":[1,-1,", "tree 0: node 1: has one child"),
        ("\"left_children\":[1,3,", "\"left_children\":[1,0,", "tree 0: node 0: is reached twice"),
        ("\"left_children\":[1,3,", "\"left_children\":[1,4,", "tree 0: node 4: is reached twice"),
        ("\"left_children\":[1,3,-1,", "\"left_children\":[-1,3,-1,", "tree 0: node 0: has one child"),
        ("\"parents\":[2147483647,0,", "\"parents\":[2147483647,3,", "tree 0: parents[1] = 3: must be 0"),
        ("\"parents\":[2147483647,", "\"parents\":[1,", "tree 0: parents[0]: must be -1 or 2147483647"),
        ("\"split_indices\":[0,1,", "\"split_indices\":[0,2,", "tree 0: split_indices[1] = 2: must be below num_feature = 2"),
        ("\"split_conditions\":[0.5,NaN", "\"split_conditions\":[NaN,NaN", "tree 0: split_conditions[0] = NaN: must be a finite number"),
        ("-0.25", "NaN", "tree 0: split_conditions[2] = NaN: must be a finite number"),
        ("-0.25", "-1e39", "tree 0: split_conditions[2] = -inf: must be a finite number"),
        ("\"base_weights\":[0.0,0.1", "\"base_weights\":[0.0,1e39", "tree 0: the tree: base_weights[1]: must be a finite number"),
        ("\"default_left\":[1,0", "\"default_left\":[1,2", "tree 0: the tree: default_left[1]: 2 must be 0 or 1"),
        ("\"split_type\":[0,1,", "\"split_type\":[1,1,", "tree 0: categories_nodes[0] = 1: is not the next split by categories"),
        ("\"split_type\":[0,1,", "\"split_type\":[0,2,", "tree 0: split_conditions[1]"),
        ("\"categories\":[0,2]", "\"categories\":[0,-2]", "tree 0: categories[1]: must be from 0"),
        ("\"categories_sizes\":[2]", "\"categories_sizes\":[3]", "tree 0: categories_segments[0] = 0, and 3 from there: there are 2"),
        ("\"categories_nodes\":[1]", "\"categories_nodes\":[7]", "tree 0: categories_nodes[0] = 7: must rise"),
        ("\"base_weights\":[0.0,", "\"base_weights\":[Infinity,", "the model: learner.gradient_booster: must be a finite number"),
        ("\"version\"", "\"objective\":1,\"version\"", "?"),
    ] {
        let fault = changed(from, to);
        match expected {
            "?" => assert!(fault.is_ok(), "what is not known is passed: {fault:?}"),
            _ => assert!(fault.as_ref().is_err_and(|fault| fault.to_string().starts_with(expected)), "{to:?}: {fault:?}, not {expected:?}"),
        }
    }
}

#[test]
fn other_forms_are_named() {
    let fault = |bytes: &[u8]| read(bytes, &Limits::default()).unwrap_err().what;
    assert!(fault(b"{L\0\0\0\0\0\0\0\x07learner").contains("UBJSON"));
    assert!(fault(b"binf\x01\0").contains("old binary form"));
    assert!(fault(b"\x80\xff").contains("is not UTF-8"));
}

#[test]
fn pruned_nodes_are_taken_when_they_are_counted() {
    let good = samples::xgboost();
    let pruned = good.replacen("\"left_children\":[1,3,", "\"left_children\":[1,-1,", 1).replacen(
        "\"right_children\":[2,4,",
        "\"right_children\":[2,-1,",
        1,
    );
    let pruned = pruned.replacen("0.5,NaN", "0.5,0.25", 1);
    let counted = pruned.replacen("\"num_deleted\":\"0\"", "\"num_deleted\":\"2\"", 1);
    assert_eq!(read_text(&counted).map(|shape| shape.leaves), Ok(2));
    let fault = read_text(&pruned).unwrap_err().to_string();
    assert_eq!(fault, "tree 0: node 3: is not reached from the root, and num_deleted = 0");
}

#[test]
fn limits_hold() {
    let good = samples::xgboost();
    let limited = |limits: Limits| read(good.as_bytes(), &limits).unwrap_err().to_string();
    assert!(limited(Limits { trees: 0, ..Limits::default() }).starts_with("num_trees = 1: must be at most 0"));
    assert!(limited(Limits { nodes: 4, ..Limits::default() }).starts_with("tree 0: num_nodes = 5: must be at most 4"));
    assert!(limited(Limits { depth: 1, ..Limits::default() }).starts_with("tree 0: node 3: is deeper than 1 levels"));
    assert!(limited(Limits { features: 1, ..Limits::default() }).starts_with("num_feature = 2"));
    assert!(limited(Limits { name_bytes: 3, ..Limits::default() }).starts_with("bytes of feature_names[0] = 4"));
    let deep = format!("{{\"learner\":{}", "[".repeat(100_000));
    assert!(read_text(&deep).is_err());
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let good = samples::xgboost();
    for cut in 0..good.len() {
        assert!(read(&good.as_bytes()[..cut], &Limits::default()).is_err(), "cut at {cut} of {}", good.len());
    }
}
