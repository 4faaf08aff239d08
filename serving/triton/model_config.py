"""config.pbtxt, written and read through Triton's own ModelConfig message.

A load request carries the whole config, because a plain load may do nothing and an override
outlives it; the same text is kept on the host, from which a restarted Triton serves the same
versions again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from serving.artifact.tensors import TensorSpec
from serving.triton.server import TritonError

_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


class ModelConfigError(TritonError):
    """A text is not a Triton model config; the message has the place."""


@dataclass(frozen=True)
class TritonConfig:
    """A model in Triton's Python backend.

    Tensors have their full shape, the batch dimension (-1) included when `max_batch_size` is above
    0. There is no version policy here: which versions are served is the fleet's decision.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0
    """Rows of one execution; 0 for a model that takes requests as they are."""
    preferred_batch_size: int = 8
    """The batcher sends a batch of this size at once."""
    queue_delay_us: int = 100
    """The time a request waits for others. Never 0 with batching: Triton's batcher thread then
    sleeps for its own half second at low load (measured; see the field notes)."""
    instances: int = 1
    """Copies of the model, each a process of its own."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Settings of the runtime: threads, limits."""

    def __post_init__(self) -> None:
        tensors = (*self.inputs, *self.outputs)
        for name in (self.model, *self.parameters, *(one.name for one in tensors)):
            if not _NAME.match(name):
                raise ValueError(f"{name!r} cannot be a name in config.pbtxt")
        if self.max_batch_size > 0 and self.queue_delay_us < 1:
            raise ValueError("queue_delay_us must be at least 1 when requests are batched")
        if self.instances < 1 or self.max_batch_size < 0:
            raise ValueError("instances must be at least 1, and max_batch_size 0 or more")


def config_pbtxt(config: TritonConfig) -> str:
    """The text of config.pbtxt."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    batched = config.max_batch_size > 0
    message = model_config_pb2.ModelConfig(
        name=config.model, backend="python", max_batch_size=config.max_batch_size
    )
    _add_tensors(message.input, config.inputs, batched)
    _add_tensors(message.output, config.outputs, batched)
    message.instance_group.add(kind="KIND_CPU", count=config.instances)
    if batched:
        preferred = min(config.preferred_batch_size, config.max_batch_size)
        message.dynamic_batching.preferred_batch_size.append(preferred)
        message.dynamic_batching.max_queue_delay_microseconds = config.queue_delay_us
    for key, value in config.parameters.items():
        message.parameters[key].string_value = value
    return text_format.MessageToString(message)


def parse_config(text: str) -> Any:
    """A `config.pbtxt` as Triton's ModelConfig message. Raises ModelConfigError."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ModelConfigError(f"config.pbtxt is not a Triton model config: {error}") from error


def with_versions(text: str, versions: tuple[int, ...]) -> str:
    """`config.pbtxt` that serves exactly `versions` (at least one). Raises ModelConfigError."""
    from google.protobuf import text_format

    config = parse_config(text)
    if not versions:
        raise ValueError("a model is served in at least one version, or not at all")
    config.ClearField("version_policy")
    config.version_policy.specific.versions.extend(sorted(versions))
    return text_format.MessageToString(config)


def with_instances(text: str, count: int) -> str:
    """`config.pbtxt` with `count` instances in each of its groups. Raises ModelConfigError."""
    from google.protobuf import text_format

    config = parse_config(text)
    for group in config.instance_group or [config.instance_group.add()]:
        group.count = count
    return text_format.MessageToString(config)


def instances_in(text: str) -> int:
    """The number of instances in the largest group of a `config.pbtxt`; 1 where it names none."""
    return max((group.count for group in parse_config(text).instance_group), default=1) or 1


def config_json(text: str) -> str:
    """`config.pbtxt` as the JSON that a load request carries. Raises ModelConfigError."""
    from google.protobuf import json_format

    message = parse_config(text)
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)


def versions_in(text: str | None) -> tuple[int, ...]:
    """The versions that a `config.pbtxt` written by `with_versions` serves; empty for none."""
    if text is None:
        return ()
    return tuple(sorted(parse_config(text).version_policy.specific.versions))


def same_config(one: str | None, other: str | None) -> bool:
    """True when both texts are one config but for the number of instances, which is a host's own;
    two that are None are equal too."""
    if one is None or other is None:
        return one is other
    first, second = with_instances(one, 1), with_instances(other, 1)
    return bool(parse_config(first) == parse_config(second))


def same_interface(one: str, other: str) -> bool:
    """True when both configs take and give the same tensors.

    A model has one config for all its versions: two whose tensors differ cannot be loaded at once.
    """
    first, second = parse_config(one), parse_config(other)
    return list(first.input) == list(second.input) and list(first.output) == list(second.output)


def _add_tensors(field_: Any, tensors: Iterable[TensorSpec], batched: bool) -> None:
    for one in tensors:
        dtype = "STRING" if one.dtype == "BYTES" else one.dtype
        added = field_.add(
            name=one.name,
            data_type=f"TYPE_{dtype}",
            dims=one.shape[1:] if batched else one.shape,
        )
        if one.optional:  # an output has no such field
            added.optional = True
