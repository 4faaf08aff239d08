"""This rank's part of the fp32 weights, copied without a message, and the whole put together later.

`hpc.train.engine.whole_weights` gives the same numbers in one go, while the steps wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpc.train.distributed import World
from hpc.train.engine import parameter_shape


@dataclass(frozen=True)
class Fragment:
    """The `numbers` of a flattened weight from number `start` on; empty for no part of it."""

    shape: torch.Size
    start: int
    numbers: Tensor


@dataclass(frozen=True)
class WeightFragments:
    """The names and the order are those of `whole_weights`, the same on every rank."""

    fragments: dict[str, Fragment]
    buffers: dict[str, Tensor]


def take_fragments(engine: Any, world: World) -> WeightFragments:
    """The part of the weights that this rank holds, copied to the CPU; no collective call."""
    module, saved = engine.module, engine.module.state_dict().keys()
    fragments = {
        name: _fragment(parameter, world)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    buffers = {
        name: buffer.detach().to("cpu", copy=True)
        for name, buffer in module.named_buffers()
        if name in saved
    }
    return WeightFragments(fragments, buffers)


def assemble(weights: WeightFragments, world: World) -> dict[str, Tensor]:
    """All weights in fp32 on the CPU, on rank 0; a collective call of the ranks in `world`.

    Other ranks get what they have sent. Each number is the sum of one rank's and of zeros.
    """
    whole = {}
    for name, fragment in weights.fragments.items():
        numbers = torch.zeros(fragment.shape.numel())
        numbers[fragment.start : fragment.start + len(fragment.numbers)] = fragment.numbers
        if world.size > 1:
            dist.reduce(numbers, dst=0, group=world.group)
        whole[name] = numbers.view(fragment.shape)
    return {**whole, **weights.buffers}


def _fragment(parameter: Any, world: World) -> Fragment:
    from deepspeed.utils import safe_get_local_fp32_param

    shape = parameter_shape(parameter)
    nothing = Fragment(shape, 0, torch.empty(0))
    if hasattr(parameter, "ds_id"):  # ZeRO-3: equal parts, the last one padded
        part = safe_get_local_fp32_param(parameter)
        start = min(world.rank * part.numel(), shape.numel())
        return Fragment(shape, start, _copy(part[: shape.numel() - start]))
    if hasattr(parameter, "_hp_mapping"):  # ZeRO-1 and 2: a cut of all weights in a row
        mapping = parameter._hp_mapping
        if mapping is None:
            return nothing
        return Fragment(shape, mapping.lp_fragment_address.start, _copy(mapping.get_hp_fragment()))
    return Fragment(shape, 0, _copy(parameter)) if world.leads else nothing


def _copy(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float32, copy=True).flatten()
