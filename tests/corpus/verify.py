"""Looks what really becomes of each file of a corpus, so that its labels are true, and writes a Markdown table.

  verify.py CORPUS_DIR [--to verify.md]     exits 1 when something contradicts a label

ONNX files go through ONNX Runtime in a child process (10 s, 2 GiB), LightGBM and XGBoost files through their own library in one, good
pickles are loaded in one, and bad pickles are never loaded: follow.py follows what they would call. Some bad files do no harm here and
are bad all the same, because of what is written in them (external data, a NaN that no judged document reaches): these are said to be
caught `by reading`.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import data
import native
import numpy as np
from probe import probe

HERE = Path(__file__).resolve().parent
TIMES_SLOWER = 20
WORSE_T = -2.33  # one-sided, 1 %
LOAD_GOOD = """
import sys, joblib, numpy, pickle
path = sys.argv[1]
thing = numpy.load(path) if path.endswith((".npz", ".npy")) else pickle.load(open(path, "rb")) if path.endswith(".pkl") else joblib.load(path)
print(type(thing).__name__)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS_DIR")
    parser.add_argument("--to", type=Path, default=Path("verify.md"), help="the table (default %(default)s)")
    arguments = parser.parse_args()
    corpus = json.loads((arguments.corpus / "corpus.json").read_text())
    judged = read_judged(arguments.corpus / corpus["judged"])
    live = probe((arguments.corpus / corpus["live"]).read_bytes(), judged)
    with tempfile.TemporaryDirectory(prefix="corpus-canary-") as canary:
        os.environ["CORPUS_CANARY"] = canary
        onnx = [row for row in corpus["models"] if "/onnx/" in row["file"]]
        others = [row for row in corpus["models"] if "/onnx/" not in row["file"]]
        for row in onnx:
            row["what"], row["caught"] = look_at_onnx(arguments.corpus, row, corpus, judged, live)
        np.savez(Path(canary) / "judged.npz", features=judged.features, labels=judged.labels)
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda row: look_at_other(arguments.corpus / row["file"], row, Path(canary) / "judged.npz"), others)
            for row, (what, caught) in zip(others, found):
                row["what"], row["caught"] = what, caught
        ran = sorted(path.name for path in Path(canary).glob("EXECUTED_*"))
    wrong = [row["file"] for row in corpus["models"] if (row["verdict"] == "good") != (row["caught"] == "no")]
    arguments.to.write_text(table(corpus, live, wrong, ran))
    print(f"{len(corpus['models'])} files; labels contradicted: {wrong or 'none'}; ran: {ran or 'nothing'}; the table is in {arguments.to}")
    return 1 if wrong or ran else 0


def read_judged(path: Path) -> data.Judged:
    queries = [json.loads(line) for line in path.read_text().splitlines()]
    documents = [document for query in queries for document in query["documents"]]
    return data.Judged(
        np.array([document["features"] for document in documents], np.float32), np.array([document["label"] for document in documents])
    )


def look_at_onnx(corpus: Path, row: dict, made: dict, judged, live: dict):
    """(what happened, how it is caught: `no`, `when run`, `by reading`)."""
    path = corpus / row["file"]
    outcome = probe(path.read_bytes(), judged)
    what = f"{outcome.get('stage', '')}: {outcome.get('error', '')}"
    if row["class"] == "external-data":
        by_path = probe(str(path), judged)
        return (
            f"from memory: {short(what)}; by path: {'it runs' if by_path['ok'] else short(by_path['error'].replace(str(path), 'FILE'))}",
            "by reading",
        )
    if not outcome["ok"]:
        return short(what), "when run"
    difference = np.array(outcome["ndcg"]) - np.array(live["ndcg"])
    t = difference.mean() / max(difference.std(ddof=1) / math.sqrt(len(difference)), 1e-12)
    slower = outcome["latency_us"] / live["latency_us"]
    what = f"NDCG@10 {np.mean(outcome['ndcg']):.3f}, t = {t:+.1f}; {outcome['latency_us']:.0f} µs, {slower:.1f} of live"
    if t < WORSE_T or slower > TIMES_SLOWER or row["bytes"] > made["size_limit_bytes"]:
        return what, "when run"
    # The one sort of bad file that no run shows.
    return what, "by reading" if row["verdict"] == "bad" and row["class"] == "not-finite" else "no"


def look_at_other(path: Path, row: dict, judged: Path):
    if path.suffix in (".txt", ".json"):
        outcome = native.run(path, judged)
        what = (
            outcome.get("error")
            or f"it loads; scores {outcome['shape']}, {outcome['not_finite']} not finite, NDCG@10 {outcome.get('ndcg', '-')}"
        )
        harmless = outcome["ok"] and not outcome["not_finite"] and not outcome.get("constant") and len(outcome["shape"]) == 1
        if row["verdict"] == "good":
            return short(what), "no" if harmless else "when run"
        return short(what), "by reading" if harmless else "when run"
    traced = child([str(HERE / "follow.py"), str(path)])
    seen = json.loads(traced) if traced.startswith("{") else {"names": [], "calls": [], "error": traced}
    if row["verdict"] == "good":
        loaded = "not loaded: PyTorch is not installed" if path.suffix == ".pt" else child(["-c", LOAD_GOOD, str(path)])
        return f"{loaded}; names: {', '.join(seen['names']) or 'none'}", "no" if "Error" not in loaded else "when run"
    calls = [call for call in seen["calls"] if call != "numpy.dtype"]
    return short(f"would call {', '.join(calls) or 'nothing'}; {seen['error']}".rstrip("; ")), "by reading"


def child(arguments: list) -> str:
    """The last line of what a Python process says."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return said[-1] if said else f"Error: ended with {done.returncode}"


def short(text: str) -> str:
    text = " ".join(text.replace("[ONNXRuntimeError] : ", "").split())
    return text if len(text) <= 150 else text[:147] + "..."


def table(corpus: dict, live: dict, wrong: list, ran: list) -> str:
    made = ", ".join(f"{library} {version}" for library, version in corpus["made_with"].items())
    counts = Counter((row["verdict"], row["class"]) for row in corpus["models"])
    lines = [
        "# What becomes of the corpus's files\n",
        f"Seed {corpus['seed']}; {made}. Child processes with 10 s and 2 GiB. live.onnx: NDCG@10 {np.mean(live['ndcg']):.3f}, {live['latency_us']:.0f} µs for 100 documents.",
        f"Labels contradicted: {', '.join(wrong) or 'none'}. Payloads that ran: {', '.join(ran) or 'none'}.\n",
        "| verdict | class | files |\n|---|---|---|",
        *(f"| {verdict} | {kind} | {count} |" for (verdict, kind), count in sorted(counts.items())),
        "\n| file | class | verdict | caught | what happens |\n|---|---|---|---|---|",
    ]
    for row in corpus["models"]:
        lines.append(f"| {row['file']} | {row['class']} | {row['verdict']} | {row['caught']} | {row['what'].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
