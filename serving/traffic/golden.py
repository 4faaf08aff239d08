"""Golden examples as an HTTP client uses them: request bodies, and was the answer the right one.

Versions of one model share most golden inputs; here they are put together, so that an answer is
judged by the version that gave it, also in the middle of a rollout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.artifact import golden
from serving.artifact.golden import GoldenError, GoldenTensor
from serving.artifact.store import models, versions


@dataclass(frozen=True)
class Example:
    """One request in the KServe v2 JSON form, and by version the example it came from."""

    body: bytes
    expected: Mapping[str, golden.Example]


def read_examples(store: Path, model: str) -> list[Example]:
    """The examples of every version of `model` in the store. Raises GoldenError."""
    bodies: dict[bytes, dict[str, golden.Example]] = {}
    try:
        for version in versions(store, model):
            for example in golden.load(Path(store) / model / str(version)):
                bodies.setdefault(request_body(example.inputs), {})[str(version)] = example
        known = ", ".join(models(store)) or "no model at all"
    except OSError as error:
        raise GoldenError(f"the store {store} cannot be read: {error.strerror}") from error
    if not bodies:
        raise GoldenError(f"no golden examples of {model!r} in {store}; the store has {known}")
    return [Example(body, expected) for body, expected in bodies.items()]


def request_body(inputs: Mapping[str, GoldenTensor]) -> bytes:
    """The body of `POST /v2/models/<model>/infer`. NaN goes as NaN, which Triton reads."""
    tensors = []
    for name, tensor in sorted(inputs.items()):
        data = tensor.array().reshape(-1).tolist()
        if tensor.dtype == "BYTES":
            data = [text.decode() for text in data]
        tensors.append(
            {"name": name, "datatype": tensor.dtype, "shape": list(tensor.shape), "data": data}
        )
    return json.dumps({"inputs": tensors}).encode()


def verdict(example: Example, version: str, answer: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Is the decoded `answer` of `version` right? None where nothing is known about that version.

    The second value says what differs, empty where nothing does. Raises KeyError, TypeError or
    ValueError for an answer that is not in the v2 form.
    """
    expected = example.expected.get(version)
    if expected is None:
        return None, ""
    outputs = {
        output["name"]: GoldenTensor(output["datatype"], output["shape"], output["data"]).array()
        for output in answer["outputs"]
    }
    differences = golden.differences(expected, outputs)
    return not differences, "; ".join(f"version {version}: {text}" for text in differences)
