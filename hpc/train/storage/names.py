"""Names of a checkpoint's files in a store, and the rank that copies each of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from hpc.train.manifest import FILE

OF_RANK = re.compile(r"(?:random-|loader-|zero_pp_rank_)0*([0-9]+)")


def step_folder(run: str, step: int) -> str:
    """The name of a checkpoint's folder in a store."""
    return f"{run}/{step:08d}"


def by_step(names: Mapping[str, int], run: str) -> dict[int, list[str]]:
    """The files below the folder `run` of a store, by the step whose checkpoint they are of."""
    found: dict[int, list[str]] = {}
    for name in names:
        step = name.removeprefix(f"{run}/").partition("/")[0]
        if step.isascii() and step.isdigit() and f"{int(step):08d}" == step:
            found.setdefault(int(step), []).append(name)
    return found


def part_of(
    files: Mapping[str, tuple[int, str]], rank: int, ranks: int
) -> dict[str, tuple[int, str]]:
    """The files of a checkpoint that a rank copies: those it wrote, and rank 0 those of no rank.

    Of a checkpoint of more ranks than there are now, each takes its share of the others' files.
    """

    def owner(name: str) -> int:
        found = OF_RANK.search(name.rpartition("/")[2])
        return int(found[1]) % ranks if found else 0

    return {name: one for name, one in files.items() if owner(name) == rank}


def outside_name(files: Mapping[str, tuple[int, str]]) -> str | None:
    """A name in a manifest that leads out of the checkpoint's folder; None for none."""
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or name == FILE:
            return name
    return None
