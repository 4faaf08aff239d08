"""Predictions through the served package: what is measured is what will run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from serving.artifact.tensors import TensorSpec
from serving.triton.grpc_client import Arrays, ModelClient

#: Of all answers for one split together; a package could answer every row with as much as it likes.
MAX_BYTES = 4 << 30


def served_predictions(
    endpoint: ModelClient,
    inputs: Sequence[TensorSpec],
    columns: Mapping[str, np.ndarray],
    output: str,
    in_flight: int,
) -> np.ndarray:
    """The tensor `output` for every row, in the largest batches that the package takes.

    `columns` are [rows, ...] by name. Returns [rows] for one number per row, else [rows, ...]
    (float64). Raises ValueError for an input without a column, an output that is not served and
    more than MAX_BYTES of answers, InferError.
    """
    missing = [tensor.name for tensor in inputs if tensor.name not in columns]
    if missing:
        raise ValueError(f"the dataset has no column for the input {', '.join(missing)}")
    as_sent = {tensor.name: _as_sent(columns[tensor.name], tensor) for tensor in inputs}
    rows, batch = len(next(iter(as_sent.values()))), endpoint.max_batch() or 1

    def requests() -> Iterator[Arrays]:
        for at in range(0, rows, batch):
            yield {name: column[at : at + batch] for name, column in as_sent.items()}

    parts, taken = [], 0
    for answer in endpoint.infer_all(requests(), in_flight):
        if output not in answer:
            raise ValueError(f"the package serves no output {output}: {', '.join(answer)}")
        parts.append(np.asarray(answer[output]))
        taken += parts[-1].nbytes
        if taken > MAX_BYTES:
            raise ValueError(f"the predictions of {output} have more than {MAX_BYTES} bytes")
    found = np.concatenate(parts)
    if found.dtype.kind in "OSU":
        raise ValueError(f"the output {output} is text; a prediction is numbers")
    return (found.reshape(rows) if found.size == rows else found).astype(np.float64)


def _as_sent(column: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """[rows, ...] as the API takes it: as many dimensions as declared, text as bytes."""
    if column.dtype.kind in "OSU":
        words = [one if isinstance(one, bytes) else str(one).encode() for one in column.ravel()]
        column = np.array([*words, None], dtype=object)[:-1].reshape(column.shape)
    return column.reshape(column.shape + (1,) * (len(tensor.shape) - column.ndim))
