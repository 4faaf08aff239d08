"""config.pbtxt: what Triton needs to know of a model, as a pure function of a few choices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.artifact.manifest import Tensor

_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


@dataclass(frozen=True)
class TritonConfig:
    """A model in Triton's Python backend.

    Tensors have their full shape, the batch dimension (-1) included when `max_batch_size` is above
    0. There is no version policy here: which versions are served is the fleet's decision.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    """Rows of one execution; 0 for a model that takes requests as they are."""
    preferred_batch_size: int = 8
    """The batcher sends a batch of this size at once."""
    queue_delay_us: int = 100
    """How long a request waits for others. Never 0 with batching: Triton's batcher thread then
    sleeps for its own half second at low load (measured; see the field notes)."""
    instances: int = 1
    """Copies of the model, each a process of its own."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Settings of the runtime: threads, limits."""

    def __post_init__(self) -> None:
        for name in (self.model, *self.parameters, *(one.name for one in self._tensors())):
            if not _NAME.match(name):
                raise ValueError(f"{name!r} cannot be a name in config.pbtxt")
        if self.max_batch_size > 0 and self.queue_delay_us < 1:
            raise ValueError("queue_delay_us must be at least 1 when requests are batched")
        if self.instances < 1 or self.max_batch_size < 0:
            raise ValueError("instances must be at least 1, and max_batch_size 0 or more")

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.inputs, *self.outputs)


def config_pbtxt(config: TritonConfig) -> str:
    """The text of config.pbtxt."""
    batched = config.max_batch_size > 0
    lines = [
        f'name: "{config.model}"',
        'backend: "python"',
        f"max_batch_size: {config.max_batch_size}",
        *_tensors("input", config.inputs, batched),
        *_tensors("output", config.outputs, batched),
        f"instance_group [{{ kind: KIND_CPU count: {config.instances} }}]",
    ]
    if batched:
        preferred = min(config.preferred_batch_size, config.max_batch_size)
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {preferred} ]",
            f"  max_queue_delay_microseconds: {config.queue_delay_us}",
            "}",
        ]
    for key, value in sorted(config.parameters.items()):
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{_quoted(value)}" }} }}')
    return "\n".join(lines) + "\n"


def _tensors(side: str, tensors: Iterable[Tensor], batched: bool) -> list[str]:
    lines = []
    for one in tensors:
        dtype = "STRING" if one.dtype == "BYTES" else one.dtype
        dims = ", ".join(str(size) for size in (one.shape[1:] if batched else one.shape))
        lines.append(f'{side} [{{ name: "{one.name}" data_type: TYPE_{dtype} dims: [ {dims} ] }}]')
    return lines


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
