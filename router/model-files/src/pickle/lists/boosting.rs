//! LightGBM and XGBoost. Their constructors read files that an argument names, so nothing here is called: an instance is made bare, and its
//! state is the model's own format, a text or a buffer that the library parses.

use super::super::allowed::Use;
use super::Entry;

pub(super) const LIST: &[Entry] = &[
    ("lightgbm.basic", Use::New, "Booster"),
    ("lightgbm.sklearn", Use::New, "LGBMModel LGBMRanker LGBMRegressor LGBMClassifier"),
    ("xgboost.core", Use::New, "Booster"),
    ("xgboost.sklearn", Use::New, "XGBModel XGBRanker XGBRegressor XGBClassifier XGBRFRegressor XGBRFClassifier"),
];
