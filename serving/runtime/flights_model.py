"""The flights model in process: what Triton serves, without Triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from . import flights_transform
from .errors import InvalidInput
from .flights_transform import FlightsTransform
from .session import open_session

Answer = dict[str, np.ndarray] | InvalidInput


class FlightsModel:
    """The transform and the network of one package version.

    `FlightsModel.load(version_dir)(inputs)` is the whole use; the package's golden examples, the
    release gates and the Triton entry all come through here.
    """

    def __init__(self, transform: FlightsTransform, session: onnxruntime.InferenceSession):
        self.transform = transform
        self.session = session

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> FlightsModel:
        """Read `transform.json` and `model.onnx` from a package's version folder.

        `settings` are the parameters of config.pbtxt; `threads` is the only one used, 1 by default.
        """
        transform = cls.transform_of(version_dir)
        threads = int((settings or {}).get("threads", "1"))
        return cls(transform, open_session(Path(version_dir) / "model.onnx", threads))

    @staticmethod
    def transform_of(version_dir: Path) -> FlightsTransform:
        """The frozen transform of a package's version folder (or of a dataset)."""
        return flights_transform.load(Path(version_dir) / "transform.json")

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw columns, each [batch] or [batch, 1] -> {`late_probability`: float32 [batch, 1]}.

        Raises `InvalidInput` for what the transform refuses.
        """
        (probability,) = self.session.run(["late_probability"], self.transform.encode(inputs))
        return {"late_probability": probability.astype(np.float32).reshape(-1, 1)}

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the network, as if each were alone.

        When any of them is refused, each is done by itself, so that only the bad ones get the
        `InvalidInput` that is returned (not raised) in their place.
        """
        try:
            columns = [self.transform.columns(request) for request in requests]
            together = {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
            late = self(together)["late_probability"]
        except InvalidInput:
            return [self._alone(request) for request in requests]
        stops = np.cumsum([len(next(iter(one.values()))) for one in columns])[:-1]
        return [{"late_probability": part} for part in np.split(late, stops)]

    def _alone(self, request: Mapping[str, np.ndarray]) -> Answer:
        try:
            return self(request)
        except InvalidInput as error:
            return error
