"""The calls of a run's operators, by what served them: a file of each rank, and rows for people.

A rank of the newest attempt wrote its file; the job chooses what stands in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpc.jobs.run.files import read_run_file
from hpc.jobs.run.folder import Run

MOST_RANKS = 4096
MOST_REASONS = 3
TRITON, TORCH, REFUSED = "triton", "torch", "refused"


@dataclass(frozen=True)
class OperatorCount:
    """Calls of one operator on one rank; see `kernels.OperatorCalls`, whose fields these are."""

    triton: int = 0
    reference: int = 0
    refused: int = 0
    traced_triton: int = 0
    traced_reference: int = 0
    reason: str = ""
    refusal: str = ""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that served it on this rank, or that nobody did."""
        served = {
            TRITON: self.triton + self.traced_triton,
            TORCH: self.reference + self.traced_reference,
        }
        return tuple(name for name, calls in served.items() if calls) or (REFUSED,)


@dataclass(frozen=True)
class OperatorsFile:
    """operators/<rank>.json: the operators that a rank has called since its attempt began."""

    rank: int
    step: int
    """Steps done when it was written."""
    operators: dict[str, OperatorCount] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatorRow:
    """One operator over all ranks."""

    operator: str
    backend: str
    """`triton` or `torch`, and on how many ranks where they differ."""
    calls: int
    """That ran a kernel or plain torch; those inside of a compiled graph are not counted."""
    traced: int
    """Calls that torch.compile took into a graph."""
    refused: int
    reason: str
    """The reason why plain torch served it, or why it was refused."""

    @property
    def calls_text(self) -> str:
        """`1,200`, `0, 4 compiled`, `7, 1 refused`."""
        more = ((self.traced, "compiled"), (self.refused, REFUSED))
        return ", ".join(
            [f"{self.calls:,}", *(f"{count:,} {word}" for count, word in more if count)]
        )


def read_operators(run: Run) -> tuple[list[OperatorsFile], list[str]]:
    """The files of a run's ranks by rank, and a sentence for each that could not be used."""
    try:
        with os.scandir(run.operators) as items:
            names = [item.name for item in items if item.name.removesuffix(".json").isdecimal()]
    except OSError:  # no rank has called one yet
        return [], []
    readings = [read_run_file(OperatorsFile, run.operators / name) for name in names[:MOST_RANKS]]
    found = [one.value for one in readings if one.value is not None]
    problems = [one.problem for one in readings if one.problem]
    return sorted(found, key=lambda one: one.rank), problems


def operator_rows(ranks: Sequence[OperatorsFile]) -> list[OperatorRow]:
    """A row for each operator, by name."""
    names = sorted({name for one in ranks for name in one.operators})
    return [_row(name, [one.operators[name] for one in ranks if name in one.operators])
            for name in names]  # fmt: skip


def _row(name: str, counts: Sequence[OperatorCount]) -> OperatorRow:
    ranks = Counter(backend for one in counts for backend in one.backends)
    differ = len(ranks) > 1
    backend = ", ".join(
        f"{one} on {number:,} {'rank' if number == 1 else 'ranks'}" if differ else one
        for one, number in ranks.items()
    )
    reasons = _distinct(one.reason for one in counts) + _distinct(one.refusal for one in counts)
    return OperatorRow(
        operator=name,
        backend=backend,
        calls=sum(one.triton + one.reference for one in counts),
        traced=sum(one.traced_triton + one.traced_reference for one in counts),
        refused=sum(one.refused for one in counts),
        reason="; ".join(reasons[:MOST_REASONS]),
    )


def _distinct(words: Iterable[str]) -> list[str]:
    return [one for one in dict.fromkeys(words) if one]
