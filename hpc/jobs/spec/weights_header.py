"""Names and shapes of the weights in a safetensors file, read from its header, without torch.

The header is JSON behind its length in 8 bytes: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from conf.errors import ConfigError
from hpc.jobs.regular_file import open_regular_file

LIMIT_BYTES = 100_000_000
"""Of a header, as the format has it."""
SHOWN = 3
"""Weights that a refusal names of each kind."""

Shapes = Mapping[str, tuple[int, ...]]


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each weight by name. Raises `ConfigError` for what is no safetensors file."""
    try:
        with open_regular_file(path) as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LIMIT_BYTES:
                raise ValueError(f"its header has {size} bytes")
            header = json.loads(file.read(size))
        return {
            str(name): tuple(int(length) for length in one["shape"])
            for name, one in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"init_from: {path} is no safetensors file: {error}") from error


def check_shapes(saved: Shapes, wanted: Shapes, words: str) -> None:
    """Raise `ConfigError` unless the weights `saved` are those of a model of `wanted` shapes.

    `words` is the RUN@STEP that the weights are of.
    """
    other = [
        f"{name} is {_shape(saved[name])} there and {_shape(wanted[name])} here"
        for name in sorted(saved.keys() & wanted.keys())
        if saved[name] != wanted[name]
    ]
    faults = [
        *([f"other shapes: {_some(other)}"] if other else []),
        *([f"only there: {_some(more)}"] if (more := sorted(saved.keys() - wanted.keys())) else []),
        *([f"only here: {_some(less)}"] if (less := sorted(wanted.keys() - saved.keys())) else []),
    ]
    if faults:
        raise ConfigError(
            f"init_from={words}: its weights are of another model than model.* and the dataset "
            f"make; {'; '.join(faults)}. Take over that run's model settings, see: lockgate show "
            f"{words.partition('@')[0]}"
        )


def _shape(lengths: Iterable[int]) -> str:
    return "x".join(map(str, lengths)) or "one number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
