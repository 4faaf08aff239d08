"""Several requests answered in one run of a model, as if each were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from .errors import InvalidInput

Arrays = Mapping[str, np.ndarray]
Answer = dict[str, np.ndarray] | InvalidInput


class RequestModel(Protocol):
    """A model that is called on the inputs of one request, and raises `InvalidInput` for it."""

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]: ...


class BatchedModel(RequestModel, Protocol):
    """A model whose inputs and outputs have the batch as their first dimension."""

    def columns(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The checked inputs, every one [batch, ...]. Raises `InvalidInput`."""
        ...


def answer_together(model: BatchedModel, requests: Sequence[Arrays]) -> list[Answer]:
    """The outputs of each request, from one run on all their rows.

    When any of them is refused, each is done by itself, so that only the bad ones get the
    `InvalidInput` that is returned (not raised) in their place.
    """
    try:
        columns = [model.columns(request) for request in requests]
        outputs = model(
            {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
        )
    except InvalidInput:
        return [answer_alone(model, request) for request in requests]
    stops = np.cumsum([len(next(iter(one.values()))) for one in columns])[:-1]
    parts = {name: np.split(values, stops) for name, values in outputs.items()}
    return [{name: parts[name][place] for name in parts} for place in range(len(requests))]


def answer_alone(model: RequestModel, request: Arrays) -> Answer:
    """The outputs of one request, or its `InvalidInput`."""
    try:
        return model(request)
    except InvalidInput as error:
        return error
