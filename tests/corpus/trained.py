"""The native models that the corpus is made from, each trained once, and their ONNX exports."""

import json
import warnings
from functools import cached_property

import lightgbm
import numpy as np
import onnx
import xgboost
from data import FEATURES, NAMES, Judged
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.filterwarnings("ignore")

OPSET = 15
LIGHTGBM = dict(
    objective="lambdarank",
    num_leaves=7,
    learning_rate=0.12,
    min_data_in_leaf=20,
    seed=7,
    deterministic=True,
    force_row_wise=True,
    num_threads=1,
    verbose=-1,
)


class Trained:
    """Models trained on one set, on demand. One thread and fixed seeds: the same set gives the same models."""

    def __init__(self, train: Judged):
        self.train = train

    def lambdamart(self, rounds: int, categorical=(), **settings) -> lightgbm.Booster:
        """A LambdaMART model; `categorical` features are by place."""
        rows = lightgbm.Dataset(
            self.train.features, self.train.labels, group=self.train.groups, categorical_feature=list(categorical), free_raw_data=False
        )
        return lightgbm.train({**LIGHTGBM, **settings}, rows, rounds)

    @cached_property
    def live(self) -> lightgbm.Booster:
        """The live model: decent, and not the best there can be."""
        return self.lambdamart(12)

    @cached_property
    def better(self) -> lightgbm.Booster:
        return self.lambdamart(30)

    @cached_property
    def xgb(self) -> xgboost.XGBRanker:
        return self.xgboost_ranker("gbtree")

    @cached_property
    def xgb_dart(self) -> xgboost.XGBRanker:
        return self.xgboost_ranker("dart")

    def xgboost_ranker(self, booster: str) -> xgboost.XGBRanker:
        dropped = {"rate_drop": 0.2} if booster == "dart" else {}
        ranker = xgboost.XGBRanker(n_estimators=30, max_depth=4, learning_rate=0.2, n_jobs=1, random_state=3, booster=booster, **dropped)
        return ranker.fit(self.train.features, self.train.labels, group=self.train.groups)

    @cached_property
    def sklearn(self) -> dict:
        """Regressors on the labels, by name."""
        made = {
            "gradient_boosting": GradientBoostingRegressor(n_estimators=50, max_depth=3, random_state=3),
            "random_forest": RandomForestRegressor(n_estimators=30, max_depth=8, random_state=3),
            "hist_gradient_boosting": HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=15, random_state=3),
            "mlp": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=60, random_state=3)),
            "linear": LinearRegression(),
        }
        for model in made.values():
            model.fit(self.train.features, self.train.labels)
        return made


def from_lightgbm(booster: lightgbm.Booster, opset: int = OPSET) -> onnx.ModelProto:
    """Scores as raw values. The converter takes opsets up to 15."""
    return tidy(convert_lightgbm(booster, initial_types=[("features", MlFloats([None, FEATURES]))], target_opset=opset))


def from_xgboost(ranker: xgboost.XGBRanker, opset: int = OPSET) -> onnx.ModelProto:
    """The converter knows no XGBRanker; its objective plays no part in a prediction, so a regressor with its trees says the same."""
    raw = json.loads(ranker.get_booster().save_raw("json"))
    raw["learner"]["objective"] = {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}
    regressor = xgboost.XGBRegressor()
    regressor.load_model(bytearray(json.dumps(raw).encode()))
    return tidy(convert_xgboost(regressor, initial_types=[("features", MlFloats([None, FEATURES]))], target_opset=opset))


def from_sklearn(model, opset: int = OPSET) -> onnx.ModelProto:
    """Any fitted regressor or pipeline."""
    return tidy(to_onnx(model, initial_types=[("features", FloatTensorType([None, FEATURES]))], target_opset=opset))


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops what differs from run to run: the order of the opsets and of a tree's attributes, and repeated opsets."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items()))
    for node in model.graph.node:
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
    model.graph.name = "ranker"
    return model


def named(model: onnx.ModelProto, names=None) -> onnx.ModelProto:
    """With the names of the features as metadata, as a server wants them that takes features by name."""
    model = clone(model)
    onnx.helper.set_model_props(model, {"feature_names": json.dumps(NAMES if names is None else names)})
    return model


def with_batch(model: onnx.ModelProto, name) -> onnx.ModelProto:
    """The first dimension called `name`, free where it is None, fixed where it is a number."""
    model = clone(model)
    for value in [model.graph.input[0], model.graph.output[0]]:
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        if isinstance(name, int):
            dimension.dim_value = name
        elif name is not None:
            dimension.dim_param = name
    return model


def clone(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def to_bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def linear_weights(model: LinearRegression) -> np.ndarray:
    """[FEATURES, 1], FP32: hand-made graphs score with it."""
    return model.coef_.reshape(FEATURES, 1).astype(np.float32)
