"""The runtime's classes: one request or several, each answered as if it were alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from serving.runtime.arrays_model import ArraysModel
from serving.runtime.errors import InvalidInput
from serving.runtime.features import Category, Number
from serving.runtime.tabular_model import TabularModel
from serving.runtime.tabular_transform import TabularTransform, Target
from serving.runtime.text_classifier import TextClassifier
from tests.serving.runtime.onnx_models import save_arrays, save_classifier, save_tabular
from tests.serving.runtime.test_transform import ROW, TRANSFORM, columns, rows

CLASSES = ("ash", "elm", "oak")


def write_tabular(folder: Path, transform: TabularTransform, outputs: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transform.json").write_text(transform.to_json())
    save_tabular(
        folder / "model.onnx", len(transform.categories), transform.number_columns, outputs
    )
    return folder


def write_classifier(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = {"[UNK]": 0, "[PAD]": 1, "low": 2, "high": 9}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"kind": "labelled-text", "labels": ["no", "yes"], "max_tokens": 4, "pad_id": 1}
    (folder / "transform.json").write_text(json.dumps(content))
    save_classifier(folder / "model.onnx")
    return folder


def write_arrays(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = {"name": "image", "dtype": "float32", "shape": [2, 2]}
    content = {"kind": "arrays", "inputs": [image], "targets": [], "group": None}
    (folder / "transform.json").write_text(json.dumps(content))
    save_arrays(folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> TabularModel:
    return TabularModel.load(write_tabular(tmp_path_factory.mktemp("m") / "1", TRANSFORM))


def batches(sizes: list[int], found: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    stops = np.cumsum(sizes)
    return [columns(found[stop - size : stop]) for size, stop in zip(sizes, stops, strict=True)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_requests_together_are_answered_as_alone(tabular, sizes: list[int], data) -> None:
    found = data.draw(st.lists(rows, min_size=sum(sizes), max_size=sum(sizes)))
    requests = batches(sizes, found)
    for request, answer in zip(requests, tabular.answer(requests), strict=True):
        assert list(answer) == ["late_probability"]
        assert answer["late_probability"].dtype == np.float32
        alone = tabular(request)["late_probability"]
        assert alone.shape == (len(request["minute"]), 1)
        np.testing.assert_allclose(answer["late_probability"], alone, rtol=1e-5, atol=1e-5)


def test_a_bad_request_fails_alone(tabular: TabularModel) -> None:
    good, bad = columns([ROW]), {**columns([ROW]), "distance": np.array([np.nan], np.float32)}
    answers = tabular.answer([good, bad, good])
    assert isinstance(answers[1], InvalidInput) and "distance[0] is nan" in str(answers[1])
    assert np.array_equal(answers[0]["late_probability"], tabular(good)["late_probability"])
    assert np.array_equal(answers[0]["late_probability"], answers[2]["late_probability"])


def test_an_optional_input_may_be_left_out_of_one_request_of_a_batch(tabular: TabularModel) -> None:
    whole = columns([{**ROW, "temp": np.nan, "maker": b""}, ROW])
    without = columns([{**ROW, "temp": np.nan, "maker": b""}])
    short = {name: value for name, value in without.items() if name not in ("temp", "maker")}
    answers = tabular.answer([short, columns([ROW])])
    together = tabular(whole)["late_probability"]
    np.testing.assert_allclose(
        np.concatenate([one["late_probability"] for one in answers]), together, rtol=1e-6
    )


def test_classes_are_served_as_chances_and_a_label(tmp_path: Path) -> None:
    transform = TabularTransform(
        (Number("size", "FP32", -9.0, 9.0, 0.0, 1.0, False),),
        Target("species", "multiclass", "probabilities", CLASSES),
    )
    model = TabularModel.load(write_tabular(tmp_path, transform, outputs=3))
    answer = model({"size": np.array([[2.0], [-2.0]], np.float32)})
    assert answer["probabilities"].tolist() == [[2, 4, 6], [-2, -4, -6]]
    assert answer["label"].tolist() == [[b"oak"], [b"ash"]] and answer["label"].dtype == object


def test_a_regression_is_served_under_its_name(tmp_path: Path) -> None:
    transform = TabularTransform(
        (Category("colour", "BYTES", ("red",), False),),
        Target("price", "regression", "price", None, 10.0, 2.0),
    )
    model = TabularModel.load(write_tabular(tmp_path, transform))
    answer = model({"colour": np.array([b"red", b"blue"], object)})
    assert answer["price"].tolist() == [[1.0], [0.0]]


def test_arrays_go_in_and_out_by_name(tmp_path: Path) -> None:
    model = ArraysModel.load(write_arrays(tmp_path))
    image = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    one, two = model.answer([{"image": image}, {"image": image[:1]}])
    assert np.array_equal(one["doubled"], image * 2) and one["total"].tolist() == [6, 22]
    assert two["total"].tolist() == [6]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs missing: \['image'\]; not known: none"),
        ({"image": np.zeros((1, 2, 2))}, "image has dtype float64; it must be float32"),
        (
            {"image": np.zeros((1, 2, 3), np.float32)},
            r"image has shape \[1, 2, 3\]; it must be \[batch, 2, 2\]",
        ),
        ({"image": np.zeros((0, 2, 2), np.float32)}, r"image has shape \[0, 2, 2\]"),
        ({"image": np.float32(1)}, r"image has shape \[\]"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, inputs: dict, message: str) -> None:
    model = ArraysModel.load(write_arrays(tmp_path))
    with pytest.raises(InvalidInput, match=message):
        model(inputs)


def test_texts_are_classified_whatever_stands_beside_them(tmp_path: Path) -> None:
    model = TextClassifier.load(write_classifier(tmp_path))
    texts = [b"low", b"high high high high high high", b"low high", "naïve Ω".encode()]
    together = model({"text": np.array(texts, object).reshape(-1, 1)})
    assert together["probabilities"].dtype == np.float32
    assert np.allclose(together["probabilities"].sum(axis=1), 1)
    assert together["label"].shape == (4, 1) and together["label"][0, 0] == b"yes"
    answers = model.answer([{"text": np.array([text], object)} for text in texts])
    for place, answer in enumerate(answers):
        row = together["probabilities"][place]
        np.testing.assert_allclose(answer["probabilities"][0], row, rtol=1e-6)
    mean = (2 + 9) / 2
    assert together["probabilities"][2, 1] == pytest.approx(1 / (1 + np.exp(-2 * mean)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"words": np.array([b"a"], object)}, r"the one input must be text, not \['words'\]"),
        ({"text": np.array([b""], object)}, "text is empty"),
        ({"text": np.array([b"\xff"], object)}, "text is not UTF-8 at byte 0"),
        ({"text": np.array([3], np.int32)}, "text must be BYTES"),
        ({"text": np.array([[b"a", b"b"]], object)}, r"text must be BYTES \[batch, 1\]"),
        ({"text": np.array([b"a" * 21], object)}, "text has 21 bytes; at most 20 are taken"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, inputs: dict, message: str) -> None:
    model = TextClassifier.load(write_classifier(tmp_path), {"max_text_bytes": "20"})
    with pytest.raises(InvalidInput, match=message):
        model(inputs)


@pytest.mark.parametrize("model", [ArraysModel, TabularModel, TextClassifier])
def test_a_transform_of_another_kind_is_refused(tmp_path: Path, model: Any) -> None:
    (tmp_path / "transform.json").write_text('{"kind": "text"}')
    with pytest.raises(ValueError, match="kind 'text', not"):
        model.load(tmp_path)
