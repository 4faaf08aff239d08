"""The classes of a target: those of the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpc.data.refusal import DataRefused


def class_names(name: str, found: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The classes of the column `name` on train, of {split: its values}; whole numbers by value.

    Raises `DataRefused` when train has a single one, or another split has one that train lacks.
    """
    classes = found["train"]
    if len(classes) < 2:
        raise DataRefused(
            f"the target {name!r} is {next(iter(classes))!r} in every row of the split 'train': "
            "there is nothing to tell apart"
        )
    for split, values in found.items():
        unknown = sorted(values - classes)
        if unknown:
            raise DataRefused(
                f"the target {name!r} has classes in the split {split!r} that train lacks: "
                f"{', '.join(unknown[:5])}. Leave rare classes out of the source (data.drop of a "
                "tabular dataset), or choose another data.split.seed."
            )
    return tuple(sorted(classes, key=_order_of(classes)))


def _order_of(classes: set[str]) -> Callable[[str], Any]:
    digits = [name.removeprefix("-") for name in classes]
    if all(one.isascii() and one.isdigit() for one in digits):
        return lambda name: (int(name), name)
    return lambda name: name
