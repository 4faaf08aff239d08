"""The swept settings of a trial in few letters, as they are typed."""

from __future__ import annotations

from typing import Any


def values_text(values: dict[str, Any] | None) -> str:
    """`lr=0.001 seed=2`: the last part of each key, the whole where two have the same."""
    leaves = [key.rpartition(".")[2] for key in values or {}]
    return " ".join(
        f"{leaf if leaves.count(leaf) == 1 else key}={_shown(value)}"
        for leaf, (key, value) in zip(leaves, (values or {}).items(), strict=True)
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
