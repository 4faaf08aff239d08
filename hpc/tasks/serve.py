"""The serving settings of a task's model: `task.serve` of a YAML, and Triton's config of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.names import check_name
from serving.artifact.tensors import TensorSpec
from serving.triton.model_config import TritonConfig


@dataclass(frozen=True)
class Serve:
    """The settings of every kind. Raises ValueError for one out of range."""

    model: str
    """Name of the model in Triton and in the registry."""
    instances: int = 1
    """Copies of the model, each a process of its own."""
    threads: int = 1
    """Threads of one instance's onnxruntime."""

    def __post_init__(self) -> None:
        check_name("task.serve.model", self.model, "lockgate train task.serve.model={}")
        _check_at_least_one(self, "instances", "threads")


@dataclass(frozen=True)
class BatchedServe(Serve):
    """Requests are rows, and Triton's batcher puts them together.

    See https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/batcher.html
    """

    max_batch_size: int = 1024
    """Rows of one execution."""
    preferred_batch_size: int = 8
    """The batcher sends a batch of this size at once."""
    queue_delay_us: int = 100
    """Longest wait of a request for others; with 0 the thread sleeps for half a second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_one(self, "max_batch_size", "preferred_batch_size", "queue_delay_us")


def batched_config(
    serve: BatchedServe,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    parameters: Mapping[str, str] | None = None,
) -> TritonConfig:
    """Triton's config of a batched model; every shape begins with -1, the batch dimension."""
    return TritonConfig(
        model=serve.model,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        max_batch_size=serve.max_batch_size,
        preferred_batch_size=serve.preferred_batch_size,
        queue_delay_us=serve.queue_delay_us,
        instances=serve.instances,
        parameters={"threads": str(serve.threads), **(parameters or {})},
    )


def _check_at_least_one(serve: Serve, *names: str) -> None:
    for name in names:
        if getattr(serve, name) < 1:
            raise ValueError(f"{name}={getattr(serve, name)}: must be at least 1")
