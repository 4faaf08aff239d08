"""Linear + cross entropy with the vocabulary split over a process group.

Each rank holds its rows of the output layer. Of a chunk of logits it makes three numbers per token
for its own classes: lse, x at the target (0 elsewhere) and Σ ω·x. One all-gather of them gives
every rank the whole lse, from which each makes the gradient of its own logits; dh, a sum over all
classes, is reduced once at the end. Formulas: kernels/ops/loss/crossentropy.py.
"""

from dataclasses import dataclass

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
from kernels.ops.loss.linear_fused import empty_results
from kernels.ops.loss.row import class_table
from kernels.ops.loss.saved_gradients import magnification, scaling_backward, scaling_context


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
                logits, targets, *(self.table or (logits, logits)), sums[1], sums[0],
                sums[2], *self._options(logits), *self._flags(), True, accumulator_type(logits),
                vector_length(logits), cfg.block, **cfg.options,
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
            options = self._options(logits)
            cross_entropy_bwd_kernel[(logits.shape[0],)](
                logits, targets, *(self.table or (logits, logits)), lse.contiguous(), g,
                logits, logits.stride(0), *options[:5], 0, *options[5:],
                *self._flags(), accumulator_type(logits), vector_length(logits), cfg.block,
                **cfg.options,
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

    def _options(self, logits: Tensor) -> tuple:
        c = self.criterion
        return (logits.stride(0), self.size, c.ignore_index, self.first, self.classes,
                c.label_smoothing, c.z_loss, c.softcap or 1.0)  # fmt: skip

    def _flags(self) -> tuple[bool, bool]:
        return self.class_weight is not None, self.criterion.softcap is not None

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
    group_name: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The torch op of `linear_cross_entropy` over a group of equal shards; returns (loss, dh,
    dW and db of this shard, the power of two that they are too large by). class_weight is the
    whole vocabulary's."""
    group = _resolve_process_group(GroupName(group_name))
    ranks, size = dist.get_world_size(group), weight.shape[0]
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    first = dist.get_rank(group) * size
    table = class_table(class_weight, hidden) if on_triton else None
    shard = Shard(first, size, ranks * size, class_weight, table, criterion, on_triton)
    m, dtype = hidden.shape[0], statistics_dtype(hidden)
    losses = hidden.new_empty(m, dtype=dtype)
    dhidden = torch.empty_like(hidden) if need_hidden else hidden.new_empty(0)
    dweight = hidden.new_zeros(weight.shape if need_weight else (0,), dtype=dtype)
    dbias = hidden.new_zeros(size if need_bias else 0, dtype=dtype)
    g = torch.ones((), dtype=dtype, device=hidden.device)
    if mean:
        g = g / denominator(targets, ignore_index, class_weight)
    magnified = magnification(hidden, g, class_weight)
    scale = g * magnified
    for part, logits in token_chunks.logits(hidden, weight, bias):
        own = shard.sums(logits, targets[part])
        parts = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(parts, own, group=group)
        sums = whole(torch.stack(parts))
        losses[part] = shard.losses(sums, targets[part])
        if need_hidden or need_weight or need_bias:
            shard.gradient(logits, targets[part], sums[0], scale)
        if need_hidden:
            torch.mm(logits, weight, out=dhidden[part])
        if need_weight:
            token_chunks.accumulate(dweight, logits, hidden[part])
        if need_bias:
            dbias += logits.sum(0, dtype=dtype)
    if need_hidden:
        dist.all_reduce(dhidden, group=group)
    return losses.sum() * g, dhidden, dweight, dbias, magnified


@vocab_parallel_op.register_fake
def _(hidden, weight, bias, targets, cw, ig, ls, z, cap, mean, need_h, need_w, need_b, on, group):
    return empty_results(hidden, weight, need_h, need_w, need_b)


vocab_parallel_op.register_autograd(scaling_backward, setup_context=scaling_context)
