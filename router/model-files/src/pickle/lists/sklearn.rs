//! scikit-learn: models that rank, and what goes before them in a pipeline. An entry is a class whose instances are made bare and get a
//! dict of attributes.
//!
//! Left out on purpose: what holds functions and calls them (`FunctionTransformer` and `TransformedTargetRegressor` are let through where
//! they hold none, `CountVectorizer` and `TfidfVectorizer` where they hold none and open no files named by their input); nearest neighbours, whose
//! metrics and weights may be functions, and whose trees are made of whatever class the pickle says (`newObj`); Gaussian processes, whose kernel is
//! called; and the `BSpline` in a `SplineTransformer`, which holds a function.

use super::super::allowed::{Rule, Use};
use super::Entry;

pub(super) const LIST: &[Entry] = &[
    ("sklearn._loss.link", Use::New, "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit"),
    (
        "sklearn._loss.loss",
        Use::New,
        "AbsoluteError ExponentialLoss HalfBinomialLoss HalfBinomialLossArrayAPI HalfGammaLoss HalfMultinomialLoss \
         HalfMultinomialLossArrayAPI HalfPoissonLoss HalfPoissonLossArrayAPI HalfSquaredError HalfTweedieLoss \
         HalfTweedieLossIdentity HuberLoss PinballLoss",
    ),
    ("sklearn.calibration", Use::New, "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration"),
    ("sklearn.compose._column_transformer", Use::New, "ColumnTransformer _RemainderColsList"),
    ("sklearn.cross_decomposition._pls", Use::New, "CCA PLSCanonical PLSRegression PLSSVD"),
    ("sklearn.decomposition._dict_learning", Use::New, "DictionaryLearning MiniBatchDictionaryLearning SparseCoder"),
    ("sklearn.decomposition._factor_analysis", Use::New, "FactorAnalysis"),
    ("sklearn.decomposition._fastica", Use::New, "FastICA"),
    ("sklearn.decomposition._incremental_pca", Use::New, "IncrementalPCA"),
    ("sklearn.decomposition._kernel_pca", Use::New, "KernelPCA"),
    ("sklearn.decomposition._lda", Use::New, "LatentDirichletAllocation"),
    ("sklearn.decomposition._nmf", Use::New, "MiniBatchNMF NMF"),
    ("sklearn.decomposition._pca", Use::New, "PCA"),
    ("sklearn.decomposition._sparse_pca", Use::New, "MiniBatchSparsePCA SparsePCA"),
    ("sklearn.decomposition._truncated_svd", Use::New, "TruncatedSVD"),
    ("sklearn.discriminant_analysis", Use::New, "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis"),
    ("sklearn.dummy", Use::New, "DummyClassifier DummyRegressor"),
    ("sklearn.ensemble._bagging", Use::New, "BaggingClassifier BaggingRegressor"),
    (
        "sklearn.ensemble._forest",
        Use::New,
        "ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor RandomTreesEmbedding",
    ),
    ("sklearn.ensemble._gb", Use::New, "GradientBoostingClassifier GradientBoostingRegressor"),
    (
        "sklearn.ensemble._gb_losses",
        Use::New,
        "BinomialDeviance ExponentialLoss HuberLossFunction LeastAbsoluteError LeastSquaresError MultinomialDeviance \
         QuantileLossFunction",
    ),
    ("sklearn.ensemble._hist_gradient_boosting.binning", Use::New, "_BinMapper"),
    (
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting",
        Use::New,
        "HistGradientBoostingClassifier HistGradientBoostingRegressor",
    ),
    ("sklearn.ensemble._hist_gradient_boosting.predictor", Use::New, "TreePredictor"),
    ("sklearn.ensemble._iforest", Use::New, "IsolationForest"),
    ("sklearn.ensemble._stacking", Use::New, "StackingClassifier StackingRegressor"),
    ("sklearn.ensemble._voting", Use::New, "VotingClassifier VotingRegressor"),
    ("sklearn.ensemble._weight_boosting", Use::New, "AdaBoostClassifier AdaBoostRegressor"),
    ("sklearn.feature_extraction.text", Use::New, "TfidfTransformer"),
    ("sklearn.feature_extraction.text", Use::Checked(Rule::Texts), "CountVectorizer TfidfVectorizer"),
    ("sklearn.feature_selection._from_model", Use::New, "SelectFromModel"),
    ("sklearn.feature_selection._rfe", Use::New, "RFE RFECV"),
    ("sklearn.feature_selection._sequential", Use::New, "SequentialFeatureSelector"),
    (
        "sklearn.feature_selection._univariate_selection",
        Use::New,
        "GenericUnivariateSelect SelectFdr SelectFpr SelectFwe SelectKBest SelectPercentile",
    ),
    ("sklearn.feature_selection._variance_threshold", Use::New, "VarianceThreshold"),
    ("sklearn.impute._base", Use::New, "MissingIndicator SimpleImputer"),
    ("sklearn.impute._iterative", Use::New, "IterativeImputer _ImputerTriplet"),
    ("sklearn.impute._knn", Use::New, "KNNImputer"),
    ("sklearn.isotonic", Use::New, "IsotonicRegression"),
    ("sklearn.kernel_approximation", Use::New, "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler"),
    ("sklearn.kernel_ridge", Use::New, "KernelRidge"),
    ("sklearn.linear_model._base", Use::New, "LinearRegression"),
    ("sklearn.linear_model._bayes", Use::New, "ARDRegression BayesianRidge"),
    (
        "sklearn.linear_model._coordinate_descent",
        Use::New,
        "ElasticNet ElasticNetCV Lasso LassoCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV",
    ),
    ("sklearn.linear_model._glm.glm", Use::New, "GammaRegressor PoissonRegressor TweedieRegressor"),
    ("sklearn.linear_model._huber", Use::New, "HuberRegressor"),
    ("sklearn.linear_model._least_angle", Use::New, "Lars LarsCV LassoLars LassoLarsCV LassoLarsIC"),
    ("sklearn.linear_model._logistic", Use::New, "LogisticRegression LogisticRegressionCV"),
    ("sklearn.linear_model._omp", Use::New, "OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV"),
    ("sklearn.linear_model._passive_aggressive", Use::New, "PassiveAggressiveClassifier PassiveAggressiveRegressor"),
    ("sklearn.linear_model._perceptron", Use::New, "Perceptron"),
    ("sklearn.linear_model._quantile", Use::New, "QuantileRegressor"),
    ("sklearn.linear_model._ransac", Use::New, "RANSACRegressor"),
    ("sklearn.linear_model._ridge", Use::New, "Ridge RidgeCV RidgeClassifier RidgeClassifierCV"),
    ("sklearn.linear_model._stochastic_gradient", Use::New, "SGDClassifier SGDOneClassSVM SGDRegressor"),
    ("sklearn.linear_model._theil_sen", Use::New, "TheilSenRegressor"),
    ("sklearn.multiclass", Use::New, "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier"),
    ("sklearn.multioutput", Use::New, "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain"),
    ("sklearn.naive_bayes", Use::New, "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB"),
    ("sklearn.neighbors._nearest_centroid", Use::New, "NearestCentroid"),
    ("sklearn.neural_network._multilayer_perceptron", Use::New, "MLPClassifier MLPRegressor"),
    ("sklearn.neural_network._rbm", Use::New, "BernoulliRBM"),
    ("sklearn.neural_network._stochastic_optimizers", Use::New, "AdamOptimizer SGDOptimizer"),
    ("sklearn.pipeline", Use::New, "FeatureUnion Pipeline"),
    (
        "sklearn.preprocessing._data",
        Use::New,
        "Binarizer KernelCenterer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer QuantileTransformer RobustScaler \
         StandardScaler",
    ),
    ("sklearn.preprocessing._discretization", Use::New, "KBinsDiscretizer"),
    ("sklearn.preprocessing._encoders", Use::New, "OneHotEncoder OrdinalEncoder"),
    ("sklearn.preprocessing._label", Use::New, "LabelBinarizer LabelEncoder MultiLabelBinarizer"),
    ("sklearn.preprocessing._polynomial", Use::New, "PolynomialFeatures SplineTransformer"),
    ("sklearn.preprocessing._target_encoder", Use::New, "TargetEncoder"),
    ("sklearn.random_projection", Use::New, "GaussianRandomProjection SparseRandomProjection"),
    ("sklearn.svm._classes", Use::New, "LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR"),
    ("sklearn.tree._classes", Use::New, "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor"),
    ("sklearn.preprocessing._function_transformer", Use::Checked(Rule::NoFunctions), "FunctionTransformer"),
    ("sklearn.compose._target", Use::Checked(Rule::NoFunctions), "TransformedTargetRegressor"),
    ("sklearn.feature_selection._univariate_selection", Use::Name, "f_classif f_regression chi2 r_regression"),
    ("sklearn.utils._bunch", Use::Items, "Bunch"),
    ("sklearn.tree._tree", Use::Checked(Rule::Arrays), "Tree"),
    // Losses in Cython: the constructors take a number or nothing.
    (
        "sklearn._loss._loss",
        Use::Plain,
        "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss CyHalfSquaredError \
         CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss",
    ),
    ("sklearn._loss._loss", Use::Checked(Rule::Cython), "__pyx_unpickle_CyHalfMultinomialLoss"),
    (
        "sklearn.linear_model._sgd_fast",
        Use::Plain,
        "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss",
    ),
];
