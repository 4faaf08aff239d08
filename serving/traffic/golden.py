"""Golden examples as an HTTP client uses them: request bodies, and was the answer the right one.

A package's `golden.json` says what its version answers to some inputs. Versions of one model share
most of these inputs; here they are put together, so that an answer is judged by the version that
gave it, also in the middle of a rollout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.artifact.store import models, versions

GOLDEN = "golden.json"


class GoldenError(ValueError):
    """There are no golden examples to use, or they do not read as such; the message says where."""


@dataclass(frozen=True)
class Example:
    """One request in the KServe v2 JSON form, and the expected outputs by version."""

    body: bytes
    expected: Mapping[str, Mapping[str, Any]]
    """version -> {"outputs": {name: {data, ...}}, "atol": x, "rtol": x}"""


def read_examples(store: Path, model: str) -> list[Example]:
    """The examples of every version of `model` in the store. Raises GoldenError."""
    bodies: dict[bytes, dict[str, Mapping[str, Any]]] = {}
    for version in versions(store, model):
        path = Path(store) / model / str(version) / GOLDEN
        try:
            for entry in json.loads(path.read_text(encoding="utf-8")):
                bodies.setdefault(request_body(entry["inputs"]), {})[str(version)] = entry
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GoldenError(f"{path} does not read as golden examples: {error}") from error
    if not bodies:
        known = ", ".join(models(store)) or "no model at all"
        raise GoldenError(f"no golden examples of {model!r} in {store}; the store has {known}")
    return [Example(body, expected) for body, expected in bodies.items()]


def request_body(inputs: Mapping[str, Any]) -> bytes:
    """The body of `POST /v2/models/<model>/infer` for an example's `inputs`."""
    tensors = [
        {
            "name": name,
            "datatype": tensor["dtype"],
            "shape": tensor["shape"],
            "data": _flat(tensor["data"]),
        }
        for name, tensor in sorted(inputs.items())
    ]
    return json.dumps({"inputs": tensors}).encode()


def verdict(example: Example, version: str, answer: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Is the decoded `answer` of `version` right? None where nothing is known about that version.

    The second value says what differs, empty where nothing does. Raises KeyError or TypeError for
    an answer that is not in the v2 form.
    """
    expected = example.expected.get(version)
    if expected is None:
        return None, ""
    given = {output["name"]: output["data"] for output in answer["outputs"]}
    for name, tensor in expected["outputs"].items():
        if name not in given:
            return False, f"output {name} is missing"
        want, have = _flat(tensor["data"]), _flat(given[name])
        if len(want) != len(have):
            return False, f"{name} has {len(have)} values, not {len(want)}"
        atol, rtol = float(expected.get("atol", 0.0)), float(expected.get("rtol", 0.0))
        for one, other in zip(want, have, strict=True):
            if not _equal(one, other, atol, rtol):
                return False, f"{name} is {other!r}, version {version} must say {one!r}"
    return True, ""


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for item in data for value in _flat(item)]


def _equal(want: Any, have: Any, atol: float, rtol: float) -> bool:
    if isinstance(want, str) or isinstance(have, str):
        return bool(want == have)
    if math.isnan(want) or math.isnan(have):
        return math.isnan(want) and math.isnan(have)
    return abs(want - have) <= atol + rtol * abs(want) or want == have
