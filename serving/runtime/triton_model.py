"""The Triton Python backend's model: tensors in, one answer or one error per request.

It declares no custom metrics: a reload of a Python model with metrics crashes Triton (server#8663).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .package import open_model


class TritonPythonModel:
    """The object that Triton's stub creates once per instance and calls for each batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model of this version; an exception here fails the load, with its message."""
        import triton_python_backend_utils as pb_utils  # only exists inside Triton

        self.triton: Any = pb_utils
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})
        settings = {key: value["string_value"] for key, value in parameters.items()}
        version_dir = Path(args["model_repository"]) / args["model_version"]
        self.model = open_model(version_dir, settings)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in their order; a bad request fails alone."""
        inputs = [{one.name(): one.as_numpy() for one in request.inputs()} for request in requests]
        return [self._response(answer) for answer in self.model.answer(inputs)]

    def _response(self, answer: dict[str, np.ndarray] | ValueError) -> Any:
        if isinstance(answer, ValueError):
            # The client's mistake and not the service's failure: HTTP 400; the default is 500.
            code = self.triton.TritonError.INVALID_ARG
            return self.triton.InferenceResponse(error=self.triton.TritonError(str(answer), code))
        outputs = [self.triton.Tensor(name, value) for name, value in answer.items()]
        return self.triton.InferenceResponse(output_tensors=outputs)
