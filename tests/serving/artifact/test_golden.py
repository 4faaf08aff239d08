"""Golden examples: what counts as equal, what golden.json can carry, what a broken file is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.artifact import golden
from serving.artifact.golden import GoldenError, GoldenExample, build_example, golden_json
from serving.artifact.tensors import DTYPES, numpy_dtype


def example(dtype: str, data: list, atol: float = 0.0, rtol: float = 0.0) -> GoldenExample:
    return GoldenExample({}, {"y": np.array(data, numpy_dtype(dtype))}, atol, rtol)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.floats(0, 1))
def test_a_number_within_its_tolerance_is_equal_and_beyond_it_is_not(
    values: list[float], atol: float
) -> None:
    expected = example("FP64", values, atol)
    got = np.array(values)
    assert golden.differences(expected, {"y": got}) == []
    got[0] += 2 * atol + 1e-3
    assert golden.differences(expected, {"y": got}) != []


def test_the_difference_is_said_with_its_size_and_its_place() -> None:
    (sentence,) = golden.differences(
        example("FP32", [2.0, 1.0], 0.01), {"y": np.float32([2.0, 1.5])}
    )
    assert sentence == (
        "y is off by 0.5 (atol 0.01, rtol 0) in 1 of 2 values, first y[1]: 1.5 instead of 1.0"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "y is missing"),
        ({"z": np.zeros(2, np.float32)}, "y is missing"),
        ({"y": np.zeros((1, 2), np.float32)}, "float32[1, 2] instead of float32[2]"),
        ({"y": np.zeros(2, np.float64)}, "float64[2] instead of float32[2]"),
        ({"y": np.array([0, np.nan], np.float32)}, "off by a NaN"),
        ({"y": np.array([0, np.inf], np.float32)}, "off by inf"),
    ],
)
def test_another_shape_or_type_is_a_difference(answer: dict, said: str) -> None:
    assert said in golden.differences(example("FP32", [0.0, 0.0], 1e9), answer)[0]


@pytest.mark.parametrize("dtype", ["FP16", "BF16", "FP32", "FP64"])
def test_infinities_and_nan_of_every_width_are_equal_to_themselves_alone(dtype: str) -> None:
    expected = example(dtype, [np.inf, -np.inf, np.nan], 1e9)
    assert golden.differences(expected, expected.outputs) == []
    assert golden.differences(
        expected, {"y": np.array([np.inf, np.inf, np.nan], numpy_dtype(dtype))}
    )


def test_text_and_whole_numbers_are_compared_exactly() -> None:
    text = example("BYTES", [b"a", "ü".encode()], 1e9)
    assert golden.differences(text, {"y": np.array([b"a", "ü".encode()], object)}) == []
    (wrong,) = golden.differences(text, {"y": np.array([b"a", b"u"], object)})
    assert wrong.startswith("y differs in 1 of 2 values, first y[1]: b'u' instead of ")
    assert golden.differences(example("INT32", [3], 1e9), {"y": np.int32([4])})


def test_null_is_the_nan_that_json_lacks(tmp_path: Path) -> None:
    tensor = {"dtype": "FP32", "shape": [2], "data": [None, 1.0]}
    content = [{"inputs": {}, "outputs": {"y": tensor}, "atol": 0, "rtol": 0}]
    (tmp_path / "golden.json").write_text(json.dumps(content))
    (missing,) = golden.read_examples(tmp_path)
    assert golden.differences(missing, {"y": np.float32([np.nan, 1])}) == []
    assert golden.differences(missing, {"y": np.float32([0, 1])}) != []


def test_examples_of_every_kind_are_read_flat_or_nested(tmp_path: Path) -> None:
    tensors = {
        "x": {"dtype": "FP32", "shape": [2, 1], "data": [[1.5], [None]]},
        "n": {"dtype": "INT32", "shape": [1], "data": [7]},
        "text": {"dtype": "BYTES", "shape": [1], "data": ["Grüße"]},
    }
    content = [{"inputs": tensors, "outputs": tensors, "atol": 0, "rtol": 0}]
    (tmp_path / "golden.json").write_text(json.dumps(content))
    (read,) = golden.read_examples(tmp_path)
    assert read.inputs["text"].tolist() == ["Grüße".encode()]
    assert np.isnan(read.inputs["x"][1, 0]) and read.inputs["x"].dtype == "float32"
    assert golden.differences(read, read.inputs) == []


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    """A tensor of any of Triton's types, 0 rows, NaN, infinities and odd bytes included."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype == "BYTES":
        elements: st.SearchStrategy = st.binary(max_size=6) | st.text(max_size=4).map(str.encode)
        count = int(np.prod(shape))
        values = np.empty(count, object)
        values[:] = draw(st.lists(elements, min_size=count, max_size=count))
        return values.reshape(shape)
    if dtype == "BF16":
        return draw(hnp.arrays(np.float32, shape)).astype(numpy_dtype(dtype))
    return draw(hnp.arrays(numpy_dtype(dtype), shape))


@given(tensors())
def test_golden_json_gives_back_every_tensor(
    tmp_path_factory: pytest.TempPathFactory, tensor: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("golden", numbered=True)
    data = golden_json([build_example({"x": tensor}, {"y": tensor}, 0.25, 1e-9)])
    (folder / "golden.json").write_bytes(data)
    (read,) = golden.read_examples(folder)
    assert (read.atol, read.rtol) == (0.25, 1e-9)
    for found in (read.inputs["x"], read.outputs["y"]):
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        same = found == tensor
        if tensor.dtype != object:
            same |= (found != found) & (tensor != tensor)
        assert np.all(same)
    exact = GoldenExample({}, {"y": tensor}, 0.0, 0.0)
    assert golden.differences(exact, read.outputs) == []
    json.loads(data, parse_constant=lambda word: pytest.fail(f"{word} is not strict JSON"))


def test_text_is_readable_and_other_bytes_are_base64() -> None:
    words = np.array(["ü", b"\xff\xd8"], object)
    (content,) = json.loads(golden_json([build_example({}, {"y": words}, 0, 0)]))
    assert content["outputs"]["y"]["data"] == ["ü", {"base64": "/9g="}]


def one_tensor(dtype: str, shape: list, data: list) -> str:
    tensor = {"dtype": dtype, "shape": shape, "data": data}
    return json.dumps([{"inputs": {"x": tensor}, "outputs": {}, "atol": 0, "rtol": 0}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "golden.json"),
        ("{}", "not a list"),
        ('[{"inputs": {}, "outputs": {}, "atol": 0}]', "rtol is missing"),
        (one_tensor("FP32", [3], [1]), "reshape"),
        (one_tensor("FP32", [-1], [1]), "negative size"),
        (one_tensor("FLOAT", [1], [1]), "'FLOAT' is not one of"),
        (one_tensor("FP32", [1], ["1"]), "'1' is no number"),
        (one_tensor("INT8", [1], [None]), "None is no INT8"),
        (one_tensor("INT8", [1], [300]), "out of bounds"),
        (one_tensor("BOOL", [1], [1]), "1 is no BOOL"),
        (one_tensor("BYTES", [1], [7]), "neither a string nor"),
        (one_tensor("BYTES", [1], [{"base64": "?"}]), "base64"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(GoldenError, match=r"golden\.json") as error:
        golden.read_examples(tmp_path)
    assert said in str(error.value)
