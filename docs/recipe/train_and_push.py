#!/usr/bin/env python3
"""Trains a ranker on a judged set, writes it as ONNX, proves that ONNX Runtime gives the same scores, and pushes it to the registry.

A judged set has one query a line, as JSON: {"query": "q1", "documents": [{"id": "d1", "features": [0.5, ...], "label": 0}, ...]}.
Labels are whole numbers from 0 (useless) up. A feature that is missing is null or NaN. Instead of a list, `features` may be an object
by name, with the same names in every document; they become the model's metadata `feature_names`, in the order of --features or of
the first document. `query` and `id` are texts; a number becomes one, and what has none gets one.

Exit codes: 0 pushed, 2 the ONNX model does not score as the native one does (nothing is pushed), 64 bad usage or data, or a model that
cannot be written as ONNX; else what `switchback model push` ended with.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded: it would report models to its vendor

import numpy as np
from judged import Judged, Unusable, ndcg_at_10, ranking, read_judged, read_names, split, write_golden

EXAMPLES = """\
examples:
  train_and_push.py judged.jsonl --model search --library lightgbm
  train_and_push.py judged.jsonl --model search --library xgboost --parent 11 --tag night=2026-08-01 --alias candidate
  train_and_push.py judged.jsonl --model search --library sklearn --set max_iter=200 --seed 3
  train_and_push.py judged.jsonl --model search --library lightgbm --fitted booster.txt   # already trained
  train_and_push.py judged.jsonl --model search --library lightgbm --no-push --out build/

