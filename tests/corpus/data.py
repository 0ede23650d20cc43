"""A small synthetic learning-to-rank set: queries, documents with 40 features, labels 0 to 4 from a noisy hidden function.

Features 0-3 are of the query, 4-29 say something of the document, 30-39 nothing at all. Some are often zero, some are negative,
some are whole numbers, so that models which divide or take logarithms go wrong on a few documents. All are exact in 32 bits.
"""

import json
from dataclasses import dataclass

import numpy as np

FEATURES = 40
NAMES = [f"feature_{place:02d}" for place in range(FEATURES)]
DOCUMENTS = 12
TRAIN_QUERIES, JUDGED_QUERIES = 200, 120
LABEL_SHARES = [0.50, 0.24, 0.15, 0.08, 0.03]
SPARSE, COUNTS = slice(10, 14), slice(20, 24)


@dataclass
class Judged:
    """One row a document; each query has DOCUMENTS of them, in a row."""

    features: np.ndarray
    labels: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """How many rows each query has."""
        return np.full(len(self.labels) // DOCUMENTS, DOCUMENTS)

    def queries(self):
        """(features, labels) of each query."""
        return zip(self.features.reshape(-1, DOCUMENTS, FEATURES), self.labels.reshape(-1, DOCUMENTS))


def generate(seed: int, queries: int) -> Judged:
    """The same seed gives the same queries. The hidden function is the same for all seeds."""
    rng = np.random.default_rng(seed)
    rows = queries * DOCUMENTS
    features = rng.normal(0.0, 1.0, (rows, FEATURES))
    features[:, :4] = np.repeat(rng.normal(0.0, 1.0, (queries, 4)), DOCUMENTS, axis=0)
    features[:, SPARSE] *= rng.random((rows, 4)) < 0.6
    features[:, COUNTS] = rng.poisson(3.0, (rows, 4))
    features = np.round(features, 3).astype(np.float32)
    benefit = hidden(features.astype(np.float64)) + rng.normal(0.0, 0.8, rows)
    edges = np.quantile(benefit, np.cumsum(LABEL_SHARES)[:-1])
    return Judged(features, np.searchsorted(edges, benefit).astype(np.int64))


def hidden(x: np.ndarray) -> np.ndarray:
    """The benefit that labels are cut from: mostly linear, with some interactions, so that a linear model does well too."""
    weights = np.random.default_rng(1).uniform(0.3, 0.7, 12)
    linear = x[:, 4:16] @ (weights * np.resize([1, 1, -1], 12))
    return linear + 0.3 * x[:, 0] * x[:, 5] + 0.4 * np.maximum(x[:, 16], 0.0) + 0.15 * (x[:, 20] - 3.0) - 0.2 * (x[:, 6] > 1.0)


def jsonl(judged: Judged) -> str:
    """One query a line, with ids, features and labels."""
    lines = []
    for number, (features, labels) in enumerate(judged.queries(), 1):
        documents = [
            {"id": f"d{place}", "features": [float(str(value)) for value in row], "label": int(label)}
            for place, (row, label) in enumerate(zip(features, labels), 1)
        ]
        lines.append(json.dumps({"query": f"q{number}", "documents": documents}, separators=(",", ":")) + "\n")
    return "".join(lines)


def ndcg_at_10(judged: Judged, scores: np.ndarray) -> np.ndarray:
    """NDCG@10 of each query, gain 2^label - 1; equal scores keep the documents' order; a query without any use counts 1."""
    values = []
    for labels, given in zip(judged.labels.reshape(-1, DOCUMENTS), scores.reshape(-1, DOCUMENTS)):
        gains = 2.0**labels - 1.0
        ranked, best = gains[np.argsort(-given, kind="stable")][:10], np.sort(gains)[::-1][:10]
        discounts = 1.0 / np.log2(np.arange(2, len(best) + 2))
        values.append((ranked @ discounts) / (best @ discounts) if best.sum() > 0 else 1.0)
    return np.array(values)
