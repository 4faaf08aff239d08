"""Predictions through an endpoint: batches, shapes as sent, the output that is the prediction."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from serving.artifact.tensors import TensorSpec
from serving.release import predictions
from serving.release.predictions import served_predictions
from serving.release.problem import read_problem
from serving.release.subject import ServedPackages

from .subjects import bare_subject

X, WORD = TensorSpec("x", "FP32", (-1, 2, 2)), TensorSpec("word", "BYTES", (-1, 1))


class EchoEndpoint:
    """A stand-in for a server: answers what `answer` makes of a request."""

    def __init__(self, answer, batch: int = 64) -> None:
        self.answer, self.batch, self.sent = answer, batch, []

    def max_batch(self) -> int:
        return self.batch

    def infer_all(self, requests: Iterable[dict], in_flight: int) -> Iterator[dict]:
        for request in requests:
            self.sent.append(request)
            yield self.answer(request)


def test_rows_go_out_in_the_largest_batches_and_come_back_in_order() -> None:
    endpoint = EchoEndpoint(lambda sent: {"y": sent["x"].sum(axis=(1, 2)).reshape(-1, 1)}, batch=7)
    x = np.arange(80, dtype=np.float32).reshape(20, 2, 2)
    columns = {"x": x, "word": np.array(["é", b"b"] * 10, dtype=object), "other": np.zeros(20)}
    found = served_predictions(endpoint, (X, WORD), columns, "y", 2)  # type: ignore[arg-type]
    assert found.dtype == np.float64 and np.array_equal(found, x.sum(axis=(1, 2)))
    assert [len(one["x"]) for one in endpoint.sent] == [7, 7, 6]
    assert endpoint.sent[0]["word"].shape == (7, 1) and set(endpoint.sent[0]) == {"x", "word"}
    assert endpoint.sent[0]["word"][:2, 0].tolist() == ["é".encode(), b"b"]


def test_classes_keep_their_columns() -> None:
    endpoint = EchoEndpoint(lambda sent: {"p": np.ones((len(sent["x"]), 3), np.float32)})
    columns = {"x": np.zeros((5, 2, 2), np.float32)}
    found = served_predictions(endpoint, (X,), columns, "p", 1)  # type: ignore[arg-type]
    assert found.shape == (5, 3)


def test_answers_without_measure_end_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MAX_BYTES", 1000)
    endpoint = EchoEndpoint(lambda sent: {"y": np.ones((len(sent["x"]), 60), np.float64)}, batch=1)
    columns = {"x": np.zeros((5, 2, 2), np.float32)}
    with pytest.raises(ValueError, match="the predictions of y have more than 1000 bytes"):
        served_predictions(endpoint, (X,), columns, "y", 1)  # type: ignore[arg-type]
    assert len(endpoint.sent) == 3


@pytest.mark.parametrize(
    ("columns", "output", "said"),
    [
        ({}, "y", "no column for the input x"),
        ({"x": np.zeros((4, 2, 2), np.float32)}, "z", "serves no output z: y, label"),
        ({"x": np.zeros((4, 2, 2), np.float32)}, "label", "label is text"),
    ],
)
def test_what_cannot_be_predicted_is_said(columns: dict, output: str, said: str) -> None:
    def answer(sent: dict) -> dict:
        rows = len(sent["x"])
        return {"y": np.zeros(rows), "label": np.array([b"a"] * rows, dtype=object)}

    with pytest.raises(ValueError, match=said):
        served_predictions(EchoEndpoint(answer), (X,), columns, output, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("transform", "kind", "output", "classes"),
    [
        (
            {"kind": "tabular", "target": {"kind": "binary", "output": "late", "classes": None}},
            "binary", "late", None,
        ),
        (
            {
                "kind": "tabular",
                "target": {"kind": "multiclass", "output": "species", "classes": ["a", "b"]},
            },
            "multiclass", "probabilities", ("a", "b"),
        ),
        (
            {"kind": "tabular", "target": {"kind": "regression", "output": "y", "classes": None}},
            "regression", "y", None,
        ),
        ({"kind": "labelled-text", "labels": ["no", "yes"]}, "multiclass", "probabilities",
         ("no", "yes")),
        ({"kind": "arrays", "targets": [{"dtype": "INT64"}]}, "multiclass", None, None),
        ({"kind": "arrays", "targets": [{"dtype": "FP32"}]}, "regression", None, None),
    ],
)  # fmt: skip
def test_the_problem_is_what_the_dataset_describes(
    tmp_path: Path, transform: dict, kind: str, output: str | None, classes: tuple | None
) -> None:
    (tmp_path / "transform.json").write_text(json.dumps(transform))
    found = read_problem(tmp_path)
    assert (found.kind, found.output, found.classes) == (kind, output, classes)


def test_a_dataset_without_a_target_has_no_quality(tmp_path: Path) -> None:
    (tmp_path / "transform.json").write_text('{"kind": "text"}')
    with pytest.raises(ValueError, match="of kind 'text', which has no target"):
        read_problem(tmp_path)


def test_the_output_is_the_only_one_or_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "transform.json").write_text('{"kind": "arrays", "targets": [{"dtype": "FP32"}]}')
    (tmp_path / "holdout").mkdir()
    endpoint = EchoEndpoint(lambda sent: {"y": sent["x"][:, 0, 0], "z": sent["x"][:, 1, 1]})

    def subject(*outputs: str):
        tensors = tuple(TensorSpec(name, "FP32", (-1,)) for name in outputs)
        made = bare_subject(
            staged=SimpleNamespace(candidate=SimpleNamespace(inputs=(X,), outputs=tensors)),
            find_dataset=lambda: tmp_path,
            start_servers=lambda: ServedPackages(endpoint, None),  # type: ignore[arg-type]
        )
        x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
        examples = SimpleNamespace(inputs={"x": x}, target=np.zeros(3), group=None)
        made.once(("examples", "holdout"), lambda: examples)
        return made

    assert subject("y").predictions("holdout").tolist() == [0, 4, 8]
    two = subject("y", "z")
    with pytest.raises(ValueError, match="outputs y, z: name the one that is the prediction"):
        two.predictions("holdout")
    assert two.predictions("holdout", "z").tolist() == [3, 7, 11]
    with pytest.raises(ValueError, match="no version is in production"):
        two.predictions("holdout", "z", of_production=True)
