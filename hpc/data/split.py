"""Rows into splits: whole groups, by a seeded hash or by time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hpc.data.refusal import DataRefused
from hpc.data.tables import row_texts, value_text

SPLITS = ("train", "validation", "holdout")
LATER = "later"


@dataclass(frozen=True)
class SplitSpec:
    """The share of each split, and the splits that begin at a point in time."""

    fractions: dict[str, float]
    """The share of groups (of rows, without a group column) that a split gets of what lies before
    the first cut; `{train: 1.0}` where validation and holdout are cut by time."""
    seed: int = 0
    """Seed of the shuffle of groups."""
    time: str = ""
    """The column of the cuts: dates, times or numbers."""
    cuts: dict[str, str | int | float] = field(default_factory=dict)
    """The first value of `time` that belongs to a split, ascending; `later` may be one of them."""

    def __post_init__(self) -> None:
        if sorted([*self.fractions, *(set(self.cuts) - {LATER})]) != sorted(SPLITS):
            raise ValueError(
                f"fractions={self.fractions}: with cuts={self.cuts} they must name "
                f"{', '.join(SPLITS)} once each"
            )
        if abs(sum(self.fractions.values()) - 1.0) > 1e-6 or min(self.fractions.values()) <= 0:
            raise ValueError(f"fractions={self.fractions}: must be above 0 and add up to 1")
        if bool(self.time) != bool(self.cuts):
            raise ValueError("cuts and time: give both or none")

    def names(self) -> tuple[str, ...]:
        """The splits in the order in which they are written."""
        return (*self.fractions, *self.cuts)


def split_groups(
    groups: Sequence[Any], times: pa.ChunkedArray | pa.Array | None, spec: SplitSpec
) -> dict[Any, str]:
    """The split of every group: {group: split}, of `groups` [rows] and `times` [rows].

    A group belongs to the split of its latest row, whole. Groups before the first cut are put in
    the order of a seeded hash, which no library version can change, and shared out by fractions.
    Raises `DataRefused` for a cut that is no value of the time column's type.
    """
    cuts = [] if times is None else _cuts(times.type, spec)
    split_of: dict[Any, str] = {}
    if times is not None:
        latest: dict[Any, Any] = {}
        for group, time in zip(groups, times.to_pylist(), strict=True):
            if group not in latest or time > latest[group]:
                latest[group] = time
        for name, start in cuts:
            split_of.update({group: name for group, time in latest.items() if time >= start})

    def shuffled(group: Any) -> str:
        return hashlib.sha256(f"{spec.seed}:{value_text(group)}".encode()).hexdigest()

    early = sorted((group for group in set(groups) if group not in split_of), key=shuffled)
    share, start = 0.0, 0
    for name, fraction in spec.fractions.items():
        share += fraction
        stop = round(share * len(early))
        split_of.update(dict.fromkeys(early[start:stop], name))
        start = stop
    return split_of


def split_table(
    prepared: pa.Table, group: str, times: pa.ChunkedArray | None, spec: SplitSpec
) -> dict[str, pa.Table]:
    """The rows of every split, in the order of `prepared`; without a `group` column equal rows are
    one group. Raises `DataRefused` for a split without rows."""
    groups = prepared[group].to_pylist() if group else row_texts(prepared)
    split_of = split_groups(groups, times, spec)
    owners = pa.array([split_of[one] for one in groups])
    parts = {}
    for split in spec.names():
        part = prepared.filter(pc.equal(owners, split))
        if part.num_rows == 0:
            what = f"values of {group!r}" if group else "rows"
            raise DataRefused(f"the split {split!r} has no rows: the source has too few {what}")
        parts[split] = part
    return parts


def _cuts(dtype: pa.DataType, spec: SplitSpec) -> list[tuple[str, Any]]:
    found = []
    for name, cut in spec.cuts.items():
        try:
            found.append((name, pa.scalar(cut).cast(dtype).as_py()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataRefused(
                f"data.split.cuts.{name}={cut}: column {spec.time!r} is {dtype}"
            ) from error
    starts = [start for _, start in found]
    if starts != sorted(starts):
        raise DataRefused(f"data.split.cuts={spec.cuts}: must ascend in the order of the splits")
    return found
