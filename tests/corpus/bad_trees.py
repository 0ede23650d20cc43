"""LightGBM models as text and XGBoost models as JSON: some good ones, and broken ones that a reader of trees must refuse."""

import copy
import json
import re

import numpy as np
from item import Item
from trained import Trained

STRUCTURE = r"(?i)tree|child|leaf|leaves|node|cycl|range|index|bound|size|length|count|number"
TRUNCATED = r"(?i)cut off|end of|missing|expected|tree"
FINITE = r"(?i)finite|nan|inf|null"
FEATURES = r"(?i)feature"


def items(trained: Trained) -> list:
    return good(trained) + bad_lightgbm(trained) + bad_xgboost(trained)


def good(trained: Trained) -> list:
    # Feature 20 is a small whole number: it may pass for a category.
    texts = {
        "plain": (trained.live.model_to_string(), "LightGBM, LambdaMART"),
        "categorical": (trained.lambdamart(60, categorical=[20, 21]).model_to_string(), "LightGBM with two categorical features"),
        "dart": (trained.lambdamart(12, boosting="dart").model_to_string(), "LightGBM, DART"),
        "missing_values": (trained.lambdamart(12, zero_as_missing=True).model_to_string(), "LightGBM, zeros are missing values"),
    }
    made = [Item(f"good/lightgbm/{name}.txt", text.encode(), "good-lightgbm", why) for name, (text, why) in texts.items()]
    crlf = resized(texts["plain"][0].replace("\n", "\r\n")).encode()
    rankers = {"gbtree": (trained.xgb, "XGBoost, rank:ndcg"), "dart": (trained.xgb_dart, "XGBoost, DART")}
    made += [
        Item(f"good/xgboost/{name}.json", bytes(ranker.get_booster().save_raw("json")), "good-xgboost", why)
        for name, (ranker, why) in rankers.items()
    ]
    pretty = json.dumps(raw_xgboost(trained), indent=1).encode()
    return [
        *made,
        Item("good/xgboost/indented.json", pretty, "good-xgboost", "XGBoost, its JSON written again with line breaks"),
        Item("good/lightgbm/crlf.txt", crlf, "good-lightgbm", "LightGBM, as Windows writes lines"),
    ]


def resized(text: str) -> str:
    """The model with `tree_sizes` as they are: LightGBM cuts its trees apart by them, and else stumbles over that and nothing else."""
    trees = re.split(r"^(?=Tree=\d+\r?$)", text[: text.index("end of trees")], flags=re.MULTILINE)[1:]
    return re.sub(r"^tree_sizes=.*$", "tree_sizes=" + " ".join(str(len(tree)) for tree in trees), text, flags=re.MULTILINE)


def change(text: str, field: str, place: int, value, tree: int = 0) -> str:
    """The model with one number of one tree's field replaced; `place` None replaces all of it."""
    found = list(re.finditer(rf"^{field}=(.*)$", text, re.MULTILINE))[tree]
    parts = str(value) if place is None else found.group(1).split(" ")
    if place is not None:
        parts[place] = str(value)
        parts = " ".join(parts)
    changed = text[: found.start(1)] + parts + text[found.end(1) :]
    return changed if field == "tree_sizes" else resized(changed)


