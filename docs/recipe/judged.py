"""A judged set in JSON lines: reading it, holding queries out, measuring a ranking, and writing golden scores beside it."""

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


MOST_DOCUMENTS = 1_000  # of a query that `switchback model validate` takes


class Unusable(Exception):
    """Bad usage or data; the message is for a person."""


@dataclass
class Judged:
    """One row a document. `queries` are the lines, with texts as names; `rows[i]` are (start, end) of query i's documents."""

    names: list
    queries: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    features: np.ndarray = None
    labels: np.ndarray = None

    def only(self, chosen):
        """The chosen queries."""
        places = np.concatenate([np.arange(*self.rows[query]) for query in chosen])
        ends = np.cumsum([self.rows[query][1] - self.rows[query][0] for query in chosen])
        rows = list(zip([0, *ends[:-1]], ends))
        return Judged(self.names, [self.queries[query] for query in chosen], rows, self.features[places], self.labels[places])

    @property
    def groups(self):
        return [end - start for start, end in self.rows]


def read_names(path: Path) -> list:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise Unusable(f"{path}: must be a JSON array of different names")
    return names


def read_judged(path: Path, names) -> Judged:
    """All queries that have documents. Says the line of what is wrong."""
    judged, features, labels = Judged(names), [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{path}: {error}") from None
    empty = renamed = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            query = json.loads(line)
            documents = query["documents"]
            for document in documents:
                row, judged.names = one_row(document["features"], judged.names)
                features.append(row)
                labels.append(one_label(document["label"]))
            renamed += with_texts(query, number)
        except Unusable as error:
            raise Unusable(f"{path}, line {number}: {error}") from None
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise Unusable(f"{path}, line {number}: {type(error).__name__}: {error}") from None
        if documents:
            judged.queries.append(query)
            judged.rows.append((len(features) - len(documents), len(features)))
        empty += not documents
    if empty:
        print(f"{empty} queries without documents are left out", file=sys.stderr)
    if renamed:
        print(f"{renamed} queries and documents have no text as `query` or `id`, and get one", file=sys.stderr)
    if len(judged.queries) < 2:
        raise Unusable(f"{path}: {len(judged.queries)} queries with documents; at least 2 are needed, to train with and to measure with")
    judged.features, judged.labels = np.array(features, np.float32), np.array(labels, np.int64)
    if np.isinf(judged.features).any():
        raise Unusable(f"{path}: a feature is infinite, or does not fit into 32 bits")
    return judged


def one_row(features, names):
    """(numbers in the model's order, names). Objects are put in order; lists are taken as they are."""
    if isinstance(features, dict):
        names = names or list(features)
        if set(names) != set(features):
            raise Unusable(f"features differ from the model's: {sorted(set(names) ^ set(features))[:5]}")
        features = [features[name] for name in names]
    names = names or [f"feature_{place}" for place in range(len(features))]
    if len(features) != len(names):
        raise Unusable(f"{len(features)} features; {len(names)} are expected")
    return [math.nan if value is None else float(value) for value in features], names


def with_texts(query, number: int) -> int:
    """Names a query and its documents by texts: numbers as they are written, what has no name by its line or place. So many were changed."""
    changed = 0
    documents = [(document, "id", str(place)) for place, document in enumerate(query["documents"])]
    for named, key, otherwise in [(query, "query", f"line {number}"), *documents]:
        name = named.get(key)
        if not isinstance(name, str):
            named[key] = otherwise if name is None else json.dumps(name)
            changed += 1
    return changed


def one_label(label) -> int:
    if isinstance(label, bool) or not float(label).is_integer() or not 0 <= label <= 30:
        raise Unusable(f"label = {label}: must be a whole number from 0 to 30")
    return int(label)


def split(judged: Judged, share: float, seed: int):
    """Whole queries go to one side or the other."""
    if not 0 < share < 1:
        raise Unusable(f"--held-out = {share}: must be between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(judged.queries))
    count = min(max(1, round(share * len(order))), len(order) - 1)
    training, held_out = judged.only(sorted(order[count:])), judged.only(sorted(order[:count]))
    if len(set(training.labels)) < 2:
        raise Unusable(f"all labels to train with are {training.labels[0]}: there is nothing to learn")
    return training, held_out


def ranking(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")


def ndcg_at_10(judged: Judged, scores: np.ndarray) -> float:
    """The mean over queries, gain 2^label - 1, ties in the documents' order; a query without a useful document counts 1."""
    values = []
    for start, end in judged.rows:
        gains = 2.0 ** judged.labels[start:end] - 1.0
        ranked, best = gains[ranking(scores[start:end])][:10], np.sort(gains)[::-1][:10]
        discounts = 1.0 / np.log2(np.arange(2, len(best) + 2))
        values.append(float(ranked @ discounts / (best @ discounts)) if best.sum() > 0 else 1.0)
    return float(np.mean(values))


def write_golden(path: Path, held_out: Judged, scores: np.ndarray):
    """As `switchback model validate --judged` reads it: the lines, with features as lists in the model's order and 32 bits, and ONNX
    Runtime's score of each document. Missing features are null, which it does not read; that is said, and what is left out."""
    left_out = missing = 0
    with path.open("w", encoding="utf-8") as out:
        for query, (start, end) in zip(held_out.queries, held_out.rows):
            if end - start > MOST_DOCUMENTS:
                left_out += 1
                continue
            documents = []
            for document, row, score in zip(query["documents"], held_out.features[start:end], scores[start:end]):
                features = [None if np.isnan(value) else float(str(value)) for value in row]
                documents.append({**document, "features": features, "score": float(str(score))})
                missing += None in features
            out.write(json.dumps({**query, "documents": documents}, separators=(",", ":"), allow_nan=False) + "\n")
    if left_out:
        print(f"{left_out} queries of more than {MOST_DOCUMENTS} documents are left out of {path}", file=sys.stderr)
    if missing:
        said = "`switchback model validate` takes numbers alone: fill them in for it"
        print(f"{missing} documents in {path} have missing features (null); {said}", file=sys.stderr)
