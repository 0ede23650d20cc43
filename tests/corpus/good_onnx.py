"""ONNX models that a gate must let pass: what the exporters write for real models, in the forms that they differ in."""

import numpy as np
import onnx
from data import FEATURES
from graphs import Graph
from item import Item
from onnx import TensorProto, helper, numpy_helper
from trained import Trained, from_lightgbm, from_sklearn, from_xgboost, linear_weights, named, to_bytes, with_batch


def items(trained: Trained) -> list:
    """Each as an Item, with the class `good-onnx`."""
    better = from_lightgbm(trained.better)
    models = {
        "lightgbm_opset9": (from_lightgbm(trained.better, 9), "LightGBM, LambdaMART, an old opset"),
        "lightgbm_opset12": (from_lightgbm(trained.lambdamart(25), 12), "LightGBM, LambdaMART, opset 12"),
        "lightgbm_opset15": (better, "LightGBM, LambdaMART, opset 15"),
        "lightgbm_dart": (from_lightgbm(trained.lambdamart(30, boosting="dart")), "LightGBM, DART"),
        "lightgbm_named_features": (named(better), "names of the features as metadata"),
        "lightgbm_batch_named": (with_batch(better, "documents"), "the batch dimension has a name"),
        "lightgbm_batch_unnamed": (with_batch(better, None), "the batch dimension has no name"),
        "lightgbm_flat_output": (flat_output(better), "scores as [n], not [n, 1]"),
        "xgboost": (from_xgboost(trained.xgb), "XGBoost, rank:ndcg"),
        "xgboost_opset12": (named(from_xgboost(trained.xgb, 12)), "XGBoost, rank:ndcg, opset 12, named features"),
        "linear_fp16_weights": (half_weights(trained), "weights kept in 16 bits, cast when it runs"),
        "linear_by_hand": (by_hand(trained), "a MatMul and an Add, written by hand, opset 21"),
    }
    for name, model in trained.sklearn.items():
        models[f"sklearn_{name}"] = (from_sklearn(model), f"scikit-learn, {name}")
    models["sklearn_mlp_opset18"] = (named(from_sklearn(trained.sklearn["mlp"], 18)), "scikit-learn, mlp, opset 18, named features")
    models["sklearn_linear_opset11"] = (from_sklearn(trained.sklearn["linear"], 11), "scikit-learn, linear, opset 11")
    declared = {"lightgbm_flat_output"}
    return [
        Item(f"good/onnx/{name}.onnx", to_bytes(model), "good-onnx", why, declared=name in declared)
        for name, (model, why) in models.items()
    ]


def flat_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same scores as [n]."""
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    graph = flat.graph
    before = graph.output[0].name
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "flat_shape"))
    graph.node.append(helper.make_node("Reshape", [before, "flat_shape"], ["scores"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]))
    return flat


def by_hand(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    return graph.model(graph.scores(), opset=21)


def half_weights(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    half = graph.constant(linear_weights(trained.sklearn["linear"]).astype(np.float16).reshape(FEATURES, 1))
    full = graph.add("Cast", half, to=TensorProto.FLOAT)
    return graph.model(graph.add("MatMul", "features", full))
