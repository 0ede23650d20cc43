"""Writes three LightGBM rankers, as text: models.py OUT_DIR. Eight features; v1 has fewer trees than v2, and v3 is another one."""

import sys
from pathlib import Path

import lightgbm
import numpy

QUERIES, DOCUMENTS, FEATURES = 200, 20, 8


def main() -> None:
    random = numpy.random.default_rng(7)
    rows = random.normal(size=(QUERIES * DOCUMENTS, FEATURES))
    worth = rows[:, 0] + 0.5 * rows[:, 1] * rows[:, 2] + random.normal(scale=0.3, size=len(rows))
    labels = numpy.digitize(worth, [-1.0, 0.0, 1.0, 2.0])
    for name, trees, seed in [("v1", 20, 1), ("v2", 40, 1), ("v3", 40, 2)]:
        ranker = lightgbm.LGBMRanker(n_estimators=trees, random_state=seed, subsample=0.8, subsample_freq=1, verbosity=-1)
        ranker.fit(rows, labels, group=[DOCUMENTS] * QUERIES)
        ranker.booster_.save_model(Path(sys.argv[1]) / f"{name}.txt")


if __name__ == "__main__":
    main()
