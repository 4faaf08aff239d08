"""Linear + cross entropy with the vocabulary split over a process group.

Each rank holds its rows of the output layer. Of a chunk of logits it makes three numbers per token
for its own classes: lse, x at the target (0 elsewhere) and Σ ω·x. One all-gather of them gives
every rank the whole lse, from which each makes the gradient of its own logits; dh, a sum over all
classes, is reduced once at the end. Formulas: kernels/ops/loss/crossentropy.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group

from kernels.launch import token_chunks
from kernels.launch.config import launch_config
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import vector_length
from kernels.ops.loss.criterion import Criterion, denominator
from kernels.ops.loss.crossentropy import cross_entropy_bwd_kernel, cross_entropy_fwd_kernel
from kernels.ops.loss.linear_fused import empty_results, empty_statistics
from kernels.ops.loss.row import class_table
from kernels.ops.loss.saved_gradients import GradientSums, magnification, register_scaling


@dataclass(frozen=True)
class Shard:
    """This rank's classes [first, first + size) of `classes`, and the options of the loss."""

    first: int
    size: int
    classes: int
    class_weight: Tensor | None
    table: tuple[Tensor, Tensor] | None  # class_table of class_weight, for the kernels
    criterion: Criterion
    on_triton: bool

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(3, C): lse, x at the target, Σ ω·x over this shard's logits (C, size)."""
        sums = logits.new_empty(3, logits.shape[0], dtype=statistics_dtype(logits))
        if self.on_triton:
            cfg = launch_config("cross_entropy_fwd", logits, self.size)
            cross_entropy_fwd_kernel[(logits.shape[0],)](
                **self._arguments(logits, targets), LOSSES=sums[1], LSE=sums[0], CORRECT=sums[0],
                SUMS=sums[2], STATISTICS=False, PARTS=True, BLOCK=cfg.block, **cfg.options,
            )  # fmt: skip
            return sums
        x, _ = self._capped(logits, sums.dtype)
        index, here = self._index(targets)
        sums[0] = x.logsumexp(1)
        sums[1] = x.gather(1, index).squeeze(1).where(here, 0.0)
        sums[2] = (x if self.class_weight is None else x * self._own_weights()).sum(1)
        return sums

    def losses(self, sums: Tensor, targets: Tensor) -> Tensor:
        """(C,) from the whole vocabulary's sums (3, C); NaN for a target outside of it."""
        lse, hit, weighted = sums
        smoothing = self.criterion.label_smoothing
        kept = targets != self.criterion.ignore_index
        known = (targets >= 0) & (targets < self.classes)
        loss = lse - hit
        total: Tensor | int = self.classes
        if self.class_weight is not None:
            loss = loss * self.class_weight[targets.where(known, 0)]
            total = self.class_weight.sum()
        loss = (1 - smoothing) * loss + self.criterion.z_loss * lse.square()
        if smoothing:
            loss = loss + smoothing / self.classes * (total * lse - weighted)
        return loss.where(known, float("nan")).where(kept, 0.0)

    def gradient(self, logits: Tensor, targets: Tensor, lse: Tensor, g: Tensor) -> None:
        """Overwrite this shard's logits with g·dlogits, lse (C,) of the whole vocabulary."""
        if self.on_triton:
            cfg = launch_config("cross_entropy_bwd", logits, self.size)
            cross_entropy_bwd_kernel[(logits.shape[0],)](
                **self._arguments(logits, targets), LSE=lse.contiguous(), G=g, g_stride=0,
                DLOGITS=logits, stride_d=logits.stride(0), BLOCK=cfg.block, **cfg.options,
            )  # fmt: skip
            return
        smoothing = self.criterion.label_smoothing
        x, slope = self._capped(logits, lse.dtype)
        index, here = self._index(targets)
        kept = (targets != self.criterion.ignore_index).to(lse.dtype) * g
        scale = torch.ones_like(lse)
        share: Tensor | float = 1.0
        even: Tensor | float = 1.0
        if self.class_weight is not None:
            known = (targets >= 0) & (targets < self.classes)
            scale = self.class_weight[targets.where(known, 0)].to(lse.dtype)
            share, even = self.class_weight.mean(), self._own_weights()
        scale = scale * (1 - smoothing)
        factor = scale + smoothing * share + 2 * self.criterion.z_loss * lse
        d = (x - lse.unsqueeze(1)).exp_().mul_(factor.unsqueeze(1))
        d.scatter_add_(1, index, (-scale).where(here, 0.0).unsqueeze(1))
        d = (d - smoothing / self.classes * even) * kept.unsqueeze(1)
        logits.copy_(d if slope is None else d * slope)

    def top(self, logits: Tensor) -> Tensor:
        """(2, C): the largest logit of each row of this shard's, and its class, the first of
        several; one more read of the logits."""
        largest, place = logits.max(1)
        dtype = statistics_dtype(logits)
        return torch.stack((largest.to(dtype), (place + self.first).to(dtype)))

    def _arguments(self, logits: Tensor, targets: Tensor) -> dict[str, Any]:
        """The arguments that both kernels take."""
        c, (weight, weight_sum) = self.criterion, self.table or (logits, logits)
        return {
            "LOGITS": logits, "TARGETS": targets, "WEIGHT": weight, "WEIGHT_SUM": weight_sum,
            "stride": logits.stride(0), "n": self.size, "ignore_index": c.ignore_index,
            "first_class": self.first, "classes": self.classes, "smoothing": c.label_smoothing,
            "z_loss": c.z_loss, "softcap": c.softcap or 1.0,
            "HAS_WEIGHT": self.class_weight is not None, "HAS_SOFTCAP": c.softcap is not None,
            "ACC": accumulator_type(logits), "VEC": vector_length(logits),
        }  # fmt: skip

    def _own_weights(self) -> Tensor:
        assert self.class_weight is not None
        return self.class_weight[self.first : self.first + self.size]

    def _capped(self, logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        x, cap = logits.to(dtype), self.criterion.softcap
        if cap is None:
            return x, None
        x = torch.tanh(x / cap)
        return x * cap, 1 - x.square()

    def _index(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        local = targets - self.first
        here = (local >= 0) & (local < self.size) & (targets != self.criterion.ignore_index)
        return local.where(here, 0).unsqueeze(1), here


def whole(parts: Tensor) -> Tensor:
    """Sums of the whole vocabulary (3, C) from those of every rank (ranks, 3, C)."""
    return torch.stack((parts[:, 0].logsumexp(0), parts[:, 1].sum(0), parts[:, 2].sum(0)))


def whole_top(tops: Tensor) -> Tensor:
    """The class (C,) of the largest logit from `Shard.top` of every rank (ranks, 2, C); -1 beside a
    NaN. The first rank of several has the first class. A class is exact up to 2^24."""
    largest, rank = tops[:, 0].max(0)
    place = tops[:, 1].gather(0, rank.unsqueeze(0)).squeeze(0).to(torch.int64)
    return place.where(~largest.isnan(), -1)


def gathered(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """`own` of every rank, (ranks, *own.shape)."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    return torch.stack(parts)


@torch.library.custom_op("lockgate::vocab_parallel_cross_entropy", mutates_args=())
def vocab_parallel_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    mean: bool,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    on_triton: bool,
    statistics: bool,
    group_name: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The torch op of `linear_cross_entropy` over a group of equal shards; returns the loss, the
    `KeptGradients` of this shard, lse and correct. class_weight is the whole vocabulary's."""
    group = _resolve_process_group(GroupName(group_name))
    ranks, size = dist.get_world_size(group), weight.shape[0]
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    first = dist.get_rank(group) * size
    table = class_table(class_weight, hidden) if on_triton else None
    shard = Shard(first, size, ranks * size, class_weight, table, criterion, on_triton)
    dtype, needs = statistics_dtype(hidden), (need_hidden, need_weight, need_bias)
    losses = hidden.new_empty(hidden.shape[0], dtype=dtype)
    lse, correct = empty_statistics(hidden, statistics)
    g = torch.ones((), dtype=dtype, device=hidden.device)
    if mean:
        g = g / denominator(targets, ignore_index, class_weight)
    magnified = magnification(hidden, g, class_weight)
    scale, gradients = g * magnified, GradientSums(hidden, weight, needs, magnified)

    def walk() -> None:  # a function, for the buffer of the logits to end with it
        for part, logits in token_chunks.logits(hidden, weight, bias):
            own = targets[part]
            sums = whole(gathered(shard.sums(logits, own), group))
            losses[part] = shard.losses(sums, own)
            if statistics:
                kept = own != ignore_index
                lse[part] = sums[0].where(kept, 0.0)
                correct[part] = kept & (whole_top(gathered(shard.top(logits), group)) == own)
            if any(needs):
                shard.gradient(logits, own, sums[0], scale)
            gradients.add(part, logits)

    walk()
    kept_gradients = gradients.kept()
    if need_hidden:
        dist.all_reduce(kept_gradients.dhidden, group=group)
    return losses.sum() * g, *kept_gradients, lse, correct


@vocab_parallel_op.register_fake
def _(
    hidden, weight, bias, targets, cw, ig, ls, z, cap, mean, need_h, need_w, need_b, on, statistics,
    group,
):  # fmt: skip
    return empty_results(hidden, weight, (need_h, need_w, need_b), statistics)


register_scaling(vocab_parallel_op, "linear_cross_entropy", arguments=16)
