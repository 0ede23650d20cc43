"""ONNX files that reach out of themselves, or take all memory or time there is."""

import numpy as np
import onnx
from data import FEATURES
from graphs import Graph, value
from item import Item
from onnx import TensorProto, helper, numpy_helper
from trained import Trained, to_bytes

EXTERNAL = r"(?i)its data is in another file"
MEMORY = r"(?i)memory|alloc|makes \d+ numbers|limit|size|killed|overflow|exceed"
TIME = r"(?i)time|second|limit|deadline|killed|slow|loop"
HUGE = 10**12


def items(trained: Trained) -> list:
    return outside(trained) + at_load(trained) + when_run(trained)


def bad(name: str, model, kind: str, why: str, expect: str, beside=None) -> Item:
    data = model if isinstance(model, bytes) else to_bytes(model)
    return Item(f"bad/onnx/{name}.onnx", data, kind, why, expect, beside or {})


def outside(trained: Trained) -> list:
    """Tensors whose data is in another file."""
    made = []
    places = {
        "absolute": ("/etc/passwd", "an absolute path"),
        "parent": ("../../x", "a path that leaves the folder"),
        "proc": ("/proc/self/environ", "the process's environment"),
        "url": ("http://127.0.0.1:9/weights.bin", "a URL"),
    }
    for name, (location, why) in places.items():
        graph = Graph(trained)
        scores = graph.scores()
        send_outside(graph.initializers[0], location)
        made.append(bad(f"external_{name}", graph.model(scores), "external-data", f"weights are in {location}, {why}", EXTERNAL))
    graph = Graph(trained)
    scores = graph.scores()
    weights = graph.initializers[0].raw_data
    send_outside(graph.initializers[0], "external_sibling.weights")
    beside = {"bad/onnx/external_sibling.weights": weights}
    made.append(
        bad(
            "external_sibling",
            graph.model(scores),
            "external-data",
            "weights are in a file beside it, which is no part of the artefact",
            EXTERNAL,
            beside,
        )
    )
    made.append(
        bad(
            "external_in_subgraph",
            external_in_subgraph(trained),
            "external-data",
            "/etc/passwd in an initializer of an If's branch",
            EXTERNAL,
        )
    )
    made.append(
        bad("external_in_constant", external_in_constant(trained), "external-data", "/etc/passwd in an attribute of a Constant", EXTERNAL)
    )
    made.append(
        bad(
            "external_in_function",
            external_in_function(trained),
            "external-data",
            "/etc/passwd in a Constant of a local function",
            EXTERNAL,
        )
    )
    return made


def send_outside(tensor: onnx.TensorProto, location: str):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(4 * FEATURES))):
        tensor.external_data.add(key=key, value=text)


def stolen() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(FEATURES, np.float32), "stolen")
    send_outside(tensor, "/etc/passwd")
    return tensor


