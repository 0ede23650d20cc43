//! What a file of trees says of its model.

/// A model of trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    /// Features that it takes, at least 1.
    pub features: usize,
    /// Their names, in order; empty where the model has none, which LightGBM's always have.
    pub feature_names: Vec<String>,
    /// Its trees, at least 1; 0 for XGBoost's linear model.
    pub trees: usize,
    /// Leaves of all trees; 0 for a linear model.
    pub leaves: usize,
    /// What it was trained for, in its library's words: `lambdarank`, `rank:ndcg`. Empty for a function of the user's own.
    pub objective: String,
}
