"""Build an array dataset: every example once through its dataset, into one .npy file an array."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import ConfigError
from conf.plugin import make_plugin
from conf.schema import TARGET
from hpc.data.arrays.dataset import ArraysDataset
from hpc.data.dataset import BuildResult, Progress
from hpc.data.refusal import DataRefused
from hpc.data.split import split_groups
from serving.artifact.digest import canonical_json

CHUNK = 1024
"""Rows that are copied at once."""


def build_arrays(config: ArraysDataset, staging: Path, progress: Progress) -> BuildResult:
    """Write splits and transform into the folder `staging`.

    Raises `DataRefused` for examples that do not fit together, `ConfigError` for a target that is
    not there.
    """
    if TARGET in config.examples:
        everything = staging / "all"
        written = write_examples(config.examples, "data.examples", config, everything)
        share_out(written, config, staging)
        shutil.rmtree(everything)
    else:
        for split, node in config.examples.items():
            write_examples(node, f"data.examples.{split}", config, staging / split)
    splits = config.split.names() if config.split else tuple(config.examples)
    parts = {split: open_arrays(staging / split, config.names) for split in splits}
    check_equal_types(parts)
    train = parts["train"]
    transform = {
        "kind": "arrays",
        "inputs": [_array_entry(name, train[name]) for name in config.inputs],
        "targets": [_array_entry(name, train[name]) for name in config.targets],
        "group": config.group or None,
    }
    (staging / "transform.json").write_bytes(canonical_json(transform))
    rows = {split: len(arrays[config.inputs[0]]) for split, arrays in parts.items()}
    for split, count in rows.items():
        progress(f"{split}: {count:,} rows")
    return BuildResult(
        schema={name: f"{array.dtype} {list(array.shape[1:])}" for name, array in train.items()},
        splits={split: {"file": split, "rows": count} for split, count in rows.items()},
        notes={},
    )


def write_examples(
    node: Mapping[str, Any], key: str, config: ArraysDataset, folder: Path
) -> dict[str, np.ndarray]:
    """Every example of the dataset that `node` names, as `<name>.npy` files in `folder`.

    Returns the arrays, memory-mapped.
    """
    dataset = make_plugin(node, key)
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(f"{key}.{TARGET}={node[TARGET]} has no length and no items")
    rows = len(dataset)
    if rows == 0:
        raise DataRefused(f"{key}: {node[TARGET]} has no examples")
    folder.mkdir()
    arrays: dict[str, np.ndarray] = {}
    groups: list[Any] = []
    for row in range(rows):
        example = _example(dataset[row], row, config)
        if config.group:
            groups.append(example.pop(config.group).item())
        for name, value in example.items():
            if row == 0:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", value.dtype, (rows, *value.shape)
                )
            wanted = arrays[name]
            if value.dtype != wanted.dtype or value.shape != wanted.shape[1:]:
                raise DataRefused(
                    f"{name!r} of example {row} is {value.dtype} {list(value.shape)}, and of the "
                    f"first {wanted.dtype} {list(wanted.shape[1:])}"
                )
            wanted[row] = value
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    if config.group:
        np.save(folder / f"{config.group}.npy", np.array(groups), allow_pickle=False)
    return open_arrays(folder, config.names)


def share_out(arrays: Mapping[str, np.ndarray], config: ArraysDataset, staging: Path) -> None:
    """Write the rows of each split into its folder, in their order. Raises `DataRefused`."""
    assert config.split is not None, "one _target_ comes with a split"
    groups = arrays[config.group].tolist() if config.group else _row_digests(arrays)
    split_of = split_groups(groups, None, config.split)
    owners = np.array([split_of[group] for group in groups])
    for split in config.split.names():
        rows = np.flatnonzero(owners == split)
        if len(rows) == 0:
            raise DataRefused(f"the split {split!r} has no rows: there are too few examples")
        (staging / split).mkdir()
        for name, array in arrays.items():
            kept = np.lib.format.open_memmap(
                staging / split / f"{name}.npy", "w+", array.dtype, (len(rows), *array.shape[1:])
            )
            for start in range(0, len(rows), CHUNK):
                kept[start : start + CHUNK] = array[rows[start : start + CHUNK]]
            kept.flush()


def open_arrays(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a split's folder, memory-mapped."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def check_equal_types(parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raise `DataRefused` where a split's array has another type or shape than train's."""
    for split, arrays in parts.items():
        for name, array in arrays.items():
            wanted = parts["train"][name]
            text = array.dtype.kind == wanted.dtype.kind == "U"  # a group's names, of any length
            if array.shape[1:] != wanted.shape[1:] or (array.dtype != wanted.dtype and not text):
                raise DataRefused(
                    f"{name!r} is {array.dtype} {list(array.shape[1:])} in the split {split!r}, "
                    f"and {wanted.dtype} {list(wanted.shape[1:])} in train"
                )


def _example(item: Any, row: int, config: ArraysDataset) -> dict[str, np.ndarray]:
    """One example by name. Raises `DataRefused` for missing values and for what is no array."""
    names = config.names
    if not isinstance(item, Mapping):
        values = tuple(item) if isinstance(item, tuple | list) else (item,)
        if len(values) != len(names):
            raise DataRefused(
                f"example {row} has {len(values)} values; data.inputs, targets and group name "
                f"{len(names)}: {', '.join(names)}"
            )
        item = dict(zip(names, values, strict=True))
    absent = [name for name in names if name not in item]
    if absent:
        found = ", ".join(map(str, item))
        raise DataRefused(f"example {row} has no {absent[0]!r} (found: {found})")
    return {name: _array(name, item[name], row, name == config.group) for name in names}


def _array(name: str, value: Any, row: int, is_group: bool) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if is_group and (array.ndim != 0 or array.dtype.kind not in "biuU"):
        raise DataRefused(f"the group {name!r} of example {row} is no single number or text")
    if not is_group and array.dtype.kind not in "biuf":
        raise DataRefused(f"{name!r} of example {row} is {array.dtype}, not an array of numbers")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataRefused(f"{name!r} of example {row} has NaN")
    return array


def _row_digests(arrays: Mapping[str, np.ndarray]) -> list[str]:
    rows = len(next(iter(arrays.values())))
    digests = []
    for row in range(rows):
        digest = hashlib.sha256()
        for array in arrays.values():
            digest.update(np.ascontiguousarray(array[row]).tobytes())
        digests.append(digest.hexdigest())
    return digests


def _array_entry(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape[1:])}
