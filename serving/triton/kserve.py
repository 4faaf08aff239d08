"""The KServe v2 inference protocol over HTTP: request bodies and answers, by tritonclient's codec.

Strict JSON has no NaN, no infinity, no 16-bit floats and no bytes that are not UTF-8; Triton 2.51
refuses `null` for a number with HTTP 500. Such tensors travel as the protocol's binary data, behind
the JSON header of the same body.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.artifact.tensors import triton_dtype

if TYPE_CHECKING:
    from tritonclient.http import InferInput

HEADER_LENGTH = "Inference-Header-Content-Length"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class HttpRequest:
    """The body of a `POST .../infer`, and the headers that it needs."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class HttpAnswer:
    """A decoded answer: the version that gave it, and its outputs; BYTES are objects of bytes."""

    model_version: str
    outputs: dict[str, np.ndarray]


def infer_path(model: str, version: int | None = None) -> str:
    """The path of an inference; without a version the server chooses its highest ready one."""
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"


def fits_json(arrays: Arrays) -> bool:
    """True when strict JSON can carry all of `arrays`."""
    return all(_fits_json(array) for array in arrays.values())


def encode_request(inputs: Arrays, outputs: Iterable[str] = (), *, binary: bool) -> HttpRequest:
    """The request for `outputs`, tensors as JSON or all as binary data.

    Without `outputs` the answer has all of them, as binary data. Raises ValueError for inputs that
    strict JSON cannot carry when `binary` is False, and for a dtype that Triton does not have.
    """
    from tritonclient.http import InferenceServerClient, InferRequestedOutput

    if not binary and not fits_json(inputs):
        missing = [name for name, array in inputs.items() if not _fits_json(array)]
        raise ValueError(f"JSON cannot carry {', '.join(missing)}: send it as binary data")
    tensors = [_input(name, array, binary) for name, array in sorted(inputs.items())]
    wanted = [InferRequestedOutput(name, binary_data=binary) for name in outputs]
    body, header = InferenceServerClient.generate_request_body(tensors, outputs=wanted)
    if header is None:
        return HttpRequest(body, {"Content-Type": "application/json"})
    return HttpRequest(
        body, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(header)}
    )


def decode_answer(body: bytes, header_length: str | None) -> HttpAnswer:
    """The answer in `body`; `header_length` is its HEADER_LENGTH header, None for all JSON.

    Raises ValueError for an answer that is not in the protocol's form.
    """
    from tritonclient.http import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    try:
        length = None if header_length is None else int(header_length)
        result = InferenceServerClient.parse_response_body(body, header_length=length)
        content: dict[str, Any] = result.get_response()
        names = [output["name"] for output in content["outputs"]]
        outputs = {name: _bytes(result.as_numpy(name)) for name in names}
        return HttpAnswer(str(content["model_version"]), outputs)
    except (InferenceServerException, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer is not in the v2 form: {error!r}") from error


def _input(name: str, array: np.ndarray, binary: bool) -> InferInput:
    from tritonclient.http import InferInput

    tensor = InferInput(name, list(array.shape), triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array, binary_data=binary)


def _fits_json(array: np.ndarray) -> bool:
    dtype = triton_dtype(array.dtype)
    if dtype in ("FP32", "FP64"):
        return bool(np.isfinite(array).all())
    if dtype == "BYTES":
        return all(_is_utf8(one) for one in array.ravel())
    return dtype not in ("FP16", "BF16")


def _is_utf8(value: object) -> bool:
    try:
        return not isinstance(value, bytes) or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _bytes(array: np.ndarray) -> np.ndarray:
    """The text of a JSON answer as bytes, as in a binary one."""
    if array.dtype != object:
        return array
    words = np.empty(array.size, dtype=object)
    words[:] = [one.encode() if isinstance(one, str) else one for one in array.ravel()]
    return words.reshape(array.shape)
