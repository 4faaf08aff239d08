"""Golden examples and model configs: what counts as equal, and what Triton is told."""

from __future__ import annotations

import json

import numpy
import pytest

from serving.fleet import golden, model_config
from serving.fleet.inventory import FleetError
from serving.fleet.plan import served_set

CONFIG = 'name: "toy" backend: "python" input { name: "x" data_type: TYPE_FP32 dims: 1 }'


def example(dtype: str, data, **tolerances) -> golden.Example:
    values = golden.array(dtype, [len(data)], data)
    return golden.Example({}, {"y": (dtype, values)}, **{"atol": 0.0, "rtol": 0.0, **tolerances})


def test_examples_of_every_kind_are_read(tmp_path):
    path = tmp_path / "golden.json"
    tensors = {
        "x": {"dtype": "FP32", "shape": [2, 1], "data": [[1.5], [None]]},
        "n": {"dtype": "INT32", "shape": [1], "data": [7]},
        "text": {"dtype": "BYTES", "shape": [1], "data": ["Grüße"]},
    }
    path.write_text(json.dumps([{"inputs": tensors, "outputs": tensors, "atol": 0, "rtol": 0}]))
    (read,) = golden.read(path)
    assert read.inputs["text"][1].tolist() == ["Grüße".encode()]
    assert numpy.isnan(read.inputs["x"][1][1, 0]) and read.inputs["x"][1].dtype == "float32"
    golden.check(read, {name: values for name, (_, values) in read.outputs.items()}, "here")
    body = json.loads(golden.http_request(read))
    assert [t["datatype"] for t in body["inputs"]] == ["FP32", "INT32", "BYTES"]
    assert body["inputs"][2]["data"] == ["Grüße"]


@pytest.mark.parametrize("content", ["[]", "{", '[{"inputs": {}}]'])
def test_no_examples_are_no_proof(tmp_path, content):
    path = tmp_path / "golden.json"
    path.write_text(content)
    with pytest.raises(FleetError, match="golden"):
        golden.read(path)


@pytest.mark.parametrize(
    ("wanted", "got", "sentence"),
    [
        (example("FP32", [1.0, 2.0]), numpy.array([1.0, 2.1], "float32"), r"y\[1\]"),
        (example("FP32", [1.0]), numpy.array([[1.0]], "float32"), "shape"),
        (example("INT32", [3], atol=1), numpy.array([4]), "differ"),
        (example("BYTES", ["a"]), numpy.array([b"b"], dtype=object), "differ"),
    ],
)
def test_another_answer_is_named(wanted, got, sentence):
    with pytest.raises(golden.GoldenMismatch, match=sentence):
        golden.check(wanted, {"y": got}, "a")


def test_tolerance_is_for_floats_only_and_a_lacking_output_is_named():
    golden.check(example("FP64", [1.0], atol=0.2), {"y": numpy.array([1.1])}, "a")
    with pytest.raises(golden.GoldenMismatch, match="lacks output 'y'"):
        golden.check(example("FP64", [1.0]), {"z": numpy.array([1.0])}, "a")


def test_a_config_says_its_versions_and_says_them_in_full():
    text = model_config.with_versions(model_config.with_versions(CONFIG, (1,)), (3, 2))
    assert model_config.versions_in(text) == (2, 3)
    sent = json.loads(model_config.as_json(text))
    assert sent["version_policy"] == {"specific": {"versions": ["2", "3"]}}
    assert sent["backend"] == "python" and sent["input"][0]["data_type"] == "TYPE_FP32"
    with pytest.raises(FleetError, match="not a Triton model config"):
        model_config.with_versions("nonsense: 1", (1,))


def test_configs_with_other_tensors_cannot_be_loaded_together():
    assert model_config.same_interface(CONFIG, CONFIG + " max_batch_size: 4")
    assert not model_config.same_interface(CONFIG, CONFIG.replace("FP32", "FP64"))


@pytest.mark.parametrize(
    ("target", "before", "keep", "served"),
    [
        (1, (), True, (1,)),
        (2, (1,), True, (1, 2)),
        (3, (1, 2), True, (2, 3)),
        (2, (2, 3), True, (2,)),  # a way back never leaves a higher one to be the default
        (2, (1, 2, 3), True, (1, 2)),
        (2, (1,), False, (2,)),
    ],
)
def test_the_versions_that_are_kept_ready(target, before, keep, served):
    assert served_set(target, before, keep) == served
