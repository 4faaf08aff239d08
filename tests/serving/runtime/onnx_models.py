"""Networks of a few nodes, made by hand, for the runtime's classes."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, checker, helper, save

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save_tabular(path: Path, categories: int, numbers: int, outputs: int = 1) -> None:
    """`output` [batch, outputs]: the row's sum over ids and numbers, times 1, 2, 3 ..."""
    factors = helper.make_tensor("factors", FLOAT, [1, outputs], list(range(1, outputs + 1)))
    one = helper.make_tensor("one", INT64, [1], [1])
    nodes = [
        helper.make_node("Cast", ["categories"], ["ids"], to=FLOAT),
        helper.make_node("Concat", ["ids", "numbers"], ["row"], axis=1),
        helper.make_node("ReduceSum", ["row", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "factors"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("categories", INT64, ["batch", categories]),
        helper.make_tensor_value_info("numbers", FLOAT, ["batch", numbers]),
    ]
    _save(path, nodes, inputs, [("output", ["batch", outputs])], [factors, one])


def save_arrays(path: Path) -> None:
    """`image` [batch, 2, 2] -> `doubled` [batch, 2, 2] and `total` [batch]."""
    axes = helper.make_tensor("axes", INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Add", ["image", "image"], ["doubled"]),
        helper.make_node("ReduceSum", ["image", "axes"], ["total"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("image", FLOAT, ["batch", 2, 2])]
    _save(path, nodes, inputs, [("doubled", ["batch", 2, 2]), ("total", ["batch"])], [axes])


def save_classifier(path: Path) -> None:
    """`logits` [batch, 2]: minus and plus the mean id of the unmasked tokens."""
    axis = helper.make_tensor("axis", INT64, [1], [1])
    signs = helper.make_tensor("signs", FLOAT, [1, 2], [-1.0, 1.0])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["count"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["sum_f"], to=FLOAT),
        helper.make_node("Cast", ["count"], ["count_f"], to=FLOAT),
        helper.make_node("Div", ["sum_f", "count_f"], ["mean"]),
        helper.make_node("Mul", ["mean", "signs"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    _save(path, nodes, inputs, [("logits", ["batch", 2])], [axis, signs])


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> None:
    found = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs]
    graph = helper.make_graph(nodes, "small", inputs, found, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    save(model, str(path))