Scores differ: ONNX trees compare in 32 bits, training may have chosen thresholds in 64. A document whose feature lies between a
threshold and its 32-bit neighbour goes the other way. The recipe reads features as 32 bits and rounds LightGBM's thresholds down to 32
bits, which decides the same for every 32-bit feature; XGBoost is 32 bits throughout, and skl2onnx rounds by itself. What stays are sums
in 32 bits: raise --tolerance where they do no harm. A whole leaf's difference on documents with missing features: give training some
too, since LightGBM takes a missing value for 0 where it saw none.
"""
OPSET = 15  # ONNX Runtime 1.17 to 1.32 read it, and all three converters write it
LIBRARIES = ("lightgbm", "xgboost", "sklearn")
# Objectives of XGBoost whose score is a sum of leaves.
SUMS = ("rank:", "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror")
# What to do with a pickle that skl2onnx does not convert, by the package of its model.
INSTEAD = {
    "lightgbm": "save it with booster_.save_model(FILE), and say --library lightgbm --fitted FILE",
    "xgboost": "save it with save_model('FILE.json'), and say --library xgboost --fitted FILE.json",
    "": "fit an estimator, or a pipeline of such, that skl2onnx converts; or write the ONNX file yourself, and `switchback model push` it",
}
NOT_THE_SAME, BAD_USAGE = 2, 64


def main(arguments=None) -> int:
    options = parse(arguments)
    try:
        return run(options)
    except Unusable as error:
        print(f"train_and_push: {error}", file=sys.stderr)
        return BAD_USAGE


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", type=Path, help="the judged set, JSON lines")
    parser.add_argument("--model", required=True, metavar="NAME", help="its name in the registry")
    parser.add_argument("--library", required=True, choices=LIBRARIES)
    parser.add_argument(
        "--fitted",
        type=Path,
        metavar="FILE",
        help="take this model and train none: LightGBM text; XGBoost JSON or UBJ, of a ranker, a regressor or a Booster; "
        "a pickle of your own with an estimator that skl2onnx converts",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the library's estimator; may be said again"
    )
    parser.add_argument("--features", type=Path, metavar="FILE", help="the features' names in the model's order, a JSON array")
    parser.add_argument(
        "--held-out", type=float, default=0.2, metavar="SHARE", help="of the queries, to measure with (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the split and of training (default %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference of a score, relative to the spread of scores (default %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("."), metavar="DIR", help="where NAME.onnx and golden.jsonl are written (default: here)"
    )
    parser.add_argument("--metric", action="append", default=[], metavar="NAME=NUMBER", help="passed on, beside ndcg@10; may be said again")
    for option, metavar in (("parent", "N"), ("code-revision", "TEXT"), ("why", "TEXT"), ("registry", "URL"), ("config", "FILE")):
        parser.add_argument(f"--{option}", metavar=metavar, help="passed on to `switchback model push`")
    for option, metavar in (("tag", "NAME=TEXT"), ("alias", "NAME")):
        parser.add_argument(f"--{option}", action="append", default=[], metavar=metavar, help="passed on; may be said again")
    parser.add_argument("--switchback", default="switchback", metavar="PROGRAM", help="the program (default %(default)s)")
    parser.add_argument("--no-push", action="store_true", help="stop before pushing, and print the command")
    try:
        return parser.parse_args(arguments)
    except SystemExit as stopped:
        sys.exit(BAD_USAGE if stopped.code else 0)


def run(options) -> int:
    names = read_names(options.features) if options.features else None
    judged = read_judged(options.judged, names)
    training, held_out = split(judged, options.held_out, options.seed)
    native = Native(options, training)
    onnx_bytes = native.to_onnx(judged.names)
    scores = onnx_scores(onnx_bytes, held_out.features)
    agreed, report = compare(held_out, native.predict(held_out.features), scores, options.tolerance)
    print(report)
    if not agreed:
        return NOT_THE_SAME
    options.out.mkdir(parents=True, exist_ok=True)
    model = options.out / f"{options.model}.onnx"
    model.write_bytes(onnx_bytes)
    write_golden(options.out / "golden.jsonl", held_out, scores)
    quality = ndcg_at_10(held_out, scores)
    print(f"ndcg@10 {quality:.4f} on {len(held_out.queries)} held-out queries; wrote {model} and {options.out / 'golden.jsonl'}")
    return push(options, model, quality)


# The native model


class Native:
    """A model of one of the three libraries: `predict`, and `to_onnx`."""

    def __init__(self, options, training: Judged):
        self.library, self.count = options.library, training.features.shape[1]
        self.model = self.load(options.fitted) if options.fitted else self.train(options, training)

    def train(self, options, training: Judged):
        chosen = {"random_state": options.seed, **dict(parameter(text) for text in options.set)}
        rows, labels, groups = training.features, training.labels, training.groups
        try:
            if self.library == "lightgbm":
                import lightgbm

                fixed = dict(deterministic=True, force_row_wise=True, verbose=-1, n_jobs=1)
                gains = [2**label - 1 for label in range(int(labels.max()) + 1)]
                ranker = lightgbm.LGBMRanker(**{"label_gain": gains, **fixed, **chosen})
                return ranker.fit(rows, labels, group=groups).booster_
            if self.library == "xgboost":
                import xgboost

                return xgboost.XGBRanker(**{"n_jobs": 1, **chosen}).fit(rows, labels, group=groups).get_booster()
            from sklearn.ensemble import HistGradientBoostingRegressor

            return HistGradientBoostingRegressor(**{"early_stopping": False, **chosen}).fit(rows, labels)
        except Exception as error:  # each library has errors of its own
            raise Unusable(f"{self.library} cannot be trained so: {error}") from None

    def load(self, path: Path):
        try:
            if self.library == "lightgbm":
                import lightgbm

                return lightgbm.Booster(model_file=str(path))
            if self.library == "xgboost":
                import xgboost

                return summing(xgboost.Booster({"nthread": 1}, model_file=path))
            import pickle

            with path.open("rb") as file:
                model = pickle.load(file)  # runs whatever is in it: only files of your own
            if not hasattr(model, "predict"):
                raise Unusable(f"a {type_of(model)}, which predicts nothing: must be a fitted estimator")
            return model
        except Exception as error:  # each library has errors of its own
            raise Unusable(f"{path}: {first_line(error)}") from None

    def predict(self, features: np.ndarray) -> np.ndarray:
        try:
            if self.library == "xgboost":
                best = self.model.attr("best_iteration")  # of early stopping: the converter takes no tree beyond it either
                return np.asarray(self.model.inplace_predict(features, iteration_range=(0, int(best) + 1 if best else 0)), np.float64)
            return np.asarray(self.model.predict(features), np.float64).reshape(-1)
        except Exception as error:
            raise Unusable(f"the model cannot score {features.shape[1]} features: {error}") from None

    def to_onnx(self, names: list) -> bytes:
        """One input `features`, FP32 [None, F]; one FP32 score a document; the names of the features as metadata."""
        import onnx

        try:
            model = getattr(self, f"{self.library}_to_onnx")()
            onnx.helper.set_model_props(model, {"feature_names": json.dumps(names)})
            onnx.checker.check_model(model)
            return model.SerializeToString(deterministic=True)
        except Exception as error:  # each converter has errors of its own
            package = type(self.model).__module__.partition(".")[0]
            instead = f"; {INSTEAD.get(package, INSTEAD[''])}" if self.library == "sklearn" else ""
            raise Unusable(f"a {type_of(self.model)} cannot be written as ONNX: {first_line(error)}{instead}") from None

    def lightgbm_to_onnx(self):
        import lightgbm
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        model = lightgbm.Booster(model_str=thresholds_in_32_bits(self.model.model_to_string()))
        return convert_lightgbm(model, initial_types=[("features", FloatTensorType([None, self.count]))], target_opset=OPSET)

    def xgboost_to_onnx(self):
        """The converter knows no XGBRanker. The objective plays no part in a prediction, so a regressor of the same trees is the same."""
        import xgboost
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        raw = json.loads(self.model.save_raw("json"))
        raw["learner"]["objective"] = {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}
        raw["learner"]["feature_names"], raw["learner"]["feature_types"] = [], []
        regressor = xgboost.XGBRegressor()
        regressor.load_model(bytearray(json.dumps(raw).encode()))
        return convert_xgboost(regressor, initial_types=[("features", FloatTensorType([None, self.count]))], target_opset=OPSET)

    def sklearn_to_onnx(self):
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        return to_onnx(self.model, initial_types=[("features", FloatTensorType([None, self.count]))], target_opset=OPSET)


def first_line(error: Exception) -> str:
    """What it says: some say more, and a stack."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300].rstrip(".")


