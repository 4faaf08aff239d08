"""A model with named tensors in and out, batched on their first dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from .array_inputs import ArraySpec, array_columns, read_array_inputs
from .batching import Answer, answer_together
from .session import open_session


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
        inputs = read_array_inputs(version_dir)
        threads = int((settings or {}).get("threads", "1"))
        return cls(inputs, open_session(Path(version_dir) / "model.onnx", threads))

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every input, [batch, *shape] -> every output. Raises `InvalidInput`."""
        found = self.session.run(self.outputs, self.columns(inputs))
        return dict(zip(self.outputs, found, strict=True))

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs, their names, dtypes and shapes checked. Raises `InvalidInput`."""
        return array_columns(self.inputs, inputs)

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the network, as if each were alone."""
        return answer_together(self, requests)
