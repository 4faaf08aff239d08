"""The transform's promises, on inputs that nobody would think of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.runtime.errors import InvalidInput
from serving.runtime.features import CLIP, Angle, Category, Number
from serving.runtime.tabular_transform import TabularTransform, Target, transform_from_json

TRANSFORM = TabularTransform(
    features=(
        Category("carrier", "BYTES", ("AA", "B6", "Ünïted"), nullable=False),
        Number("distance", "FP32", 1.0, 12_500.0, 1040.5, 733.25, nullable=False),
        Category("weekday", "INT32", ("0", "1", "6"), nullable=False),
        Category("maker", "BYTES", ("BOEING",), nullable=True),
        Angle("wind_dir", "FP32", nullable=True),
        Number("minute", "INT32", 0.0, 1440.0, 700.0, 280.0, nullable=False),
        Number("temp", "FP32", -80.0, 140.0, 57.0, 18.0, nullable=True),
    ),
    target=Target("late", "binary", "late_probability"),
    group="day",
)

float32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
rows = st.fixed_dictionaries(
    {
        "carrier": st.sampled_from([b"AA", b"B6", "Ünïted".encode(), b"??", b"aa", b" AA"]),
        "distance": st.floats(1, 12_500, width=32),
        "weekday": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 6),
        "maker": st.sampled_from([b"", b"BOEING", b"AIRBUS"]),
        "wind_dir": float32 | st.floats(0, 360, width=32),
        "minute": st.integers(0, 1440),
        "temp": float32 | st.floats(-80, 140, width=32),
    }
)
DTYPES = {"BYTES": object, "INT32": np.int32, "FP32": np.float32}


def columns(batch: list[dict]) -> dict[str, np.ndarray]:
    return {
        one.name: np.array([row[one.name] for row in batch], dtype=DTYPES[one.dtype])
        for one in TRANSFORM.features
    }


@given(st.lists(rows, min_size=1, max_size=7))
@settings(max_examples=150, deadline=None)
def test_a_batch_is_its_rows_one_by_one(batch: list[dict]) -> None:
    together = TRANSFORM.encode(columns(batch))
    for place, row in enumerate(batch):
        alone = TRANSFORM.encode(columns([row]))
        for name, array in alone.items():
            assert np.array_equal(array[0], together[name][place])


@given(rows)
@settings(max_examples=150, deadline=None)
def test_every_value_has_a_place_in_the_model(row: dict) -> None:
    arrays = TRANSFORM.encode(columns([row]))
    assert arrays["categories"].dtype == np.int64 and arrays["categories"].shape == (1, 3)
    assert arrays["numbers"].dtype == np.float32
    assert arrays["numbers"].shape == (1, TRANSFORM.number_columns)
    assert np.isfinite(arrays["numbers"]).all()
    assert (np.abs(arrays["numbers"]) <= CLIP).all()
    assert (arrays["categories"] >= 0).all()
    assert (arrays["categories"] < np.array(TRANSFORM.vocabulary_sizes)).all()


@given(rows)
@settings(max_examples=100, deadline=None)
def test_json_brings_back_the_same_transform(row: dict) -> None:
    again = transform_from_json(TRANSFORM.to_json())
    assert again == TRANSFORM and again.to_json() == TRANSFORM.to_json()
    for name, array in TRANSFORM.encode(columns([row])).items():
        assert np.array_equal(array, again.encode(columns([row]))[name])


ROW = {
    "carrier": b"AA",
    "distance": 1040.5,
    "weekday": 6,
    "maker": b"BOEING",
    "wind_dir": 90.0,
    "minute": 980,
    "temp": 75.0,
}


def encoded(**changes: object) -> tuple[list[int], list[float]]:
    arrays = TRANSFORM.encode(columns([{**ROW, **changes}]))
    return arrays["categories"][0].tolist(), arrays["numbers"][0].round(6).tolist()


def test_known_values_have_known_places() -> None:
    # distance | wind: sine, cosine, missing | minute | temp, missing
    assert encoded() == ([1, 3, 1], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


def test_an_unknown_category_is_bucket_zero_like_a_missing_one() -> None:
    assert encoded(carrier=b"ZZ", weekday=3, maker=b"AIRBUS")[0] == [0, 0, 0]
    assert encoded(maker=b"")[0] == [1, 3, 0]


@pytest.mark.parametrize("gone", [np.nan, np.inf, -np.inf, 1048.4, -81.0])
def test_missing_and_impossible_numbers_are_the_same(gone: float) -> None:
    assert encoded(temp=gone)[1][-2:] == [0.0, 1.0]
    assert encoded(wind_dir=gone)[1][1:4] == [0.0, 0.0, 1.0]


def test_north_is_next_to_north() -> None:
    one, other = encoded(wind_dir=0.0)[1], encoded(wind_dir=360.0)[1]
    assert np.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "column", "said"),
    [
        ("distance", np.array([np.nan], np.float32), r"distance\[0\] is nan; it must be .* 1 to"),
        ("distance", np.array([np.inf], np.float32), r"distance\[0\] is inf"),
        ("distance", np.array([0.0], np.float32), r"distance\[0\] is 0; .* from 1 to 12500"),
        ("distance", np.array([5.0], np.float64), "distance has dtype float64; it must be FP32"),
        ("minute", np.array([5], np.int64), "minute has dtype int64; it must be INT32"),
        ("minute", np.array([5.0], np.float32), "minute has dtype float32; it must be INT32"),
        ("minute", np.array([1441], np.int32), r"minute\[0\] is 1441"),
        ("carrier", np.array([b""], object), r"carrier\[0\] is empty"),
        ("carrier", np.array([b"x" * 65], object), "carrier has a value of 65 bytes; 64 at most"),
        ("carrier", np.array([b"\xff"], object), "carrier has a value that is not UTF-8"),
        ("carrier", np.array([7], object), "carrier must be text, not int"),
        ("carrier", np.array([7], np.int32), "carrier has dtype int32; it must be BYTES"),
        ("temp", np.zeros((1, 2), np.float32), r"temp has shape \[1, 2\]"),
        ("temp", np.zeros((2,), np.float32), r"different batch sizes: \[1, 2\]"),
        ("temp", np.zeros((0,), np.float32), r"temp has shape \[0\]"),
    ],
)
def test_a_bad_column_is_named(name: str, column: np.ndarray, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        TRANSFORM.encode({**columns([ROW]), name: column})


def test_columns_must_be_exactly_those_of_the_transform() -> None:
    given = columns([ROW])
    distance = given.pop("distance")
    with pytest.raises(InvalidInput, match=r"missing: \['distance'\]; not known: none"):
        TRANSFORM.encode(given)
    with pytest.raises(InvalidInput, match=r"not known: \['arr_delay'\]"):
        TRANSFORM.encode({**given, "distance": distance, "arr_delay": distance})


@given(rows)
@settings(max_examples=50, deadline=None)
def test_an_absent_optional_column_is_missing_in_every_row(row: dict) -> None:
    given_columns = columns([row, row])
    gone = {"maker": b"", "wind_dir": np.nan, "temp": np.nan}
    missing = TRANSFORM.encode(columns([{**row, **gone}] * 2))
    for name in gone:
        del given_columns[name]
    absent = TRANSFORM.encode(given_columns)
    assert all(np.array_equal(absent[name], missing[name]) for name in missing)


def test_a_request_of_optional_columns_needs_one() -> None:
    only = TabularTransform(
        (Number("temp", "FP32", -80.0, 140.0, 57.0, 18.0, nullable=True),),
        Target("price", "regression", "price"),
    )
    with pytest.raises(InvalidInput, match="needs at least one input"):
        only.encode({})


def test_no_categories_or_no_numbers_are_arrays_of_width_zero() -> None:
    for name, shapes in (("carrier", [(1, 1), (1, 0)]), ("minute", [(1, 0), (1, 1)])):
        features = tuple(one for one in TRANSFORM.features if one.name == name)
        small = TabularTransform(features, TRANSFORM.target)
        encoded = small.encode({name: columns([ROW])[name]})
        assert [array.shape for array in encoded.values()] == shapes
        assert [str(array.dtype) for array in encoded.values()] == ["int64", "float32"]


def test_another_kind_of_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'text', not 'tabular'"):
        transform_from_json('{"kind": "text"}')
