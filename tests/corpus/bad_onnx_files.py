"""Files named .onnx that are broken as files, or that ask for what this runtime does not have."""

import io
import re
import zipfile

import numpy as np
import onnx
from graphs import Graph
from item import Item
from onnx import helper
from probe import probe
from trained import Trained, clone, from_lightgbm, to_bytes

NOT_ONNX = r"(?i)not an onnx|no onnx|onnx has|empty|ir_version|cut off"
NOT_LOADED = r"(?i)load|onnx has|parse|protobuf|invalid|corrupt|not finite|nan|rank|ndcg|quality|differ|type|unknown|range|memory|time|tree"
FUZZED = 16
FUZZ_TRIES = 500


def items(trained: Trained, judged, seed: int) -> list:
    good = from_lightgbm(trained.live)
    return truncated(good) + not_onnx(to_bytes(good)) + versions(good) + operators(trained, good) + fuzzed(to_bytes(good), judged, seed)


def bad(name: str, data, kind: str, why: str, expect: str) -> Item:
    return Item(f"bad/onnx/{name}.onnx", data if isinstance(data, bytes) else to_bytes(data), kind, why, expect)


def truncated(good: onnx.ModelProto) -> list:
    """Cut in several places. Two are between fields, where a protobuf reader notices nothing: the graph or the opsets are lost."""
    data, no_opset, no_graph = to_bytes(good), clone(good), clone(good)
    no_opset.ClearField("opset_import")
    no_graph.ClearField("opset_import")
    no_graph.ClearField("graph")
    cuts = {
        "1_byte": 1,
        "16_bytes": 16,
        "tenth": len(data) // 10,
        "half": len(data) // 2,
        "nine_tenths": len(data) * 9 // 10,
        "last_byte": len(data) - 1,
        "after_graph": len(to_bytes(no_opset)),
        "before_graph": len(to_bytes(no_graph)),
    }
    return [
        bad(
            f"truncated_{name}",
            data[:size],
            "truncated",
            f"the first {size} bytes of {len(data)}",
            NOT_ONNX + "|graph|load|opset|ir.version",
        )
        for name, size in cuts.items()
    ]


def not_onnx(data: bytes) -> list:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(zipfile.ZipInfo("model.onnx"), data)
    zeros = bytes(4096)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"5f" * 32 + b"\nsize 12345\n"
    page = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>Access denied</body></html>\n"
    return [
        bad("empty", b"", "not-onnx", "an empty file", NOT_ONNX + "|graph"),
        bad("text", b"This is not a model.\n" * 20, "not-onnx", "a text", NOT_ONNX),
        bad("web_page", page, "not-onnx", "the error page that a download got", NOT_ONNX),
        bad("lfs_pointer", pointer, "not-onnx", "a Git LFS pointer, its file was never fetched", NOT_ONNX),
        bad("zipped", archive.getvalue(), "not-onnx", "a zip archive with a good model in it", NOT_ONNX),
        bad("zeros", zeros, "not-onnx", "zeros, as an interrupted copy leaves", NOT_ONNX),
        bad("base64_line", b"CAgSBWNvcnB1cw==\n", "not-onnx", "base64 that was never decoded", NOT_ONNX),
        bad("pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.", "not-onnx", "a pickle", NOT_ONNX),
    ]


def versions(good: onnx.ModelProto) -> list:
    opset, old, ir, none, twice = (clone(good) for _ in range(5))
    opset.opset_import[0].version = 999
    old.opset_import[0].version = 0
    ir.ir_version = 999
    ml = [entry for entry in twice.opset_import if entry.domain == "ai.onnx.ml"][0]
    ml.version = 99
    del none.opset_import[:]
    return [
        bad("opset_999", opset, "opset", "opset 999 of ai.onnx", r"(?i)opset"),
        bad("opset_0", old, "opset", "opset 0 of ai.onnx", r"(?i)opset|version"),
        bad("opset_ml_99", twice, "opset", "opset 99 of ai.onnx.ml", r"(?i)opset"),
        bad("opset_none", none, "opset", "no opset at all", r"(?i)opset|not imported"),
        bad("ir_version_999", ir, "opset", "ir_version 999", r"(?i)ir.?version"),
    ]


