//! LightGBM's text: what is read, and what is refused with its place.
use super::super::samples;
use super::*;

fn read_text(text: &str) -> Result<Trees, Malformed> {
    read(text.as_bytes(), &Limits::default())
}

/// The model with one text in place of another, and without sizes, so that it is not they that tell.
fn changed(from: &str, to: &str) -> Result<Trees, Malformed> {
    let good = samples::lightgbm();
    assert!(good.contains(from), "{from}");
    let lines = good.replacen(from, to, 1);
    read_text(&lines.split_inclusive('\n').filter(|line| !line.starts_with("tree_sizes=")).collect::<String>())
}

fn fault(from: &str, to: &str) -> String {
    changed(from, to).unwrap_err().to_string()
}

#[test]
fn a_model_is_read() {
    let names = vec!["bm25".to_owned(), "shop".to_owned()];
    let shape = Trees { features: 2, feature_names: names, trees: 2, leaves: 4, objective: "lambdarank".to_owned() };
    assert_eq!(read_text(&samples::lightgbm()), Ok(shape.clone()));
    assert_eq!(changed("v4", "v3"), Ok(shape), "sizes may be absent");
    assert_eq!(changed("objective=lambdarank\n", "").unwrap().objective, "", "of the user's own");
    assert!(changed("objective=lambdarank\n", "objective=lambdarank\naverage_output\nmonotone_constraints=1 -1\n").is_ok());
    assert!(changed("threshold=0.5 0", "threshold=inf 0").is_ok(), "LightGBM writes such");
    assert!(changed("split_gain=5 1", "split_gain=inf 1").is_ok(), "it does not score");
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, expected) in [
        ("tree\n", "forest\n", "line 1: must be `tree`"),
        ("version=v4", "version=v9", "version = \"v9\": must be v3 or v4"),
        ("num_class=1", "num_class=3", "num_class = \"3\": must be 1"),
        ("num_class=1\n", "num_class=1\nnum_class=1\n", "line 4: \"num_class\" is there twice"),
        ("max_feature_idx=1", "max_feature_idx=10000", "features = 10001: must be at most 10000"),
        ("feature_names=bm25 shop", "feature_names=bm25", "feature_names: has 1 names: must be max_feature_idx + 1 = 2"),
        ("feature_names=bm25 shop", "feature_names=bm25 bm25", "feature_names[1] = \"bm25\": is there twice"),
        ("feature_infos=[0:9.5]", "feature_infos=[0]", "feature_infos[0] = \"[0]\": must be none"),
        ("split_feature=0 1", "split_feature=0 2", "tree 0: split_feature[1] = \"2\": must be a whole number from 0 to 1"),
        ("threshold=0.5 0", "threshold=nan 0", "tree 0: threshold[0] = \"nan\": must be a number, or infinite"),
        ("threshold=0.5 0", "threshold=0.5 1", "tree 0: threshold[1] = \"1\": is a split by categories"),
        ("decision_type=10 1", "decision_type=12 1", "tree 0: decision_type[0] = \"12\": must be a whole number from 0 to 11"),
        ("leaf_value=0.1 -0.2 0.3", "leaf_value=0.1 -nan 0.3", "tree 0: leaf_value[1] = \"-nan\": must be a finite number"),
        ("leaf_value=0.1 -0.2 0.3", "leaf_value=0.1 -1e999 0.3", "tree 0: leaf_value[1] = \"-1e999\": must be a finite number"),
        ("leaf_value=0.1 -0.2 0.3", "leaf_value=0.1 -0.2", "tree 0: leaf_value: has 2 values: must be 3"),
        ("leaf_count=4 5 6", "leaf_count=4 5 six", "tree 0: leaf_count[2] = \"six\": must be a number"),
        ("left_child=1 -1", "left_child=2 -1", "tree 0: left_child[0] = \"2\": must be a whole number from -3 to 1"),
        ("left_child=1 -1", "left_child=0 -1", "tree 0: split 0: is reached twice"),
        ("left_child=1 -1", "left_child=1 -2", "tree 0: leaf 1: is reached twice"),
        ("left_child=1 -1", "left_child=-1 -1", "tree 0: split 1: is not reached from the root"),
        ("cat_boundaries=0 1", "cat_boundaries=1 1", "tree 0: cat_boundaries[0]: must be 0"),
        ("cat_boundaries=0 1", "cat_boundaries=0 2", "tree 0: cat_threshold: has 1 values: must be 2"),
        ("cat_threshold=6", "cat_threshold=4294967296", "tree 0: cat_threshold[0] = \"4294967296\""),
        ("Tree=1", "Tree=2", "line 35: must be `Tree=1` or `end of trees`"),
        ("end of trees\n", "", "line 54: must be `Tree=2` or `end of trees`"),
        ("feature_importances:\n", "", "after the trees: there is no `feature_importances:`"),
        ("bm25=1\n", "nobody=1\n", "line 57 = \"nobody=1\": is no importance"),
        ("end of parameters\n", "", "the end: there is no `end of parameters`: the file was cut off"),
        ("[[\"a\", \"b\"]]\n", "[[\"a\", \"b\"\n", "pandas_categorical: must be JSON"),
        ("[[\"a\", \"b\"]]\n", "[[\"a\", \"b\"]]\nmore\n", "line 67 = \"more\": is no part of a model"),
        ("[[\"a\", \"b\"]]\n", "[[\"a\", \"b\"]]", "line 65: has no end: the file was cut off"),
    ] {
        let fault = fault(from, to);
        // The line of the sizes is not there, and a line more or less may be.
        let is_named = fault.contains(expected.split_once(": ").map_or(expected, |(_, what)| what));
        assert!(
            is_named && (expected.starts_with("line") || fault.starts_with(expected)),
            "{from:?} -> {to:?}: {fault:?}, not {expected:?}"
        );
    }
    assert!(read(b"tree\n\xff", &Limits::default()).unwrap_err().to_string().starts_with("byte 5: is not UTF-8"));
}

