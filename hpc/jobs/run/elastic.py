"""Going on from a checkpoint with other ranks or another ZeRO stage: the rule, without torch.

DeepSpeed's universal checkpoint (https://arxiv.org/abs/2406.18820) joins what the ranks hold of a
weight and of Adam's two moments. The training loop applies this rule, and so does a submit, which
then refuses what a job could not do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.jobs.errors import UsageError
from hpc.jobs.regular_file import read_regular_file

MANIFEST_LIMIT_BYTES = 1 << 26
"""Size of a manifest that is read: one line for each of a million files."""
MOMENTS = ("exp_avg", "exp_avg_sq")
CONVERTED = {*MOMENTS, "step"}
"""Names of the optimizer's state per weight that DeepSpeed's converter carries over."""


class CheckpointMisfit(UsageError):
    """No such job can go on from this checkpoint."""


@dataclass(frozen=True)
class Layout:
    """The way in which a checkpoint's state lies over ranks, as its manifest has it."""

    world_size: int
    zero_stage: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    optimizer_state: tuple[str, ...]
    """Names of what the optimizer holds for each weight, sorted."""
    stateful_loader: bool = False
    """True where each rank's data loader has a state of its own in the checkpoint."""

    @property
    def global_batch(self) -> int:
        """Rows or sequences of one optimizer step, over all ranks and micro-steps."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.world_size


@dataclass(frozen=True)
class ElasticFit:
    """The settings with which a job goes on from a checkpoint."""

    gradient_accumulation_steps: int
    """That keeps the global batch; a job of other ranks takes it instead of its spec's."""
    convert: bool
    """Through a universal checkpoint, because ranks or ZeRO stage are others."""
    sentence: str
    """For the log; empty where nothing is different."""


def read_layout(checkpoint: Path) -> Layout | None:
    """The layout of the checkpoint in a folder; None for one of before layouts were recorded.

    Raises OSError, ValueError, TypeError or KeyError where there is no sealed checkpoint.
    """
    content = json.loads(read_regular_file(checkpoint / "manifest.json", MANIFEST_LIMIT_BYTES))
    return layout_from(content["layout"]) if content.get("layout") is not None else None


def layout_from(content: Mapping[str, Any]) -> Layout:
    """The layout of plain values. Raises TypeError or KeyError for others than its own."""
    return Layout(**{**content, "optimizer_state": tuple(content["optimizer_state"])})


def fits(saved: Layout, ranks: int, zero_stage: int, micro_batch_size: int) -> ElasticFit:
    """The way on from a checkpoint of layout `saved` for a job of `ranks` and `zero_stage`.

    The samples of each step stay the same ones in the same order: micro-batches keep their size,
    and gradient accumulation makes up for the ranks. Raises `CheckpointMisfit` where there is none.
    """
    if micro_batch_size != saved.micro_batch_size:
        raise CheckpointMisfit(
            f"the checkpoint was written with micro_batch_size={saved.micro_batch_size} and this "
            f"job has {micro_batch_size}: the samples of its steps would be others. Keep "
            f"micro_batch_size={saved.micro_batch_size}; the number of ranks may change"
        )
    if saved.stateful_loader and ranks != saved.world_size:
        raise CheckpointMisfit(
            f"the checkpoint holds the state of the task's data loader for each of "
            f"{saved.world_size} ranks, and {ranks} ranks cannot share it. Go on with "
            f"{saved.world_size}: cluster.nodes x cluster.tasks_per_node"
        )
    micro_batches = saved.gradient_accumulation_steps * saved.world_size
    accumulation, rest = divmod(micro_batches, ranks)
    if rest:
        able = ", ".join(str(count) for count in divisors(micro_batches))
        raise CheckpointMisfit(
            f"{ranks} ranks cannot share the {micro_batches} micro-batches of a step of this "
            f"checkpoint ({saved.world_size} ranks with gradient_accumulation_steps="
            f"{saved.gradient_accumulation_steps}). Numbers of ranks that can: {able}"
        )
    if (ranks, zero_stage) == (saved.world_size, saved.zero_stage):
        return ElasticFit(accumulation, False, "")
    convert = saved.zero_stage > 0 or zero_stage > 0
    if convert:
        _check_converter(saved, zero_stage)
    changes = [
        *([f"{saved.world_size} -> {ranks} ranks"] if ranks != saved.world_size else []),
        *([f"ZeRO {saved.zero_stage} -> {zero_stage}"] if zero_stage != saved.zero_stage else []),
        f"gradient_accumulation_steps={accumulation}",
    ]
    kept = f"{saved.global_batch} rows or sequences a step, in the same order"
    return ElasticFit(accumulation, convert, f"{', '.join(changes)}: {kept}")


def divisors(number: int) -> list[int]:
    """The divisors of a positive number, ascending; of its first 10,000 candidates."""
    return [one for one in range(1, min(number, 10_000) + 1) if number % one == 0]


def _check_converter(saved: Layout, zero_stage: int) -> None:
    """Raise `CheckpointMisfit` for a state that DeepSpeed's converter does not carry over whole."""
    if saved.zero_stage == 0 or zero_stage == 0:
        raise CheckpointMisfit(
            f"the checkpoint is of zero_stage={saved.zero_stage} and this job has {zero_stage}: "
            "DeepSpeed converts between the stages 1, 2 and 3. Keep "
            f"zero_stage={saved.zero_stage}; the number of ranks may change"
        )
    state = set(saved.optimizer_state)
    if not set(MOMENTS) <= state <= CONVERTED:
        others = ", ".join(sorted(state - CONVERTED)) or "no moments of Adam"
        raise CheckpointMisfit(
            f"the checkpoint's optimizer holds {others}, which DeepSpeed's converter leaves out. "
            f"Go on with {saved.world_size} ranks and zero_stage={saved.zero_stage}, as before"
        )
