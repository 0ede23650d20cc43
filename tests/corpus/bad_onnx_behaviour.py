"""ONNX files that load and run, and are no ranking model to let in: another signature, or scores that cannot be used."""

import numpy as np
import onnx
from data import FEATURES, NAMES
from graphs import Graph, value
from item import Item
from onnx import TensorProto, helper, numpy_helper
from trained import Trained, clone, from_lightgbm, from_sklearn, named, to_bytes, with_batch

SHAPE = r"(?i)input|output|shape|feature|type|rank|dimension|FP32"
FINITE = r"(?i)finite|nan|inf"
REPEATS = r"(?i)determin|differ|repeat|again|other scores"
BATCH = r"(?i)order|batch|other documents|alone|depend|list"
QUALITY = r"(?i)ndcg|quality|worse|rank"
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def items(trained: Trained, size_limit: int) -> list:
    made = {
        **signatures(trained),
        **weights(trained),
        **at_some_inputs(trained),
        **chance(trained),
        **company(trained),
        **quality(trained),
        **cost(trained, size_limit),
    }
    return [Item(f"bad/onnx/{name}.onnx", to_bytes(model), kind, why, expect) for name, (kind, model, why, expect) in made.items()]


def signatures(trained: Trained) -> dict:
    live = from_lightgbm(trained.live)
    made = {}
    for features in (39, 41):
        graph = Graph(trained)
        graph.weights = np.resize(graph.weights, (features, 1))
        made[f"features_{features}"] = (
            graph.model(graph.scores(), inputs=[value("features", FLOAT, ["n", features])]),
            f"takes {features} features, not 40",
        )
    rank3, two, none, wide, whole, scalar, text = (Graph(trained) for _ in range(7))
    made["input_rank_3"] = (
        rank3.model(rank3.scores(rank3.add("Squeeze", "features", rank3.ints(0))), inputs=[value("features", FLOAT, [1, "n", FEATURES])]),
        "an input of rank 3",
    )
    both = [value("features", FLOAT, ["n", FEATURES]), value("prices", FLOAT, ["n", 1])]
    made["input_two"] = (two.model(two.add("Add", two.scores(), "prices"), inputs=both), "two inputs")
    made["input_none"] = (
        none.model(none.add("MatMul", none.floats(*([[0.0] * FEATURES] * 3)), none.constant(none.weights)), inputs=[]),
        "no input",
    )
    made["output_two_columns"] = (
        wide.model("", outputs=[value(wide.add("Concat", wide.scores(), wide.scores(), axis=1), FLOAT, ["n", 2])]),
        "two scores a document",
    )
    made["output_scalar"] = (
        scalar.model("", outputs=[value(scalar.add("ReduceSum", scalar.scores(), keepdims=0), FLOAT, [])]),
        "one score for the whole list",
    )
    made["output_int64"] = (
        whole.model("", outputs=[value(whole.add("Cast", whole.scores(), to=INT64), INT64, ["n", 1])]),
        "whole numbers as scores",
    )
    made["output_text"] = (
        text.model("", outputs=[value(text.add("Cast", text.scores(), to=TensorProto.STRING), TensorProto.STRING, ["n", 1])]),
        "text as scores",
    )
    for name, element in (("int64", INT64), ("double", DOUBLE), ("float16", TensorProto.FLOAT16)):
        graph = Graph(trained)
        scores = graph.scores(graph.add("Cast", "features", to=FLOAT))
        made[f"input_{name}"] = (graph.model(scores, inputs=[value("features", element, ["n", FEATURES])]), f"an input of {name}")
    double = Graph(trained)
    made["output_double"] = (
        double.model("", outputs=[value(double.add("Cast", double.scores(), to=DOUBLE), DOUBLE, ["n", 1])]),
        "scores in double precision",
    )
    made["classifier"] = (classifier(trained), "a classifier: labels, and a list of maps")
    made["batch_fixed_1"] = (with_batch(live, 1), "only ever one document")
    made["batch_fixed_12"] = (with_batch(live, 12), "only ever twelve documents")
    made["alone_is_scalar"] = (squeezed(trained), "[n] scores, but for one document a scalar")
    made["names_39"] = (named(live, NAMES[:-1]), "feature_names has 39 names for 40 features")
    made["names_twice"] = (named(live, NAMES[:-1] + NAMES[:1]), "feature_names has one name twice")
    not_json = clone(live)
    helper.set_model_props(not_json, {"feature_names": ",".join(NAMES)})
    made["names_not_json"] = (not_json, "feature_names is not JSON")
    return {name: ("signature", model, why, SHAPE + "|name|JSON|scores|document") for name, (model, why) in made.items()}