#[test]
fn sizes_of_trees_are_those_that_they_have() {
    let good = samples::lightgbm();
    let sizes = good.lines().find_map(|line| line.strip_prefix("tree_sizes=")).unwrap();
    let wrong = |to: &str| read_text(&good.replacen(sizes, to, 1)).unwrap_err().to_string();
    let first = sizes.split(' ').next().unwrap();
    assert!(wrong("1 1").starts_with(&format!("tree_sizes[0] = 1: must be {first}")), "{}", wrong("1 1"));
    assert!(wrong(first).starts_with("tree_sizes[1] = missing"));
    assert!(wrong(&format!("{sizes} 9")).starts_with("tree_sizes: has 3 values: must be 2"));
    assert!(read_text(&good.replace('\n', "\r\n")).unwrap_err().what.contains("are its line ends as LightGBM wrote them?"));
}

#[test]
fn linear_leaves_are_looked_at() {
    let linear = "is_linear=1\nleaf_const=1 2 3\nnum_features=1 0 2\nleaf_features=0   0 1 \nleaf_coeff=0.5   1 2 \n";
    let with = |from: &str, to: &str| changed("is_linear=0\n", &linear.replacen(from, to, 1));
    assert!(with("", "").is_ok());
    for (from, to, place) in [
        ("leaf_const=1 2 3", "leaf_const=1 inf 3", "tree 0: leaf_const[1]"),
        ("num_features=1 0 2", "num_features=1 0 3", "tree 0: num_features[2]"),
        ("num_features=1 0 2", "num_features=1 0 1", "tree 0: leaf_features"),
        ("leaf_features=0   0 1", "leaf_features=0   0 2", "tree 0: leaf_features[2]"),
        ("leaf_coeff=0.5   1 2", "leaf_coeff=0.5   1", "tree 0: leaf_coeff"),
        ("leaf_coeff=0.5   1 2", "leaf_coeff=0.5   1 NaN", "tree 0: leaf_coeff[2]"),
    ] {
        assert!(with(from, to).unwrap_err().place.starts_with(place), "{to}");
    }
}

#[test]
fn limits_hold() {
    let good = samples::lightgbm();
    let limited = |limits: Limits| read(good.as_bytes(), &limits).unwrap_err().to_string();
    assert!(limited(Limits { trees: 1, ..Limits::default() }).starts_with("trees = 2: must be at most 1"));
    assert!(limited(Limits { nodes: 5, ..Limits::default() }).starts_with("nodes of all trees = 6: must be at most 5"));
    assert!(limited(Limits { depth: 1, ..Limits::default() }).starts_with("tree 0: leaf 0: is deeper than 1 levels"));
    assert!(limited(Limits { features: 1, ..Limits::default() }).starts_with("features = 2"));
    assert!(limited(Limits { name_bytes: 3, ..Limits::default() }).starts_with("bytes of feature_names[0] = 4"));
    assert!(changed("num_leaves=3", "num_leaves=2147483647").is_err());
}

#[test]
fn a_file_that_was_cut_off_is_refused_while_there_are_trees() {
    let good = samples::lightgbm();
    let end = good.find("feature_importances:").unwrap() + 21;
    for cut in 0..end {
        assert!(read(&good.as_bytes()[..cut], &Limits::default()).is_err(), "cut at {cut} of {}", good.len());
    }
}