def external_in_subgraph(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    scores = graph.scores()
    total = helper.make_node("ReduceSum", ["stolen"], ["branch_total"], keepdims=0)
    branch = helper.make_graph([total], "branch", [], [value("branch_total", TensorProto.FLOAT, [])], [stolen()])
    other = helper.make_graph(
        [helper.make_node("Identity", ["stolen"], ["all"]), helper.make_node("ReduceSum", ["all"], ["other_total"], keepdims=0)],
        "other",
        [],
        [value("other_total", TensorProto.FLOAT, [])],
        [stolen()],
    )
    condition = graph.constant(np.array(True))
    return graph.model(graph.plus_nothing(scores, graph.add("If", condition, then_branch=branch, else_branch=other)))


def external_in_constant(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    return graph.model(graph.plus_nothing(graph.scores(), graph.add("Constant", value=stolen())))


def external_in_function(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    model = graph.model(graph.plus_nothing(graph.scores(), graph.add("Steal", domain="local")), opsets=[("local", 1)])
    body = [helper.make_node("Constant", [], ["y"], value=stolen())]
    model.functions.append(helper.make_function("local", "Steal", [], ["y"], body, [helper.make_opsetid("", 15)]))
    return model


def at_load(trained: Trained) -> list:
    """What already takes memory or time when it is loaded: constants are folded, functions unfolded, sparse tensors filled."""
    constant = Graph(trained)
    folded = constant.model(constant.plus_nothing(constant.scores(), constant.add("ConstantOfShape", constant.ints(HUGE), value=one())))
    ranges = Graph(trained)
    counted = ranges.add("Range", ranges.constant(np.float32(0)), ranges.constant(np.float32(1e12)), ranges.constant(np.float32(1)))
    tile = Graph(trained)
    tiled = tile.add("Tile", tile.constant(np.ones((1000, 1000), np.float32)), tile.ints(10**3, 10**3))
    dims, overflow, negative = (Graph(trained) for _ in range(3))
    models = []
    for graph, shape in ((dims, [10**6, 10**6]), (overflow, [1 << 62, 4]), (negative, [-5, 40])):
        models.append(graph.model(graph.plus_nothing(graph.scores(), graph.constant(np.zeros(2, np.float32)))))
        tensor = next(tensor for tensor in models[-1].graph.initializer if list(tensor.dims) == [2])
        del tensor.dims[:]
        tensor.dims.extend(shape)
    return [
        bad("memory_constant_of_shape", folded, "memory-bomb", "ConstantOfShape of 1e12 numbers", MEMORY),
        bad("memory_range", ranges.model(ranges.plus_nothing(ranges.scores(), counted)), "memory-bomb", "a Range of 1e12 numbers", MEMORY),
        bad("memory_tile", tile.model(tile.plus_nothing(tile.scores(), tiled)), "memory-bomb", "4 MB tiled to 4 TB", MEMORY),
        bad("memory_sparse", sparse(trained), "memory-bomb", "a sparse initializer that is 4 TB when filled", MEMORY + "|sparse"),
        bad(
            "dims_huge",
            models[0],
            "memory-bomb",
            "an initializer that says it is 4 TB, with 8 bytes in it",
            MEMORY + "|dim|shape|data|load",
        ),
        bad("dims_overflow", models[1], "memory-bomb", "an initializer of 2^64 numbers", MEMORY + "|dim|shape|data|load"),
        bad("dims_negative", models[2], "broken-graph", "an initializer with a negative dimension", r"(?i)dim|shape|size|data|load"),
        bad(
            "cpu_at_load",
            folded_products(trained),
            "cpu-bomb",
            "products of large constant matrices: the runtime folds them when it loads",
            TIME + "|" + MEMORY,
        ),
        bad(
            "function_laughs",
            laughs(trained),
            "cpu-bomb",
            "local functions that call each other twice, 30 deep: 2^30 nodes",
            TIME + "|" + MEMORY + "|function",
        ),
        bad("nested_deep", nested(200), "broken-graph", "200 Ifs, one within the other", r"(?i)nest|deep|depth|recurs|parse|protobuf|load"),
    ]


def folded_products(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    square = graph.add("ConstantOfShape", graph.ints(4000, 4000), value=one())
    product = square
    for _ in range(60):
        product = graph.add("Tanh", graph.add("MatMul", product, square))
    return graph.model(graph.plus_nothing(graph.scores(), product))


def one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32), "one")


def sparse(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    model = graph.model(graph.plus_nothing(graph.scores(), "filled"))
    values = numpy_helper.from_array(np.ones(1, np.float32), "filled")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "filled_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [HUGE]))
    return model


def laughs(trained: Trained) -> onnx.ModelProto:
    graph = Graph(trained)
    model = graph.model(graph.add("Level30", graph.scores(), domain="local"), opsets=[("local", 1)])
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", "Level0", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], imports))
    for level in range(1, 31):
        body = [helper.make_node(f"Level{level - 1}", [a], [b], domain="local") for a, b in (("x", "m"), ("m", "y"))]
        model.functions.append(helper.make_function("local", f"Level{level}", ["x"], ["y"], body, imports))
    return model


def nested(depth: int) -> bytes:
    """Written byte by byte: the protobuf library refuses to write so deep a message."""

    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    graph = field(2, b"inner")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute)) + field(2, b"inner")
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x0f")


def when_run(trained: Trained) -> list:
    """What takes memory or time only when it scores: sizes and counts depend on the input, so nothing is folded before."""
    shape, expand, pairs = Graph(trained), Graph(trained), Graph(trained)
    huge = shape.add("Mul", shape.add("Shape", "features"), shape.ints(10**6))
    ones = shape.add("ConstantOfShape", huge, value=one())
    wide = expand.add("Expand", expand.add("ReduceSum", "features", keepdims=1), expand.ints(10**6, 10**6))
    flat = pairs.add("Reshape", "features", pairs.ints(-1, 1))
    for _ in range(4):
        flat = pairs.add("Reshape", pairs.add("MatMul", flat, pairs.add("Transpose", flat, perm=[1, 0])), pairs.ints(-1, 1))
    return [
        bad(
            "memory_shape_of_input",
            shape.model(shape.plus_nothing(shape.scores(), ones)),
            "memory-bomb",
            "1e12 numbers for each document, when it is run",
            MEMORY,
        ),
        bad(
            "memory_expand",
            expand.model(expand.plus_nothing(expand.scores(), wide)),
            "memory-bomb",
            "Expand to 4 TB, when it is run",
            MEMORY,
        ),
        bad(
            "memory_outer_products",
            pairs.model(pairs.plus_nothing(pairs.scores(), flat)),
            "memory-bomb",
            "outer products of outer products",
            MEMORY,
        ),
        bad("memory_loop_doubles", loop(trained, 64, doubles=True), "memory-bomb", "a Loop that doubles a tensor 64 times", MEMORY),
        bad("cpu_loop", loop(trained, HUGE), "cpu-bomb", "a Loop of 1e12 rounds", TIME),
        bad("cpu_loop_forever", loop(trained, None), "cpu-bomb", "a Loop without an end", TIME),
    ]


def loop(trained: Trained, rounds, doubles: bool = False) -> onnx.ModelProto:
    """A Loop over a small tensor that depends on the input."""
    graph = Graph(trained)
    scores = graph.scores()
    start = graph.add("ReduceMean", "features", axes=[0, 1], keepdims=0)
    start = graph.add("Reshape", start, graph.ints(1))
    step = helper.make_node("Concat", ["inside", "inside"], ["next"], axis=0) if doubles else helper.make_node("Sin", ["inside"], ["next"])
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), step]
    inputs = [value("round", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("inside", TensorProto.FLOAT, None)]
    body = helper.make_graph(nodes, "body", inputs, [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)])
    most = "" if rounds is None else graph.constant(np.int64(rounds))
    return graph.model(graph.plus_nothing(scores, graph.add("Loop", most, graph.constant(np.array(True)), start, body=body)))
