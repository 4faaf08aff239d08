"""The flights model in process: what Triton serves, without Triton."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from . import flights_transform
from .flights_transform import FlightsTransform
from .session import open_session


class FlightsModel:
    """The transform and the network of one package version.

    `FlightsModel.load(version_dir)(inputs)` is the whole use; the package's golden examples, the
    release gates and the Triton entry all come through here.
    """

    def __init__(self, transform: FlightsTransform, session: onnxruntime.InferenceSession):
        self.transform = transform
        self.session = session

    @classmethod
    def load(cls, version_dir: Path, threads: int = 1) -> FlightsModel:
        """Read `transform.json` and `model.onnx` from a package's version folder."""
        transform = flights_transform.load(Path(version_dir) / "transform.json")
        return cls(transform, open_session(Path(version_dir) / "model.onnx", threads))

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw columns, each [batch] or [batch, 1] -> {`late_probability`: float32 [batch, 1]}.

        Raises `InvalidInput` for what the transform refuses.
        """
        (probability,) = self.session.run(["late_probability"], self.transform.encode(inputs))
        return {"late_probability": probability.astype(np.float32).reshape(-1, 1)}
