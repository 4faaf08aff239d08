"""A punished run against the undisturbed one: curve, weights and MLflow's points, bit by bit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.jobs.run.curve import PROGRESS

Points = Mapping[tuple[str, int], str]
"""Values by metric and step, written so that equal texts are equal bits."""
TIMES = ("time", "step")
NUMBERS_OF_TRAINING = re.compile(r"lr|gradient_norm")
"""Keys that tell of progress elsewhere, and are numbers of the training here."""
SHOWN = 3


def curve_points(lines: Sequence[Mapping[str, Any]]) -> tuple[Points, list[str]]:
    """The numbers of a curve that do not depend on the machine's speed, and its own faults.

    A step that is there twice is a fault: the curve was not rewound.
    """
    points: dict[tuple[str, int], str] = {}
    faults = []
    for line in lines:
        for key, value in line.items():
            timing = PROGRESS.fullmatch(key) and not NUMBERS_OF_TRAINING.fullmatch(key)
            if key in TIMES or timing or not _is_number_or_null(value):
                continue
            if (key, line["step"]) in points:
                faults.append(f"{key} of step {line['step']} is there twice")
            points[key, line["step"]] = _bits(value)
    return points, faults


def mlflow_points(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, int], str]:
    """The points that MLflow must have of these lines: metric, step, milliseconds since 1970."""
    return {
        (key, line["step"], round(line["time"] * 1000)): _bits(value)
        for line in lines
        for key, value in line.items()
        if key not in TIMES and value is not None and _is_number_or_null(value)
    }


def tensors(path: Path) -> dict[str, str]:
    """Name -> dtype, shape and bytes of each tensor of a file of safetensors. Raises OSError.

    See https://huggingface.co/docs/safetensors#format
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    return {
        name: f"{one['dtype']} {one['shape']} "
        + content[start + one["data_offsets"][0] : start + one["data_offsets"][1]].hex()
        for name, one in header.items()
        if name != "__metadata__"
    }


def differences(reference: Mapping[Any, str], punished: Mapping[Any, str]) -> list[Any]:
    """The keys whose values are not the same text, or that only one of them has."""
    keys = dict.fromkeys([*reference, *punished])
    return [key for key in keys if reference.get(key) != punished.get(key)]


def difference_lines(what: str, found: Sequence[Any]) -> list[str]:
    """Lines for people about the first of `found`; none for none."""
    if not found:
        return []
    first = "; ".join(" ".join(map(str, one)) if isinstance(one, tuple) else str(one)
                      for one in found[:SHOWN])  # fmt: skip
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{what}: {first}{more}"]


def _is_number_or_null(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _bits(value: float | None) -> str:
    return "null" if value is None else float(value).hex()