def type_of(model) -> str:
    """`sklearn.kernel_ridge.KernelRidge`, `dict`; of a pipeline, with the types of its steps."""
    kind = type(model)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    steps = ", ".join(type_of(step) for _, step in getattr(model, "steps", []))
    return f"{name} of {steps}" if steps else name


def summing(booster):
    """An XGBoost model whose scores are sums of leaves, as those of the ONNX model are."""
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    if not objective.startswith(SUMS):
        known = ", ".join(f"{name}*" if name.endswith(":") else name for name in SUMS)
        raise Unusable(f"its objective is {objective}: must be one of {known}")
    return booster


def parameter(text: str):
    """(name, value) of NAME=VALUE; the value is JSON where it can be, else text."""
    name, found, value = text.partition("=")
    if not found:
        raise Unusable(f"--set {text}: must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def thresholds_in_32_bits(text: str) -> str:
    """A LightGBM model's text with every threshold the largest 32-bit number not above it: x <= t stays the same for all 32-bit x."""

    def rounded(match):
        exact = np.array(match.group(1).split(), np.float64)
        near = exact.astype(np.float32)
        down = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
        return "threshold=" + " ".join(repr(float(value)) for value in down)

    text = re.sub(r"^threshold=(.+)$", rounded, text, flags=re.MULTILINE)
    # LightGBM cuts its trees apart by their sizes in bytes.
    trees = re.split(r"^(?=Tree=\d+$)", text[: text.index("end of trees")], flags=re.MULTILINE)[1:]
    return re.sub(r"^tree_sizes=.*$", "tree_sizes=" + " ".join(str(len(tree)) for tree in trees), text, count=1, flags=re.MULTILINE)


# Scores: the same, and how good


def onnx_scores(model: bytes, features: np.ndarray) -> np.ndarray:
    """As a server computes them: on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, {"features": features})[0].reshape(-1)
    except Exception as error:  # of its own
        raise Unusable(f"ONNX Runtime cannot run it: {first_line(error)}") from None


def compare(held_out: Judged, native: np.ndarray, scores: np.ndarray, tolerance: float):
    """(whether they agree, a report with the worst rows where they do not)."""
    spread = max(1e-12, float(np.ptp(native)))
    apart = np.abs(native - scores)
    apart[~np.isfinite(scores)] = math.inf
    same = sum((ranking(native[start:end]) == ranking(scores[start:end])).all() for start, end in held_out.rows)
    report = [
        f"largest difference of a score {apart.max():.3g}, of a spread of {spread:.3g}; {same} of {len(held_out.rows)} queries rank the same"
    ]
    agreed = bool(apart.max() <= tolerance * spread)
    if not agreed:
        report.append(
            f"more than {tolerance:g} of the spread on {(apart > tolerance * spread).sum()} of {len(apart)} documents; the worst:"
        )
        report += [
            f"  {place_of(held_out, row)}: native {native[row]:.9g}, ONNX {scores[row]:.9g}"
            for row in np.argsort(-apart, kind="stable")[:5]
        ]
        report.append("see `scores differ` in --help")
    return agreed, "\n".join(report)


def place_of(judged: Judged, row: int) -> str:
    for query, (start, end) in zip(judged.queries, judged.rows):
        if start <= row < end:
            return f"query {query.get('query', '?')!r}, document {query['documents'][row - start].get('id', row - start)!r}"
    return f"row {row}"


# The registry


def push(options, model: Path, quality: float) -> int:
    """What `switchback model push` ends with."""
    digest = hashlib.sha256(options.judged.read_bytes()).hexdigest()
    command = [options.switchback, "model", "push", str(model), "--model", options.model, "--training-data", f"sha256:{digest}"]
    command += ["--metric", f"ndcg@10={quality:.6f}"]
    for name, value in (
        ("code-revision", options.code_revision or git_revision()),
        *((name, getattr(options, name)) for name in ("parent", "why", "registry", "config")),
    ):
        command += [f"--{name}", value] if value else []
    for name in ("metric", "tag", "alias"):
        command += [part for value in getattr(options, name) for part in (f"--{name}", value)]
    if options.no_push:
        print("not pushed; the command is:", " ".join(shlex.quote(part) for part in command))
        return 0
    if shutil.which(options.switchback) is None:
        raise Unusable(f"{options.switchback}: no such program; name it with --switchback")
    return subprocess.run(command, check=False).returncode


def git_revision():
    """Of the folder this runs in; None where there is none."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
