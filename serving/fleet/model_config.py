"""A model's Triton config with a set of versions in it: what is loaded is always said in full.

A plain load may do nothing, and an override outlives it; so every load sends the whole config, and
the same text is kept in `config.pbtxt` on the host, from which a restarted Triton serves the same
versions again.
"""

from __future__ import annotations

from typing import Any

from serving.fleet.inventory import FleetError


def parse(text: str) -> Any:
    """A `config.pbtxt` as Triton's ModelConfig message. Raises FleetError."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise FleetError(f"config.pbtxt is not a Triton model config: {error}") from error


def with_versions(text: str, versions: tuple[int, ...]) -> str:
    """`config.pbtxt` that serves exactly `versions` (at least one)."""
    from google.protobuf import text_format

    config = parse(text)
    if not versions:
        raise ValueError("a model is served in at least one version, or not at all")
    config.ClearField("version_policy")
    config.version_policy.specific.versions.extend(sorted(versions))
    return text_format.MessageToString(config)


def as_json(text: str) -> str:
    """`config.pbtxt` as the JSON that a load request carries."""
    from google.protobuf import json_format

    return json_format.MessageToJson(parse(text), preserving_proto_field_name=True, indent=None)


def versions_in(text: str | None) -> tuple[int, ...]:
    """The versions that a `config.pbtxt` written by `with_versions` serves; empty for none."""
    if text is None:
        return ()
    return tuple(sorted(parse(text).version_policy.specific.versions))


def same_interface(one: str, other: str) -> bool:
    """True when both configs take and give the same tensors.

    A model has one config for all its versions: two whose tensors differ cannot be loaded at once.
    """
    first, second = parse(one), parse(other)
    return list(first.input) == list(second.input) and list(first.output) == list(second.output)