def bad_lightgbm(trained: Trained) -> list:
    text = trained.live.model_to_string()
    head, rest = text.split("\nTree=0\n", 1)
    no_trees = head + "\n\nend of trees\n" + rest.split("\nend of trees\n", 1)[1]
    no_trees = re.sub(r"tree_sizes=.*", "tree_sizes=", no_trees)
    shorter = change(text, "leaf_value", None, " ".join(re.findall(r"^leaf_value=(.*)$", text, re.M)[0].split()[:-2]))
    made = {
        "truncated_in_tree": (text[: len(text) // 3], "truncated", "cut in the middle of a tree", TRUNCATED),
        "truncated_in_head": (text[:300], "truncated", "cut in the head", TRUNCATED),
        "truncated_between_trees": (text[: text.index("Tree=6\n")], "truncated", "half of the trees, cut between two of them", TRUNCATED),
        "child_out_of_range": (change(text, "left_child", 0, 99), "broken-tree", "a child that is not there", STRUCTURE),
        "leaf_out_of_range": (change(text, "right_child", 1, -99), "broken-tree", "a leaf that is not there", STRUCTURE),
        "cycle_root": (change(text, "left_child", 0, 0), "broken-tree", "the root is its own child", STRUCTURE),
        "cycle_later": (change(text, "left_child", 3, 1), "broken-tree", "a node's child is above it", STRUCTURE),
        "leaf_nan": (change(text, "leaf_value", 2, "nan"), "not-finite", "a leaf is nan", FINITE),
        "leaf_inf": (change(text, "leaf_value", 2, "inf"), "not-finite", "a leaf is inf", FINITE),
        "leaf_text": (change(text, "leaf_value", 2, "much"), "broken-tree", "a leaf is a word", r"(?i)leaf|number|parse|much"),
        "threshold_nan": (change(text, "threshold", 0, "nan"), "not-finite", "a threshold is nan", FINITE + "|threshold"),
        "feature_out_of_range": (change(text, "split_feature", 0, 4000), "broken-tree", "splits on feature 4000 of 40", FEATURES),
        "feature_negative": (change(text, "split_feature", 0, -3), "broken-tree", "splits on feature -3", FEATURES),
        "arrays_differ": (shorter, "broken-tree", "fewer leaves than it says", STRUCTURE),
        "leaves_many": (change(text, "num_leaves", None, 2_000_000_000), "memory-bomb", "a tree that says it has 2e9 leaves", STRUCTURE),
        "leaves_negative": (change(text, "num_leaves", None, -7), "broken-tree", "a tree with -7 leaves", STRUCTURE),
        "tree_sizes": (
            change(text, "tree_sizes", None, " ".join(["10"] * 12)),
            "broken-tree",
            "sizes of trees that are not theirs",
            STRUCTURE,
        ),
        "zero_trees": (no_trees, "constant", "no trees at all", r"(?i)tree"),
        "features_39": (narrowed(text, 39), "signature", "a model of 39 features", FEATURES),
        "multiclass": (
            text.replace("num_class=1", "num_class=3", 1).replace("num_tree_per_iteration=1", "num_tree_per_iteration=3", 1),
            "signature",
            "three scores a document",
            r"(?i)class|output|score",
        ),
    }
    return [Item(f"bad/lightgbm/{name}.txt", data.encode(), kind, why, expect) for name, (data, kind, why, expect) in made.items()]


def narrowed(text: str, features: int) -> str:
    """The head says fewer features; splits on those that are gone go to the last."""
    text = change(text, "max_feature_idx", None, features - 1)
    for field in ("feature_names", "feature_infos"):
        text = change(text, field, None, " ".join(re.search(rf"^{field}=(.*)$", text, re.MULTILINE).group(1).split(" ")[:features]))

    def clip(match):
        return "split_feature=" + " ".join(str(min(int(part), features - 1)) for part in match.group(1).split())

    return resized(re.sub(r"^split_feature=(.*)$", clip, text, flags=re.MULTILINE))


def raw_xgboost(trained: Trained) -> dict:
    return json.loads(bytes(trained.xgb.get_booster().save_raw("json")))


def bad_xgboost(trained: Trained) -> list:
    raw = raw_xgboost(trained)
    text = json.dumps(raw)

    def tree(field: str, place: int, value) -> str:
        changed = copy.deepcopy(raw)
        changed["learner"]["gradient_booster"]["model"]["trees"][0][field][place] = value
        return json.dumps(changed)

    def param(field: str, value) -> str:
        changed = copy.deepcopy(raw)
        changed["learner"]["gradient_booster"]["model"]["trees"][0]["tree_param"][field] = value
        return json.dumps(changed)

    def learner(**values) -> str:
        changed = copy.deepcopy(raw)
        changed["learner"]["learner_model_param"].update(values)
        return json.dumps(changed)

    first = raw["learner"]["gradient_booster"]["model"]["trees"][0]
    leaf = int(np.flatnonzero(np.array(first["left_children"]) == -1)[0])
    no_trees, no_model, shorter = (copy.deepcopy(raw) for _ in range(3))
    model = no_trees["learner"]["gradient_booster"]["model"]
    model.update(trees=[], tree_info=[], iteration_indptr=[0])
    model["gbtree_model_param"]["num_trees"] = "0"
    del no_model["learner"]["gradient_booster"]["model"]
    del shorter["learner"]["gradient_booster"]["model"]["trees"][0]["split_conditions"][-3:]
    made = {
        "truncated_half": (text[: len(text) // 2], "truncated", "the first half", TRUNCATED),
        "truncated_last_byte": (text[:-1], "truncated", "without its last brace", TRUNCATED),
        "child_out_of_range": (tree("left_children", 0, 9999), "broken-tree", "a child that is not there", STRUCTURE),
        "child_negative": (tree("left_children", 0, -7), "broken-tree", "a child with a negative number", STRUCTURE),
        "cycle_root": (tree("left_children", 0, 0), "broken-tree", "the root is its own child", STRUCTURE),
        "cycle_later": (tree("right_children", 1, 1), "broken-tree", "a node is its own child", STRUCTURE),
        "leaf_nan": (tree("split_conditions", leaf, float("nan")), "not-finite", "a leaf is NaN, which is no JSON either", FINITE),
        "leaf_infinity": (tree("split_conditions", leaf, float("inf")), "not-finite", "a leaf is Infinity", FINITE),
        "leaf_1e999": (text_leaf(raw, leaf, "1e999"), "not-finite", "a leaf is 1e999: infinite once it is read", FINITE + "|range|number"),
        "leaf_1e39": (text_leaf(raw, leaf, "1e39"), "not-finite", "a leaf is 1e39: infinite in 32 bits", FINITE + "|range|32"),
        "leaf_text": (tree("split_conditions", leaf, "much"), "broken-tree", "a leaf is a word", r"(?i)number|type|string|expected|float"),
        "feature_out_of_range": (tree("split_indices", 0, 4000), "broken-tree", "splits on feature 4000 of 40", FEATURES),
        "arrays_differ": (json.dumps(shorter), "broken-tree", "fewer split conditions than nodes", STRUCTURE),
        "nodes_differ": (param("num_nodes", "7"), "broken-tree", "says 7 nodes and has more", STRUCTURE),
        "nodes_many": (param("num_nodes", "4000000000000"), "memory-bomb", "says 4e12 nodes", STRUCTURE),
        "zero_trees": (json.dumps(no_trees), "constant", "no trees at all", r"(?i)tree"),
        "no_model": (json.dumps(no_model), "broken-tree", "a learner without a model", r"(?i)model|missing|tree|booster"),
        "features_39": (learner(num_feature="39"), "signature", "says 39 features, and uses 40", FEATURES),
        "multiclass": (learner(num_class="3"), "signature", "three scores a document", r"(?i)class|output|score"),
        "nested": (
            '{"learner":' + "[" * 100_000 + "]" * 100_000 + "}",
            "json-bomb",
            "100,000 lists, one within the other",
            r"(?i)recurs|deep|depth|nest|parse|expected",
        ),
        "nested_open": (
            '{"learner":' + '{"a":' * 200_000,
            "json-bomb",
            "200,000 objects that are never closed",
            r"(?i)recurs|deep|depth|nest|parse|expected|eof|end",
        ),
        "digits": (
            text_leaf(raw, leaf, "1" * 2_000_000),
            "json-bomb",
            "a number of two million digits",
            r"(?i)number|range|finite|inf|digits|size|large",
        ),
        "keys_twice": (
            text[:-1] + ',"learner":' + json.dumps(raw["learner"]) + "}",
            "broken-tree",
            "two learners: readers differ in which one they take",
            r"(?i)duplicate|twice|learner",
        ),
    }
    items = [Item(f"bad/xgboost/{name}.json", data.encode(), kind, why, expect) for name, (data, kind, why, expect) in made.items()]
    binary = bytes(trained.xgb.get_booster().save_raw("ubj"))
    return [*items, Item("bad/xgboost/ubj_named_json.json", binary, "not-json", "UBJSON, named .json", r"(?i)ubj|json|parse|expected|utf")]


def text_leaf(raw: dict, leaf: int, number: str) -> str:
    """A leaf's value written as `number`, which Python's own numbers cannot hold."""
    changed = copy.deepcopy(raw)
    changed["learner"]["gradient_booster"]["model"]["trees"][0]["split_conditions"][leaf] = "HERE"
    return json.dumps(changed).replace('"HERE"', number, 1)
