"""A small writer of ONNX graphs around a linear model that ranks well, so that a bad file has one fault and no other."""

import numpy as np
import onnx
from data import FEATURES
from onnx import TensorProto, helper, numpy_helper
from trained import Trained, linear_weights

IR_VERSION = 10
# As LightGBM's exporter names it.
OUTPUT = "variable"


class Graph:
    """Nodes in order, with names that count up."""

    def __init__(self, trained: Trained):
        self.weights = linear_weights(trained.sklearn["linear"])
        self.nodes, self.initializers, self.count = [], [], 0

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}_{self.count}"

    def constant(self, value) -> str:
        """An initializer."""
        name = self.name("constant")
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def floats(self, *values) -> str:
        return self.constant(np.array(values, np.float32))

    def ints(self, *values) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        """A node with one output, whose name comes back."""
        name = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def scores(self, features: str = "features") -> str:
        """The linear model's scores, [n, 1]."""
        return self.add("MatMul", features, self.constant(self.weights))

    def column(self, place: int, features: str = "features") -> str:
        """One feature, [n, 1]."""
        return self.add("Gather", features, self.ints(place), axis=1)

    def plus_nothing(self, scores: str, anything: str) -> str:
        """The scores, unchanged, but only once `anything` (floats of any shape) has been computed."""
        total = self.add("ReduceSum", anything, keepdims=0)
        return self.add("Add", scores, self.add("Mul", total, self.floats(0.0)))

    def model(self, output: str, opset: int = 15, inputs=None, outputs=None, ir_version: int = IR_VERSION, opsets=()) -> onnx.ModelProto:
        """With the live model's input and output, unless others are given."""
        if inputs is None:
            inputs = [value("features", TensorProto.FLOAT, ["n", FEATURES])]
        if outputs is None:
            self.nodes.append(helper.make_node("Identity", [output], [OUTPUT]))
            outputs = [value(OUTPUT, TensorProto.FLOAT, ["n", 1])]
        graph = helper.make_graph(self.nodes, "ranker", inputs, outputs, self.initializers)
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, version) for domain, version in opsets)]
        return helper.make_model(graph, ir_version=ir_version, opset_imports=imports, producer_name="corpus")


def value(name: str, element: int, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)
