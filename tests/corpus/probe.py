"""Runs one ONNX file in a child process with limits, and says what happened: the measured truth behind the labels.

What it looks at is what a careful gate would: does it load, is its signature that of a ranking model, are the scores finite, the
same again, the same whatever the order and company of the documents, not all equal; how well they rank; how long they take.
"""

import json
import os
import resource
import select
import signal
import sys
import time

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded

import numpy as np
import onnxruntime
from data import DOCUMENTS, FEATURES, Judged, ndcg_at_10

SECONDS, BYTES = 10, 2 << 30
LATENCY_ROWS, LATENCY_RUNS = 100, 15


def probe(model, judged: Judged, seconds: int = SECONDS, limit: int = BYTES) -> dict:
    """`model` is the file's bytes, or its path. The answer has `ok`, or `stage` and `error` of what went wrong first; and figures."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(run_limited(model, judged, seconds, limit, writer))
    os.close(writer)
    answer = read_until(reader, time.monotonic() + seconds)
    os.close(reader)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        return {"ok": False, "stage": "limit", "error": f"killed after {seconds} s"}
    if os.WIFSIGNALED(status):
        return {"ok": False, "stage": "crash", "error": f"the process died: {signal.Signals(os.WTERMSIG(status)).name}"}
    if not answer:
        return {"ok": False, "stage": "crash", "error": f"the process ended with {os.waitstatus_to_exitcode(status)}"}
    return json.loads(answer)


def read_until(reader: int, deadline: float):
    """All that comes until the other end is closed; None when that takes too long."""
    parts = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def run_limited(model, judged: Judged, seconds: int, limit: int, writer: int) -> int:
    """In the child: limits first, then the checks; the answer goes down the pipe."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stage = {"now": "load"}
    figures = {}
    try:
        checks(model, judged, stage, figures)
        answer = {"ok": True, **figures}
    except Refused as refusal:
        answer = {"ok": False, "stage": stage["now"], "error": str(refusal), **figures}
    except MemoryError:
        answer = {"ok": False, "stage": stage["now"], "error": "out of memory", **figures}
    except BaseException as error:  # whatever it is, it is what happened
        answer = {"ok": False, "stage": stage["now"], "error": " ".join(str(error).split())[:300], **figures}
    os.write(writer, json.dumps(answer).encode())
    os.close(writer)
    return 0


class Refused(Exception):
    """A check that failed."""


def checks(model, judged: Judged, stage: dict, figures: dict):
    """All checks in turn; `figures` fills up on the way."""
    session = open_session(model)
    stage["now"] = "signature"
    check_signature(session)

    def score(rows):
        return session.run(None, {session.get_inputs()[0].name: rows})[0]

    stage["now"] = "scores"
    scores = np.concatenate([shaped(score(features), len(features)) for features, _ in judged.queries()])
    require(np.isfinite(scores).all(), f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    require(np.ptp(scores) > 0, "all scores are equal")
    stage["now"] = "repeats"
    check_repeats(model, score, judged, scores)
    stage["now"] = "independence"
    check_independence(score, judged, scores)
    stage["now"] = "quality"
    figures["ndcg"] = [round(float(value), 6) for value in ndcg_at_10(judged, scores)]
    stage["now"] = "latency"
    figures["latency_us"] = latency_us(score, judged)


def require(condition, message: str):
    if not condition:
        raise Refused(message)


def open_session(model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check_signature(session):
    """As `switchback ranker` wants it: one input FP32 [-1, FEATURES], an output FP32 [-1, 1] or [-1]; and the names, if any."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    require(len(inputs) == 1, f"{len(inputs)} inputs")
    shape = inputs[0].shape
    require(inputs[0].type == "tensor(float)", f"the input is {inputs[0].type}")
    require(len(shape) == 2 and not isinstance(shape[0], int) and shape[1] == FEATURES, f"the input's shape is {shape}")
    first = outputs[0]
    fits = first.type == "tensor(float)" and (len(first.shape) == 1 or len(first.shape) == 2 and first.shape[1] == 1)
    require(fits, f"the output is {first.type} {first.shape}")
    names = session.get_modelmeta().custom_metadata_map.get("feature_names")
    if names is not None:
        try:
            parsed = json.loads(names)
        except ValueError:
            raise Refused("feature_names is not JSON") from None
        require(isinstance(parsed, list) and all(isinstance(name, str) for name in parsed), "feature_names is no list of names")
        require(len(parsed) == FEATURES == len(set(parsed)), f"feature_names has {len(set(parsed))} names")


def shaped(scores: np.ndarray, rows: int) -> np.ndarray:
    require(scores.shape in ((rows, 1), (rows,)), f"scores of the shape {list(scores.shape)} for {rows} documents")
    return scores.reshape(-1)


def check_repeats(model, score, judged: Judged, scores: np.ndarray):
    """The same again, from this session and from a new one."""
    features = judged.features[:DOCUMENTS]
    fresh = open_session(model)
    for again in (score(features), fresh.run(None, {fresh.get_inputs()[0].name: features})[0]):
        require((again.reshape(-1) == scores[:DOCUMENTS]).all(), "other scores for the same documents")


def check_independence(score, judged: Judged, scores: np.ndarray):
    """A document's score depends on nothing but itself: in another order, with other documents, alone."""
    rows = 10 * DOCUMENTS
    features, expected = judged.features[:rows], scores[:rows]
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    order = np.random.default_rng(5).permutation(DOCUMENTS)
    turned = shaped(score(features[:DOCUMENTS][order]), DOCUMENTS)
    require(np.abs(turned - expected[:DOCUMENTS][order]).max() <= tolerance, "scores depend on the documents' order")
    alone = np.concatenate([shaped(score(row.reshape(1, -1)), 1) for row in features[:DOCUMENTS]])
    require(np.isfinite(alone).all() and np.abs(alone - expected[:DOCUMENTS]).max() <= tolerance, "a document alone scores otherwise")
    together = shaped(score(features), rows)
    require(np.abs(together - expected).max() <= tolerance, "scores depend on the other documents")


def latency_us(score, judged: Judged) -> float:
    """The median over runs of LATENCY_ROWS documents, in microseconds."""
    rows = np.ascontiguousarray(judged.features[:LATENCY_ROWS])
    taken = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        score(rows)
        taken.append(time.perf_counter() - start)
    return round(float(np.median(taken)) * 1e6, 1)