def operators(trained: Trained, good: onnx.ModelProto) -> list:
    custom, unknown, recursion = Graph(trained), Graph(trained), Graph(trained)
    evil = custom.model(custom.add("RunShell", custom.scores(), domain="com.example.evil"), opsets=[("com.example.evil", 1)])
    missing = unknown.model(unknown.add("NoSuchOperator", unknown.scores()))
    calls_itself = recursion.model(recursion.add("Again", recursion.scores(), domain="local"), opsets=[("local", 1)])
    body = [helper.make_node("Again", ["x"], ["y"], domain="local")]
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("local", 1)]
    calls_itself.functions.append(helper.make_function("local", "Again", ["x"], ["y"], body, imports))
    dangling, cyclic, twice, renamed, unsorted = (clone(good) for _ in range(5))
    dangling.graph.node[0].input[0] = "nowhere"
    cyclic.graph.node[0].input[0] = cyclic.graph.node[-1].output[0]
    twice.graph.node.append(twice.graph.node[0])
    renamed.graph.node[0].op_type = "VreeEnsembleRegressor"
    unsorted.graph.output[0].name = "nobody_makes_this"
    broken = r"(?i)operator|op_type|domain|function|node|graph|load|invalid|not registered"
    return [
        bad("custom_domain", evil, "custom-operator", "an operator of the domain com.example.evil", r"(?i)domain|operator|registered"),
        bad("unknown_operator", missing, "custom-operator", "an operator that ONNX does not have", broken),
        bad("operator_renamed", renamed, "custom-operator", "one letter of the operator's name flipped", broken),
        bad("function_recursive", calls_itself, "custom-operator", "a local function that calls itself", broken + "|recurs|cycl"),
        bad("node_input_missing", dangling, "broken-graph", "a node reads what nobody makes", broken),
        bad("node_cycle", cyclic, "broken-graph", "a node reads its own result", broken + "|cycl"),
        bad("node_twice", twice, "broken-graph", "two nodes make the same value", broken + "|duplicate"),
        bad("output_missing", unsorted, "broken-graph", "the output is made by no node", broken + "|output"),
        bad("graph_empty", empty_graph(good), "broken-graph", "no nodes, no inputs, no outputs", r"(?i)graph|node|input|output|load"),
    ]


def empty_graph(good: onnx.ModelProto) -> onnx.ModelProto:
    empty = clone(good)
    for field in (empty.graph.node, empty.graph.input, empty.graph.output):
        del field[:]
    return empty


def fuzzed(data: bytes, judged, seed: int) -> list:
    """Bits flipped, runs of bytes overwritten, cut out or doubled, by a seeded generator; kept only where the runtime really stumbles.

    What merely changes a score by a little is no broken file, and a gate cannot tell: such candidates are dropped.
    """
    rng = np.random.default_rng(seed)
    made, seen = [], {}
    for _ in range(FUZZ_TRIES):
        how = str(rng.choice(["flip", "overwrite", "cut", "double"]))
        candidate = damage(data, how, rng)
        outcome = probe(candidate, judged)
        if outcome["ok"]:
            continue
        # Not more than three of one sort of failure, so that there is variety.
        sort = re.sub(r"[0-9\W]+", " ", outcome["error"])[:120]
        seen[sort] = seen.get(sort, 0) + 1
        if seen[sort] > 3:
            continue
        why = f"bytes damaged ({how}); fails at {outcome['stage']}"
        made.append(bad(f"fuzzed_{len(made) + 1:02d}", candidate, "fuzzed", why, NOT_LOADED))
        if len(made) == FUZZED:
            break
    return made


def damage(data: bytes, how: str, rng) -> bytes:
    changed = bytearray(data)
    place = int(rng.integers(0, len(changed) - 64))
    length = int(rng.integers(1, 64))
    if how == "flip":
        for at in rng.integers(0, len(changed), int(rng.integers(1, 9))):
            changed[int(at)] ^= 1 << int(rng.integers(0, 8))
    elif how == "overwrite":
        changed[place : place + length] = rng.bytes(length)
    elif how == "cut":
        del changed[place : place + length]
    else:
        changed[place:place] = changed[place : place + length]
    return bytes(changed)
