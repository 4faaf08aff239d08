"""The inputs of a model of arrays, as `transform.json` names them, and their checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InvalidInput

KIND = "arrays"


@dataclass(frozen=True)
class ArraySpec:
    """One input: numpy's name of its dtype, and the shape of a row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read_array_inputs(version_dir: Path) -> tuple[ArraySpec, ...]:
    """The inputs that `transform.json` of a version folder names, in its order.

    Raises ValueError for a transform of another kind.
    """
    content = json.loads((Path(version_dir) / "transform.json").read_text(encoding="utf-8"))
    if content.get("kind") != KIND:
        raise ValueError(f"this is a transform of kind {content.get('kind')!r}, not {KIND!r}")
    return tuple(
        ArraySpec(one["name"], one["dtype"], tuple(one["shape"])) for one in content["inputs"]
    )


def array_columns(
    specs: Sequence[ArraySpec], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`inputs` in the order of `specs`, each [batch, *shape]; names, dtypes and shapes checked.

    Raises `InvalidInput`.
    """
    names = {one.name for one in specs}
    if set(inputs) != names:
        absent, extra = sorted(names - set(inputs)), sorted(set(inputs) - names)
        raise InvalidInput(f"inputs missing: {absent or 'none'}; not known: {extra or 'none'}")
    found = {one.name: _checked(one, np.asarray(inputs[one.name])) for one in specs}
    lengths = {len(array) for array in found.values()}
    if len(lengths) != 1:
        raise InvalidInput(f"inputs have different batch sizes: {sorted(lengths)}")
    return found


def _checked(spec: ArraySpec, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.dtype(spec.dtype):
        raise InvalidInput(f"{spec.name} has dtype {array.dtype}; it must be {spec.dtype}")
    if array.shape[1:] != spec.shape or array.ndim == 0 or len(array) == 0:
        wanted = ["batch", *spec.shape]
        raise InvalidInput(
            f"{spec.name} has shape {list(array.shape)}; it must be [{', '.join(map(str, wanted))}]"
        )
    return array
