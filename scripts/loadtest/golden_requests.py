"""The requests of a load test, which are the golden examples of every version of a model.

Versions of one model share most golden inputs; here they are put together, so that an answer is
compared with what the version that gave it must answer, also in the middle of a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.golden import GoldenError, GoldenExample, differences, read_examples
from serving.artifact.store import models, versions
from serving.triton.kserve import HttpAnswer, HttpRequest, encode_request, fits_json


@dataclass(frozen=True)
class LoadRequest:
    """One request, and by version the golden example that it came from."""

    request: HttpRequest
    expected: Mapping[str, GoldenExample]


def read_requests(store: Path, model: str) -> list[LoadRequest]:
    """The examples of every version of `model` in the store. Raises GoldenError."""
    requests: dict[bytes, HttpRequest] = {}
    expected: dict[bytes, dict[str, GoldenExample]] = {}
    try:
        for version in versions(store, model):
            for example in read_examples(Path(store) / model / str(version)):
                request = encode_request(example.inputs, binary=not fits_json(example.inputs))
                requests.setdefault(request.body, request)
                expected.setdefault(request.body, {})[str(version)] = example
        known = ", ".join(models(store)) or "no model at all"
    except OSError as error:
        raise GoldenError(f"the store {store} cannot be read: {error.strerror}") from error
    if not requests:
        raise GoldenError(f"no golden examples of {model!r} in {store}; the store has {known}")
    return [LoadRequest(request, expected[body]) for body, request in requests.items()]


def check_answer(request: LoadRequest, answer: HttpAnswer) -> tuple[bool | None, str]:
    """True for a right answer, else what differs; None where its version is unknown here."""
    example = request.expected.get(answer.model_version)
    if example is None:
        return None, ""
    found = differences(example, answer.outputs)
    return not found, "; ".join(f"version {answer.model_version}: {text}" for text in found)
