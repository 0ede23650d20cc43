"""Writes models for deployments: models.py RANKER.onnx OUT_DIR

sometimes_nan.onnx scores as the ranker does, but documents whose first feature is over 1,000 get no number: nothing that it is tried on before it
has users shows that. wide.onnx takes a feature more than the ranker.
"""

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def sometimes_nan(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    score, given = graph.output[0].name, graph.input[0].name
    inner = f"{score}_of_the_ranker"
    for node in graph.node:
        node.output[:] = [inner if name == score else name for name in node.output]
    constants = [
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("limit", TensorProto.FLOAT, [1], [1_000.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("as_scores", TensorProto.INT64, [2], [-1, 1]),
    ]
    graph.initializer.extend(constants)
    graph.node.extend(
        [
            helper.make_node("Gather", [given, "first"], ["first_feature"], axis=1),
            helper.make_node("Greater", ["first_feature", "limit"], ["is_over"]),
            helper.make_node("Reshape", [inner, "as_scores"], ["inner_column"]),
            helper.make_node("Cast", ["is_over"], ["over"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["one", "over"], ["divisor"]),
            helper.make_node("Div", ["inner_column", "divisor"], [score]),
        ]
    )
    return model


def wide(features: int) -> onnx.ModelProto:
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [features, 1], [1.0] * features)
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["documents", features])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["documents", 1])
    graph = helper.make_graph([helper.make_node("MatMul", ["features", "weights"], ["scores"])], "wide", [given], [scores], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    ranker, folder = onnx.load(sys.argv[1]), Path(sys.argv[2])
    features = ranker.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    (folder / "wide.onnx").write_bytes(wide(features + 1).SerializeToString())
    (folder / "sometimes_nan.onnx").write_bytes(sometimes_nan(ranker).SerializeToString())


if __name__ == "__main__":
    main()
