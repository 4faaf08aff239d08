"""A model with named tensors in and out, batched on their first dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from .batching import Answer, answer_together
from .errors import InvalidInput
from .session import open_session

KIND = "arrays"


@dataclass(frozen=True)
class ArraySpec:
    """One input: numpy's name of its dtype, and the shape of a row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ArraysModel:
    """The network of one package version, fed as it is: `transform.json` names the inputs, each
    [batch, *shape] of its dtype, and `model.onnx` the outputs, each [batch, ...]."""

    def __init__(self, inputs: Sequence[ArraySpec], session: onnxruntime.InferenceSession):
        self.inputs = tuple(inputs)
        self.session = session
        self.outputs = [one.name for one in session.get_outputs()]

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> ArraysModel:
        """Read `transform.json` and `model.onnx` from a package's version folder.

        `settings` are the parameters of config.pbtxt; `threads` is the only one used, 1 by default.
        Raises ValueError for a transform of another kind.
        """
        content = json.loads((Path(version_dir) / "transform.json").read_text(encoding="utf-8"))
        if content.get("kind") != KIND:
            raise ValueError(f"this is a transform of kind {content.get('kind')!r}, not {KIND!r}")
        inputs = [
            ArraySpec(one["name"], one["dtype"], tuple(one["shape"])) for one in content["inputs"]
        ]
        threads = int((settings or {}).get("threads", "1"))
        return cls(inputs, open_session(Path(version_dir) / "model.onnx", threads))

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every input, [batch, *shape] -> every output. Raises `InvalidInput`."""
        found = self.session.run(self.outputs, self.columns(inputs))
        return dict(zip(self.outputs, found, strict=True))

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs, their names, dtypes and shapes checked. Raises `InvalidInput`."""
        names = {one.name for one in self.inputs}
        if set(inputs) != names:
            absent, extra = sorted(names - set(inputs)), sorted(set(inputs) - names)
            raise InvalidInput(f"inputs missing: {absent or 'none'}; not known: {extra or 'none'}")
        found = {one.name: _checked(one, np.asarray(inputs[one.name])) for one in self.inputs}
        lengths = {len(array) for array in found.values()}
        if len(lengths) != 1:
            raise InvalidInput(f"inputs have different batch sizes: {sorted(lengths)}")
        return found

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the network, as if each were alone."""
        return answer_together(self, requests)


def _checked(spec: ArraySpec, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.dtype(spec.dtype):
        raise InvalidInput(f"{spec.name} has dtype {array.dtype}; it must be {spec.dtype}")
    if array.shape[1:] != spec.shape or array.ndim == 0 or len(array) == 0:
        wanted = ["batch", *spec.shape]
        raise InvalidInput(
            f"{spec.name} has shape {list(array.shape)}; it must be [{', '.join(map(str, wanted))}]"
        )
    return array