def classifier(trained: Trained) -> onnx.ModelProto:
    from sklearn.linear_model import LogisticRegression

    rows = slice(0, 600)
    return from_sklearn(LogisticRegression(max_iter=50).fit(trained.train.features[rows], trained.train.labels[rows] > 0))


def squeezed(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    return graph.model("", outputs=[value(graph.add("Squeeze", graph.scores()), FLOAT, ["n"])])


def weights(trained: Trained) -> dict:
    made = {}
    for name, number in (("nan", np.nan), ("inf", np.inf)):
        graph = Graph(trained)
        graph.weights = graph.weights.copy()
        graph.weights[5] = number
        made[f"weights_{name}"] = ("not-finite", graph.model(graph.scores()), f"a weight is {name}", FINITE)
    for name, number in (("nan", np.nan), ("inf", np.inf), ("nan_rare", np.nan)):
        model = from_lightgbm(trained.live)
        leaves = attribute(model, "target_weights").floats
        # The smallest leaves of the last tree are reached by few documents.
        leaves[len(leaves) - 1 if name == "nan_rare" else 0] = number
        made[f"tree_leaf_{name}"] = ("not-finite", model, f"a leaf of a tree is {name.split('_')[0]}", FINITE)
    unreached = from_lightgbm(trained.live)
    # Left is "at most": with a threshold that nothing exceeds, what is right of the root is reached by no document.
    attribute(unreached, "nodes_values").floats[0] = 1e30
    node = attribute(unreached, "nodes_falsenodeids").ints[0]
    while attribute(unreached, "nodes_modes").strings[node] != b"LEAF":
        node = attribute(unreached, "nodes_falsenodeids").ints[node]
    attribute(unreached, "target_weights").floats[list(attribute(unreached, "target_nodeids").ints).index(node)] = np.nan
    made["tree_leaf_nan_unreached"] = ("not-finite", unreached, "a leaf that no judged document reaches is nan", FINITE)
    threshold = from_lightgbm(trained.live)
    for place in range(len(attribute(threshold, "nodes_values").floats)):
        attribute(threshold, "nodes_values").floats[place] = np.nan
    made["tree_thresholds_nan"] = (
        "not-finite",
        threshold,
        "all thresholds are nan: every document falls into the same leaf",
        FINITE + "|equal|constant|same|" + QUALITY,
    )
    for name, field, number, why in (
        ("child_out_of_range", "nodes_truenodeids", 10**6, "a child that is not there"),
        ("cycle", "nodes_truenodeids", 0, "the root is its own child"),
        ("feature_out_of_range", "nodes_featureids", 4000, "splits on feature 4000 of 40"),
        ("feature_negative", "nodes_featureids", -1, "splits on feature -1"),
    ):
        model = from_lightgbm(trained.live)
        attribute(model, field).ints[0] = number
        made[f"tree_{name}"] = (
            "broken-tree",
            model,
            why,
            r"(?i)tree|child|node|cycl|range|feature|crash|died|signal|load|killed|finite|differ|" + QUALITY,
        )
    short = from_lightgbm(trained.live)
    del attribute(short, "nodes_values").floats[-3:]
    made["tree_arrays_differ"] = ("broken-tree", short, "fewer thresholds than nodes", r"(?i)tree|size|length|node|load|crash|died|signal")
    return made


def attribute(model: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(found for found in model.graph.node[0].attribute if found.name == name)


def at_some_inputs(trained: Trained) -> dict:
    """Sound weights; not finite for some documents only. Feature 10 is often zero, 20 is a small count, 8 is often negative."""
    zero, negative, rare, big = (Graph(trained) for _ in range(4))
    ratio = zero.add("Div", zero.column(10), zero.column(10))
    logarithm = negative.add("Log", negative.column(8))
    # Counts of feature 20 are Poisson with mean 3: 9 and more are a few in a thousand.
    root = rare.add("Sqrt", rare.add("Sub", rare.floats(8.5), rare.column(20)))
    power = big.add("Exp", big.add("Mul", big.column(8), big.floats(60.0)))
    return {
        "nan_zero_by_zero": ("not-finite", zero.model(zero.add("Add", zero.scores(), ratio)), "0/0 where feature 10 is zero", FINITE),
        "nan_log_negative": (
            "not-finite",
            negative.model(negative.add("Add", negative.scores(), logarithm)),
            "the logarithm of a feature that may be negative",
            FINITE,
        ),
        "nan_rare": ("not-finite", rare.model(rare.add("Add", rare.scores(), root)), "NaN for a few documents in a thousand", FINITE),
        "inf_exponential": ("not-finite", big.model(big.add("Add", big.scores(), power)), "an exponential that overflows 32 bits", FINITE),
    }


def chance(trained: Trained) -> dict:
    normal, like, seeded, dropout = (Graph(trained) for _ in range(4))
    noise = normal.add("RandomNormal", shape=[1], scale=0.1)
    uniform = like.add("Mul", like.add("RandomUniformLike", like.scores()), like.floats(0.01))
    same = seeded.add("RandomNormalLike", seeded.scores(), seed=7.0, scale=0.1)
    dropped = dropout.add("Dropout", "features", dropout.constant(np.float32(0.3)), dropout.constant(np.array(True)))
    return {
        "random_normal": (
            "nondeterministic",
            normal.model(normal.add("Add", normal.scores(), noise)),
            "adds the same noise to all scores of a list",
            REPEATS,
        ),
        "random_uniform_like": (
            "nondeterministic",
            like.model(like.add("Add", like.scores(), uniform)),
            "adds a little noise to every score",
            REPEATS,
        ),
        "random_seeded": (
            "nondeterministic",
            seeded.model(seeded.add("Add", seeded.scores(), same)),
            "adds noise with a fixed seed: the same after every load, other in every run",
            REPEATS + "|" + BATCH,
        ),
        "dropout_in_training": ("nondeterministic", dropout.model(dropout.scores(dropped)), "Dropout left in training mode", REPEATS),
    }


def company(trained: Trained) -> dict:
    """A document's score depends on where it stands, or on which other documents there are."""
    position, running, neighbour, softmax, centred, scaled, attention = (Graph(trained) for _ in range(7))
    ones = position.add("ConstantOfShape", position.add("Shape", position.scores()), value=numpy_helper.from_array(np.ones(1, np.float32)))
    place = position.add("CumSum", ones, position.constant(np.int64(0)))
    total = running.add("CumSum", running.scores(), running.constant(np.int64(0)))
    before = neighbour.scores()
    shifted = neighbour.add(
        "Slice", neighbour.add("Concat", neighbour.floats([0.0]), before, axis=0), neighbour.ints(0), neighbour.ints(-1), neighbour.ints(0)
    )
    scores = centred.scores()
    middle = centred.add("Sub", scores, centred.add("ReduceMean", scores, axes=[0], keepdims=1))
    plain = scaled.scores()
    by_largest = scaled.add("Div", plain, scaled.add("ReduceMax", scaled.add("Abs", plain), keepdims=1))
    weights_of = attention.add("Softmax", attention.add("MatMul", "features", attention.add("Transpose", "features", perm=[1, 0])), axis=1)
    mixed = attention.scores(attention.add("Add", "features", attention.add("MatMul", weights_of, "features")))
    order = {
        "position": (position.model(position.add("Sub", position.scores(), place)), "the later a document comes, the lower its score"),
        "cumsum": (running.model(total), "a running sum of scores"),
        "neighbour": (neighbour.model(neighbour.add("Add", before, shifted)), "adds the score of the document before"),
    }
    batch = {
        "softmax": (
            softmax.model(softmax.add("Softmax", softmax.scores(), axis=0)),
            "a softmax over the list: the same order, other scores",
        ),
        "mean_centred": (centred.model(middle), "scores less the list's mean"),
        "scaled_by_largest": (scaled.model(by_largest), "scores over the list's largest"),
        "attention": (attention.model(mixed), "attention between the documents of a list"),
    }
    made = {f"order_{name}": ("depends-on-order", model, why, BATCH) for name, (model, why) in order.items()}
    return {**made, **{f"batch_{name}": ("depends-on-batch", model, why, BATCH) for name, (model, why) in batch.items()}}


def quality(trained: Trained) -> dict:
    negated, constant, zeros, useless, saturated, swapped = (Graph(trained) for _ in range(6))
    zeros.weights = np.zeros_like(zeros.weights)
    useless.weights = np.zeros_like(useless.weights)
    useless.weights[35] = 1.0  # feature 35 says nothing
    swapped.weights = swapped.weights[np.random.default_rng(5).permutation(FEATURES)]
    flat = constant.add("Clip", constant.scores(), constant.constant(np.float32(1)), constant.constant(np.float32(1)))
    full = saturated.add("Sigmoid", saturated.add("Add", saturated.add("Abs", saturated.scores()), saturated.floats(50.0)))
    equal = r"(?i)constant|equal|same|ties?\b|distinct|" + QUALITY
    return {
        "constant": ("constant", constant.model(flat), "1 for every document", equal),
        "constant_zero_weights": ("constant", zeros.model(zeros.scores()), "all weights are zero", equal),
        "constant_saturated": ("constant", saturated.model(full), "a sigmoid that is 1 everywhere", equal),
        "worse_negated": ("worse", negated.model(negated.add("Neg", negated.scores())), "the live ranking upside down", QUALITY),
        "worse_useless_feature": ("worse", useless.model(useless.scores()), "ranks by a feature that says nothing", QUALITY),
        "worse_columns_swapped": ("worse", swapped.model(swapped.scores()), "trained on the columns in another order", QUALITY),
    }


def cost(trained: Trained, size_limit: int) -> dict:
    """Too slow, and too large. Both rank as well as the live model."""
    slow, large = Graph(trained), Graph(trained)
    rng = np.random.default_rng(9)
    width = 512
    wide = slow.add("MatMul", "features", slow.constant(rng.normal(0, 0.05, (FEATURES, width)).astype(np.float32)))
    square = slow.constant(rng.normal(0, 0.05, (width, width)).astype(np.float32))
    for _ in range(60):
        wide = slow.add("Tanh", slow.add("MatMul", wide, square))
    late = slow.add("Mul", slow.add("ReduceMean", wide, axes=[1], keepdims=1), slow.floats(0.0))
    table = rng.integers(0, 256, size_limit + 4096, dtype=np.uint8)
    entry = large.add("Cast", large.add("Gather", large.constant(table), large.ints(0)), to=FLOAT)
    padded = large.plus_nothing(large.scores(), entry)
    return {
        "slow": (
            "slow",
            slow.model(slow.add("Add", slow.scores(), late)),
            "sixty products of large matrices: far slower than the live model",
            r"(?i)latency|slow|time|µs|us\b|ms\b",
        ),
        "too_large": ("too-large", large.model(padded), f"over {size_limit} bytes", r"(?i)large|size|bytes|limit"),
    }
