"""Writes a corpus of model files, good and bad, to test a validation gate with.

  make.py OUT_DIR [--seed 2024] [--size-limit BYTES]

OUT_DIR/corpus.json lists the files: {"models": [{"file", "verdict": "good" | "bad", "class", "why_one_line", "expect"}, ...], ...}.
`expect` is a regular expression that a refusal must match; it is empty for the good. Beside it are judged.jsonl, queries with labels
that no model was trained on, and live.onnx, the model that candidates are compared with. The same seed and the same libraries
(requirements.txt) give the same bytes. Nothing in the corpus is ever loaded here, but for ONNX files whose bytes were damaged by
chance: ONNX Runtime tries those in a child process, since only broken ones are kept.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # sets are pickled in the order of their hashes
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import bad_archives
import bad_onnx_behaviour
import bad_onnx_files
import bad_onnx_unsafe
import bad_pickle_opcodes
import bad_pickles
import bad_trees
import data
import good_onnx
import good_pickles
from trained import Trained, from_lightgbm, to_bytes

LIBRARIES = ["lightgbm", "numpy", "onnx", "onnxmltools", "onnxruntime", "scikit-learn", "skl2onnx", "xgboost-cpu", "joblib"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="made where it is missing; files of the same names are replaced")
    parser.add_argument("--seed", type=int, default=2024, help="of the judged set and of the damaged bytes (default %(default)s)")
    parser.add_argument(
        "--size-limit",
        type=int,
        default=16 << 20,
        metavar="BYTES",
        help="the file that is too large is larger than this (default %(default)s)",
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    trained = Trained(data.generate(arguments.seed, data.TRAIN_QUERIES))
    judged = data.generate(arguments.seed + 1, data.JUDGED_QUERIES)
    live = to_bytes(from_lightgbm(trained.live))
    items = [
        *good_onnx.items(trained),
        *good_pickles.items(trained),
        *bad_onnx_files.items(trained, judged, arguments.seed),
        *bad_onnx_unsafe.items(trained),
        *bad_onnx_behaviour.items(trained, arguments.size_limit),
        *bad_trees.items(trained),
        *bad_pickles.items(),
        *bad_pickle_opcodes.items(),
        *bad_archives.items(),
    ]
    write(arguments, items, {"live.onnx": live, "judged.jsonl": data.jsonl(judged).encode()})
    counts = {verdict: sum(item.verdict == verdict for item in items) for verdict in ("good", "bad")}
    print(f"{counts['good']} good and {counts['bad']} bad in {arguments.out_dir}, {time.monotonic() - start:.1f} s")
    return 0


def write(arguments, items: list, beside: dict):
    """All files, and last the list of them."""
    names = [item.file for item in items]
    assert len(names) == len(set(names)), "two files of one name"
    for item in items:
        beside = {**beside, item.file: item.data, **item.beside}
    for file, content in beside.items():
        path = arguments.out_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    listed = {
        "seed": arguments.seed,
        "size_limit_bytes": arguments.size_limit,
        "features": data.FEATURES,
        "live": "live.onnx",
        "judged": "judged.jsonl",
        "made_with": {library: version(library) for library in LIBRARIES},
        "models": [
            {**item.entry(), "bytes": len(item.data), "sha256": hashlib.sha256(item.data).hexdigest()}
            for item in sorted(items, key=lambda item: item.file)
        ],
    }
    (arguments.out_dir / "corpus.json").write_text(json.dumps(listed, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
