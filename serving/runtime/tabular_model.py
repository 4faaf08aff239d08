"""The tabular model in process: what Triton serves, without Triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from .batching import Answer, answer_together
from .labels import class_outputs
from .session import open_session
from .tabular_transform import TabularTransform, load_transform


class TabularModel:
    """The transform and the network of one package version.

    `TabularModel.load(version_dir)(inputs)` is the whole use; the package's golden examples, the
    release gates and the Triton entry all come through here. `model.onnx` takes `categories` int64
    [batch, C] and `numbers` fp32 [batch, N] and gives `output` fp32 [batch, K], final: the
    probability of 1, the probability of each class, or the value in the target's own unit.
    """

    def __init__(self, transform: TabularTransform, session: onnxruntime.InferenceSession):
        self.transform = transform
        self.session = session
        self.fed = [one.name for one in session.get_inputs()]  # an empty array may be left out

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> TabularModel:
        """Read `transform.json` and `model.onnx` from a package's version folder.

        `settings` are the parameters of config.pbtxt; `threads` is the only one used, 1 by default.
        """
        transform = load_transform(Path(version_dir) / "transform.json")
        threads = int((settings or {}).get("threads", "1"))
        return cls(transform, open_session(Path(version_dir) / "model.onnx", threads))

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw columns, each [batch] or [batch, 1] -> the outputs of the target's kind.

        `{target.output: float32 [batch, 1]}`, or for several classes `probabilities` float32
        [batch, K] and `label` BYTES [batch, 1]. Raises `InvalidInput` for what the transform
        refuses.
        """
        encoded = self.transform.encode(inputs)
        (output,) = self.session.run(["output"], {name: encoded[name] for name in self.fed})
        target = self.transform.target
        if target.classes is not None:
            return class_outputs(output, target.classes)
        return {target.output: output.astype(np.float32).reshape(-1, 1)}

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The raw columns, checked, each [batch]. Raises `InvalidInput`."""
        return self.transform.columns(inputs)

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the network, as if each were alone."""
        return answer_together(self, requests)
