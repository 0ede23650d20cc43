"""Runs the recipe as a user does, for all three libraries, with a stand-in for `switchback` that notes its arguments.

python -m unittest test_recipe        in an environment with requirements.txt
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

RECIPE = Path(__file__).resolve().parent / "train_and_push.py"
STAND_IN = '#!/bin/sh\nfor part in "$@"; do printf "%s\\n" "$part"; done > "$NOTES"\nexit "${PUSH_ENDS:-0}"\n'


def judged_set(queries=60, missing=0.1, named=False, seed=5):
    """Queries of 3 to 12 documents with 8 features, some of them missing, some of them not exact in 32 bits."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(queries):
        documents = []
        for place in range(int(rng.integers(3, 13))):
            row = rng.normal(0, 1, 8)
            label = int(np.clip(round(row[0] + row[1] * 0.5 + rng.normal(0, 0.3) + 1), 0, 4))
            features = [None if rng.random() < missing else value for value in row.tolist()]
            features = {f"f {place}": value for place, value in enumerate(features)} if named else features
            documents.append({"id": f"d{place}", "features": features, "label": label})
        made.append({"query": f"q{number}", "documents": documents})
    return made


class Recipe(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        stand_in = self.folder / "switchback"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)

    def run_recipe(self, queries, *options, library="lightgbm", push_ends=0):
        """(exit code, all that it said)."""
        lines = queries if isinstance(queries, str) else "".join(json.dumps(query) + "\n" for query in queries)
        (self.folder / "judged.jsonl").write_text(lines)
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "NOTES": str(self.folder / "notes"),
            "PUSH_ENDS": str(push_ends),
        }
        command = [sys.executable, str(RECIPE), "judged.jsonl", "--model", "search", "--library", library, *options]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def notes(self):
        return (self.folder / "notes").read_text().splitlines()

    def test_each_library_trains_and_pushes(self):
        for library in ("lightgbm", "xgboost", "sklearn"):
            with self.subTest(library):
                code, said = self.run_recipe(
                    judged_set(), "--parent", "11", "--tag", "night=2026-08-01", "--code-revision", "9b2e1c4", library=library
                )
                self.assertEqual(code, 0, said)
                digest = hashlib.sha256((self.folder / "judged.jsonl").read_bytes()).hexdigest()
                notes = self.notes()
                self.assertEqual(notes[:7], ["model", "push", "search.onnx", "--model", "search", "--training-data", f"sha256:{digest}"])
                metric = notes[notes.index("--metric") + 1]
                self.assertGreater(float(metric.removeprefix("ndcg@10=")), 0.8)
                for option, value in (("--parent", "11"), ("--tag", "night=2026-08-01"), ("--code-revision", "9b2e1c4")):
                    self.assertEqual(notes[notes.index(option) + 1], value)
                self.check_model_and_golden()

    def check_model_and_golden(self):
        """The golden scores are what the file gives, and its signature is that of a ranking model."""
        model = onnx.load(self.folder / "search.onnx")
        self.assertEqual(len(json.loads({entry.key: entry.value for entry in model.metadata_props}["feature_names"])), 8)
        session = onnxruntime.InferenceSession(str(self.folder / "search.onnx"), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        self.assertEqual((given.name, given.type, given.shape[1]), ("features", "tensor(float)", 8))
        golden = [json.loads(line) for line in (self.folder / "golden.jsonl").read_text().splitlines()]
        self.assertEqual(len(golden), 12)
        for query in golden:
            rows = np.array(
                [[np.nan if value is None else value for value in document["features"]] for document in query["documents"]], np.float32
            )
            scores = session.run(None, {"features": rows})[0].reshape(-1)
            np.testing.assert_array_equal(scores, np.float32([document["score"] for document in query["documents"]]))

    def test_the_same_seed_gives_the_same_model(self):
        models = []
        for _ in range(2):
            self.assertEqual(self.run_recipe(judged_set(), "--seed", "3")[0], 0)
            models.append((self.folder / "golden.jsonl").read_bytes())
        self.assertEqual(*models)

    def test_the_exit_code_of_the_push_is_passed_on(self):
        self.assertEqual(self.run_recipe(judged_set(), push_ends=69)[0], 69)

    def test_nothing_is_pushed_when_scores_differ(self):
        code, said = self.run_recipe(judged_set(), "--tolerance", "0")
        self.assertEqual(code, 2, said)
        self.assertIn("the worst:", said)
        self.assertIn("document 'd", said)
        self.assertFalse((self.folder / "notes").exists())

    def test_features_by_name_are_put_in_order(self):
        queries = judged_set(named=True)
        first = self.run_recipe(queries)
        self.assertEqual(first[0], 0, first[1])
        golden = (self.folder / "golden.jsonl").read_text()
        for query in queries:
            for document in query["documents"]:
                document["features"] = dict(reversed(document["features"].items()))
        (self.folder / "names.json").write_text(json.dumps([f"f {place}" for place in range(8)]))
        self.assertEqual(self.run_recipe(queries, "--features", "names.json")[0], 0)

        def scores(text):
            return [document["score"] for line in text.splitlines() for document in json.loads(line)["documents"]]

        self.assertEqual(scores(golden), scores((self.folder / "golden.jsonl").read_text()))

    def test_golden_is_what_validation_reads(self):
        """Lists of numbers in the model's order, and texts as names, whatever there was."""
        queries = judged_set(missing=0.0, named=True)
        for number, query in enumerate(queries):
            query["query"] = [number, "a query", None][number % 3]
            for place, document in enumerate(query["documents"]):
                document["id"] = [place, f"d{place}", None][number % 3]
        del queries[2]["query"], queries[2]["documents"][0]["id"]
        code, said = self.run_recipe(queries)
        self.assertEqual(code, 0, said)
        self.assertIn("have no text as `query` or `id`, and get one", said)
        rows = [list(document["features"].values()) for query in queries for document in query["documents"]]
        rows = {tuple(row) for row in np.float32(rows).tolist()}
        for line in (self.folder / "golden.jsonl").read_text().splitlines():
            query = json.loads(line)
            self.assertIsInstance(query["query"], str)
            for document in query["documents"]:
                self.assertIsInstance(document["id"], str)
                self.assertIn(tuple(np.float32(document["features"]).tolist()), rows)

    def test_golden_says_what_validation_does_not_read(self):
        sys.path.insert(0, str(RECIPE.parent))
        from judged import Judged, write_golden

        documents = [{"id": "d", "features": [None], "label": 0}] * 1001
        lines = [{"query": "many", "documents": documents}, {"query": "missing", "documents": documents[:2]}]
        held_out = Judged(["f"], lines, [(0, 1001), (1001, 1003)], np.full((1003, 1), np.nan, np.float32), np.zeros(1003))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            write_golden(self.folder / "golden.jsonl", held_out, np.zeros(1003, np.float32))
        self.assertIn("1 queries of more than 1000 documents are left out", said.getvalue())
        self.assertIn("2 documents in", said.getvalue())
        self.assertEqual([json.loads(line)["query"] for line in (self.folder / "golden.jsonl").read_text().splitlines()], ["missing"])

    def test_queries_without_documents_are_left_out(self):
        code, said = self.run_recipe([*judged_set(), {"query": "nothing found", "documents": []}])
        self.assertEqual(code, 0, said)
        self.assertIn("1 queries without documents", said)

    def test_what_cannot_be_used_is_named(self):
        def first(change):
            queries = judged_set()
            change(queries[0]["documents"][0])
            return queries

        same = judged_set()
        for query in same:
            for document in query["documents"]:
                document["label"] = 2
        wrong = [
            (first(lambda document: document.update(label=1.5)), "line 1: label = 1.5"),
            (first(lambda document: document.update(label=-1)), "line 1: label = -1"),
            (first(lambda document: document["features"].pop()), "line 1: 8 features; 7 are expected"),
            (first(lambda document: document["features"].__setitem__(0, 1e300)), "infinite"),
            (first(lambda document: document.pop("label")), "line 1: KeyError: 'label'"),
            (same, "all labels to train with are 2"),
            (judged_set(1), "1 queries with documents"),
            ("not JSON\n", "line 1: JSONDecodeError"),
            ("", "0 queries"),
        ]
        for queries, says in wrong:
            with self.subTest(says):
                code, said = self.run_recipe(queries)
                self.assertEqual(code, 64, said)
                self.assertIn(says, said)

    def test_a_fitted_model_is_taken(self):
        import lightgbm

        rows = np.random.default_rng(3).normal(0, 1, (400, 8))
        booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, rows[:, 0] + rows[:, 1]), 20)
        booster.save_model(self.folder / "booster.txt")
        code, said = self.run_recipe(judged_set(missing=0.0), "--fitted", "booster.txt")
        self.assertEqual(code, 0, said)

    def fitted(self, make):
        """Fits an estimator for `judged_set`."""
        rows = np.random.default_rng(3).normal(0, 1, (200, 8))
        return make.fit(rows, rows[:, 0] + rows[:, 1])

    def test_what_cannot_be_converted_is_named(self):
        import lightgbm
        import xgboost
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        few = {"n_estimators": 3, "n_jobs": 1}
        for model, says in [
            (self.fitted(lightgbm.LGBMRegressor(verbose=-1, **few)), ("lightgbm.sklearn.LGBMRegressor", "--library lightgbm")),
            (self.fitted(xgboost.XGBRegressor(**few)), ("xgboost.sklearn.XGBRegressor", "--library xgboost")),
            (self.fitted(make_pipeline(StandardScaler(), xgboost.XGBRegressor(**few))), ("StandardScaler, xgboost", "a pipeline of such")),
            (self.fitted(KernelRidge()), ("sklearn.kernel_ridge.KernelRidge", "that skl2onnx converts")),
            ({"model": 1}, ("a dict, which predicts nothing", "must be a fitted estimator")),
        ]:
            with self.subTest(says[0]):
                (self.folder / "model.pkl").write_bytes(pickle.dumps(model))
                code, said = self.run_recipe(judged_set(), "--fitted", "model.pkl", library="sklearn")
                self.assertEqual((code, "Traceback" in said), (64, False), said)
                for words in says:
                    self.assertIn(words, said)

    def test_a_fitted_model_of_xgboost_is_taken(self):
        import xgboost

        regressor = self.fitted(xgboost.XGBRegressor(n_estimators=3, n_jobs=1))
        rows = np.random.default_rng(3).normal(0, 1, (200, 8))
        classifier = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(rows, rows[:, 0] > 0)
        for model, name, ends, says in [
            (regressor, "regressor.json", 0, "wrote"),
            (regressor, "regressor.ubj", 0, "wrote"),
            (classifier, "classifier.json", 64, "its objective is binary:logistic: must be one of rank:*, reg:squarederror"),
        ]:
            with self.subTest(name):
                model.save_model(self.folder / name)
                code, said = self.run_recipe(judged_set(), "--fitted", name, library="xgboost")
                self.assertEqual(code, ends, said)
                self.assertIn(says, said)

    def test_thresholds_decide_the_same_in_32_bits(self):
        sys.path.insert(0, str(RECIPE.parent))
        from train_and_push import thresholds_in_32_bits

        rng = np.random.default_rng(9)
        exact = rng.normal(0, 1, 1000) * 10.0 ** rng.integers(-30, 30, 1000)
        line = "threshold=" + " ".join(map(repr, exact.tolist()))
        text = thresholds_in_32_bits(f"tree_sizes=1\n\nTree=0\n{line}\n\nend of trees\n")
        rounded = np.array(text.split("threshold=")[1].split("\n")[0].split(), np.float64)
        np.testing.assert_array_equal(rounded.astype(np.float32), rounded)
        near = exact.astype(np.float32)
        for step in (near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))):
            np.testing.assert_array_equal(step.astype(np.float64) <= exact, step <= rounded.astype(np.float32))
        self.assertIn(f"tree_sizes={text.index('end of trees') - text.index('Tree=0')}\n", text)

    def test_a_missing_program_is_named(self):
        code, said = self.run_recipe(judged_set(), "--switchback", "no-such-program")
        self.assertEqual((code, "no-such-program: no such program" in said), (64, True), said)


if __name__ == "__main__":
    unittest.main()
