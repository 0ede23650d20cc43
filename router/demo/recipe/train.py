"""Trains the demo's rankers and writes everything that router/demo/ commits.

  train.py [OUT]   writes into OUT, by default router/demo
  train.py --check trains into a temporary folder and compares that with what is committed; exit 1 when it differs
  train.py --cv    cross-validates the settings in TRIED

Models, all LambdaMART (LightGBM) exported to ONNX, input `features` FP32 [-1, 40], output `variable` FP32 [-1, 1]:
  ranker_v1        good: what runs today
  ranker_v2        slightly better: more trees
  ranker_shuffled  v2's recipe, but its training saw the columns in another order than it is served with
  ranker_inverted  v2's recipe, trained on flipped labels: puts the worst on top
The settings were picked with --cv, by cross-validation on the training queries; the test queries only measure.
"""

import gzip
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded: it would report models to its vendor

import lightgbm
import numpy as np
import onnx
import onnxruntime
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from generate import FEATURES, Queries, generate

TRAIN_SEED, TRAIN_QUERIES = 20_240_501, 1_500
TEST_SEED, TEST_QUERIES = 20_240_502, 300
OPSET = 15
GOLDEN_QUERIES = 5
SCORE_TOLERANCE = 1e-6
COMMITTED = Path(__file__).resolve().parent.parent

V1 = dict(rounds=40, leaves=5, learning_rate=0.10)
V2 = dict(rounds=130, leaves=8, learning_rate=0.09)
TRIED = [V1, dict(rounds=20, leaves=7, learning_rate=0.15), dict(rounds=60, leaves=8, learning_rate=0.10), V2]


def fit(queries: Queries, rounds: int, leaves: int, learning_rate: float, columns=None, flip_labels=False):
    """Trains one model; `columns` reorders the features that training sees."""
    features = queries.features if columns is None else queries.features[:, columns]
    labels = queries.labels.max() - queries.labels if flip_labels else queries.labels
    settings = dict(
        objective="lambdarank", num_leaves=leaves, learning_rate=learning_rate, min_data_in_leaf=50, lambda_l2=2.0,
        feature_fraction=0.6, lambdarank_truncation_level=15, seed=7, deterministic=True, force_row_wise=True,
        num_threads=1, verbose=-1,
    )
    return lightgbm.train(settings, lightgbm.Dataset(features, labels, group=queries.sizes), rounds)


def export(model, name: str, path: Path):
    """Writes the model as ONNX, with the names of its features as metadata, so that a server can accept them by name."""
    exported = convert_lightgbm(model, initial_types=[("features", FloatTensorType([None, len(FEATURES)]))], target_opset=OPSET)
    exported.graph.name = name
    imports = sorted(exported.opset_import, key=lambda entry: entry.domain)  # the converter orders them by chance
    del exported.opset_import[:]
    exported.opset_import.extend(imports)
    onnx.helper.set_model_props(exported, {"feature_names": json.dumps(FEATURES)})
    onnx.checker.check_model(exported)
    path.write_bytes(exported.SerializeToString(deterministic=True))


def score(path: Path, features: np.ndarray) -> np.ndarray:
    """Scores of the ONNX file, as a server computes them. They differ from LightGBM's own on a few documents: ONNX trees
    compare in 32 bits."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"features": features})[0].reshape(-1)


def ndcg_at_10(queries: Queries, scores: np.ndarray) -> np.ndarray:
    """Per query, with gain 2^label - 1; ties keep the documents' order. A query without any useful document counts 1."""
    values = []
    for start, end in queries.spans():
        gains = 2.0 ** queries.labels[start:end] - 1.0
        ranked = gains[np.argsort(-scores[start:end], kind="stable")][:10]
        best = np.sort(gains)[::-1][:10]
        discounts = 1.0 / np.log2(np.arange(2, len(best) + 2))
        values.append((ranked * discounts).sum() / (best * discounts).sum() if best.sum() > 0 else 1.0)
    return np.array(values)


def reciprocal_rank(queries: Queries, scores: np.ndarray) -> np.ndarray:
    """Per query: one over the rank of the first document with label 3 or more; 0 when there is none."""
    values = []
    for start, end in queries.spans():
        good = queries.labels[start:end][np.argsort(-scores[start:end], kind="stable")] >= 3
        values.append(1.0 / (np.argmax(good) + 1) if good.any() else 0.0)
    return np.array(values)


def cross_validate(queries: Queries, folds=5):
    """Prints NDCG@10 of every setting in TRIED on held-out training queries."""
    query_of_row = np.repeat(np.arange(len(queries.sizes)), queries.sizes)
    for settings in TRIED:
        values = []
        for fold in range(folds):
            held_out = np.arange(len(queries.sizes)) % folds == fold
            parts = []
            for mask in (~held_out, held_out):
                rows = mask[query_of_row]
                parts.append(Queries([], queries.sizes[mask], queries.features[rows], queries.labels[rows]))
            model = fit(parts[0], **settings)
            values.extend(ndcg_at_10(parts[1], model.predict(parts[1].features)))
        print(f"{settings}: {np.mean(values):.4f} +- {np.std(values) / len(values) ** 0.5:.4f}", flush=True)


