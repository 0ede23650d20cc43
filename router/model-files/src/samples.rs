//! Small models made by hand, for tests.

use super::onnx::samples as onnx;

/// A LightGBM ranker: one split by number, one by category, and a tree that is one leaf.
pub(super) fn lightgbm() -> String {
    let split = "Tree=0\nnum_leaves=3\nnum_cat=1\nsplit_feature=0 1\nsplit_gain=5 1\nthreshold=0.5 0\ndecision_type=10 1\nleft_child=1 -1\nright_child=-2 -3\n\
                 leaf_value=0.1 -0.2 0.3\nleaf_weight=1 1 1\nleaf_count=4 5 6\ninternal_value=0 0\ninternal_weight=2 1\ninternal_count=15 10\n\
                 cat_boundaries=0 1\ncat_threshold=6\nis_linear=0\nshrinkage=0.1\n\n\n";
    let leaf = "Tree=1\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\ndecision_type=\nleft_child=\nright_child=\nleaf_value=0.5\n\
                leaf_weight=\nleaf_count=15\ninternal_value=\ninternal_weight=\ninternal_count=\nis_linear=0\nshrinkage=1\n\n\n";
    let header = format!(
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\nobjective=lambdarank\nfeature_names=bm25 shop\n\
         feature_infos=[0:9.5] -1:0:2:1\ntree_sizes={} {}\n\n",
        split.len(),
        leaf.len()
    );
    let tail = "end of trees\n\nfeature_importances:\nbm25=1\nshop=1\n\nparameters:\n[boosting: gbdt]\n\nend of parameters\n\npandas_categorical:[[\"a\", \"b\"]]\n";
    format!("{header}{split}{leaf}{tail}")
}

/// An XGBoost ranker: one split by number, one by category.
pub(super) fn xgboost() -> String {
    let tree = r#"{"base_weights":[0.0,0.1,0.2,0.3,0.4],"categories":[0,2],"categories_nodes":[1],"categories_segments":[0],"categories_sizes":[2],
        "default_left":[1,0,0,0,0],"id":0,"left_children":[1,3,-1,-1,-1],"loss_changes":[9.5,1.5,0,0,0],"parents":[2147483647,0,0,1,1],
        "right_children":[2,4,-1,-1,-1],"split_conditions":[0.5,NaN,-0.25,1E-1,2E-1],"split_indices":[0,1,2147483647,0,0],"split_type":[0,1,0,0,0],
        "sum_hessian":[9,5,4,3,2],"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"5","size_leaf_vector":"1"}}"#;
    let model = format!(
        r#"{{"cats":{{"enc":[]}},"gbtree_model_param":{{"num_parallel_tree":"1","num_trees":"1"}},"iteration_indptr":[0,1],"tree_info":[0],"trees":[{tree}]}}"#
    );
    xgboost_with(&format!(r#"{{"model":{model},"name":"gbtree"}}"#))
}

/// An XGBoost model with that booster.
pub(super) fn xgboost_with(booster: &str) -> String {
    format!(
        r#"{{"learner":{{"attributes":{{}},"feature_names":["bm25","shop"],"feature_types":["float","c"],"gradient_booster":{booster},
        "learner_model_param":{{"base_score":"[5E-1]","boost_from_average":"1","num_class":"0","num_feature":"2","num_target":"1"}},
        "objective":{{"lambdarank_param":{{"ndcg_exp_gain":"1"}},"name":"rank:ndcg"}}}},"version":[3,2,0]}}"#
    )
}

/// Good files of each format.
pub(super) fn all() -> Vec<Vec<u8>> {
    let [old, new] = onnx::files();
    vec![lightgbm().into_bytes(), xgboost().into_bytes(), old, new]
}
