"""Golden examples: what counts as equal, and what a broken file is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.artifact import golden
from serving.artifact.golden import Example, GoldenError, GoldenTensor


def example(dtype: str, data: list, atol: float = 0.0, rtol: float = 0.0) -> Example:
    return Example({}, {"y": GoldenTensor(dtype, (len(data),), data)}, atol, rtol)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.floats(0, 1))
def test_a_number_within_its_tolerance_is_equal_and_beyond_it_is_not(
    values: list[float], atol: float
) -> None:
    expected = example("FP64", values, atol)
    got = np.array(values)
    assert golden.differences(expected, {"y": got}) == []
    got[0] += 2 * atol + 1e-3
    assert golden.differences(expected, {"y": got}) != []


def test_the_difference_is_said_with_its_size() -> None:
    (sentence,) = golden.differences(example("FP32", [1.0], 0.01), {"y": np.float32([1.5])})
    assert sentence == "y is off by 0.5 (atol 0.01, rtol 0)"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "y is missing"),
        ({"y": np.zeros((1, 2), np.float32)}, "float32[1, 2] instead of float32[2]"),
        ({"y": np.zeros(2, np.float64)}, "float64[2] instead of float32[2]"),
        ({"y": np.array([0, np.nan], np.float32)}, "off by a NaN"),
    ],
)
def test_another_shape_or_type_is_a_difference(answer: dict, said: str) -> None:
    assert said in golden.differences(example("FP32", [0.0, 0.0], 1e9), answer)[0]


def test_text_and_whole_numbers_are_compared_exactly() -> None:
    text = example("BYTES", ["a", "ü"], 1e9)
    assert golden.differences(text, {"y": np.array([b"a", "ü".encode()], object)}) == []
    wrong = golden.differences(text, {"y": np.array([b"a", b"u"], object)})
    assert wrong == ["y differs in 1 of 2 values"]
    assert golden.differences(example("INT32", [3], 1e9), {"y": np.int32([4])})


def test_null_is_the_nan_that_json_lacks() -> None:
    missing = example("FP32", [None, 1.0])
    assert golden.differences(missing, {"y": np.float32([np.nan, 1])}) == []
    assert golden.differences(missing, {"y": np.float32([0, 1])}) != []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "golden.json"),
        ("{}", "not a list"),
        ('[{"inputs": {}, "outputs": {}, "atol": 0}]', "rtol is missing"),
        (
            json.dumps([{"inputs": {"x": {"dtype": "FP32", "shape": [3], "data": [1]}},
                         "outputs": {}, "atol": 0, "rtol": 0}]),
            "reshape",
        ),
        (
            json.dumps([{"inputs": {"x": {"dtype": "FLOAT", "shape": [1], "data": [1]}},
                         "outputs": {}, "atol": 0, "rtol": 0}]),
            "'FLOAT' is not one of",
        ),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(GoldenError, match=r"golden\.json") as error:
        golden.load(tmp_path)
    assert said in str(error.value)