def number(value: np.float32):
    """The shortest decimal that reads back as the same 32-bit float; whole numbers without a point."""
    return int(value) if float(value).is_integer() else float(str(value))


def write_queries(queries: Queries, path: Path):
    """One JSON object a line: query, documents with id, label and the 40 features in order."""
    lines = []
    for index, (text, (start, end)) in enumerate(zip(queries.texts, queries.spans())):
        documents = [
            dict(id=f"d{index}-{row - start}", label=int(queries.labels[row]), features=[number(v) for v in queries.features[row]])
            for row in range(start, end)
        ]
        lines.append(json.dumps(dict(query=text, documents=documents), separators=(",", ":")) + "\n")
    path.write_bytes(gzip.compress("".join(lines).encode(), 9, mtime=0))


def report_model(queries: Queries, path: Path):
    """What one model is worth on the test queries; and its NDCG@10 of each query, for paired comparisons."""
    scores = score(path, queries.features)
    assert np.isfinite(scores).all()
    ndcg = ndcg_at_10(queries, scores)
    golden = [[float(str(value)) for value in scores[start:end]] for start, end in queries.spans()[:GOLDEN_QUERIES]]
    entry = dict(
        file=path.name, bytes=path.stat().st_size, sha256=sha256(path), ndcg10=round(float(ndcg.mean()), 5),
        mrr=round(float(reciprocal_rank(queries, scores).mean()), 5), golden_scores=golden,
    )
    print(f"{path.name}: {entry['bytes']} bytes, NDCG@10 {entry['ndcg10']:.4f}, MRR {entry['mrr']:.4f}", flush=True)
    return entry, ndcg


def paired(left: np.ndarray, right: np.ndarray):
    """Mean difference of `left` - `right` over the queries, with its standard error."""
    difference = left - right
    mean, se = difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5
    return dict(mean=round(float(mean), 5), se=round(float(se), 5), z=round(float(mean / se), 2))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check() -> int:
    """Makes everything again and compares: the queries number by number, the models by their scores on every test document."""
    with tempfile.TemporaryDirectory(prefix="ranker-recipe-") as folder:
        make(Path(folder))
        return compare(Path(folder))


def compare(made_again: Path) -> int:
    """1 when what is in `made_again` differs from what is committed, 0 otherwise."""
    differing = 0
    test = generate(TEST_SEED, TEST_QUERIES)
    kept, again = (gzip.decompress((folder / "queries.jsonl.gz").read_bytes()) for folder in (COMMITTED, made_again))
    print(f"queries.jsonl.gz: {'the same' if kept == again else 'DIFFERS'}")
    differing += kept != again
    for path in sorted((made_again / "models").glob("*.onnx")):
        committed = COMMITTED / "models" / path.name
        apart = np.abs(score(path, test.features) - score(committed, test.features)).max()
        identical = "byte for byte the same" if sha256(path) == sha256(committed) else "other bytes"
        print(f"{path.name}: largest difference of a score {apart:.1e}, {identical}")
        differing += apart > SCORE_TOLERANCE
    return 1 if differing else 0


def make(out: Path):
    """Writes the queries, the models and the report into `out`."""
    train = generate(TRAIN_SEED, TRAIN_QUERIES)
    (out / "models").mkdir(parents=True, exist_ok=True)
    test = generate(TEST_SEED, TEST_QUERIES)
    write_queries(test, out / "queries.jsonl.gz")
    shuffled = np.random.default_rng(5).permutation(len(FEATURES))
    recipes = {
        "ranker_v1": V1,
        "ranker_v2": V2,
        "ranker_shuffled": dict(V2, columns=shuffled),
        "ranker_inverted": dict(V2, flip_labels=True),
    }
    models, ndcg = {}, {}
    for name, recipe in recipes.items():
        path = out / "models" / f"{name}.onnx"
        export(fit(train, **recipe), name, path)
        models[name], ndcg[name] = report_model(test, path)
    rng = np.random.default_rng(3)
    report = dict(
        features=FEATURES,
        queries=dict(
            file="queries.jsonl.gz", sha256=sha256(out / "queries.jsonl.gz"), queries=TEST_QUERIES,
            documents=len(test.labels), labels=np.bincount(test.labels).tolist(),
        ),
        models=models,
        random_order=dict(ndcg10=round(float(ndcg_at_10(test, rng.random(len(test.labels))).mean()), 5)),
        ndcg10_difference={
            f"{name} - ranker_v1": paired(values, ndcg["ranker_v1"]) for name, values in ndcg.items() if name != "ranker_v1"
        },
    )
    (out / "models" / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["ndcg10_difference"], indent=1))


def main() -> int:
    if "--check" in sys.argv:
        return check()
    if "--cv" in sys.argv:
        cross_validate(generate(TRAIN_SEED, TRAIN_QUERIES))
    else:
        make(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
