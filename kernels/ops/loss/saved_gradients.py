"""Gradients of hidden states and output layer that the forward of a loss makes, and their autograd.

Of a bf16 weight dW is summed in fp32, and kept in bf16 from the end of the forward on. It lies in
two halves of the classes, so that one half's sums are gone before the other is rounded. With
U = V·N·e the sums are 2U, rounding them takes U/2 more, and the backward's copy lies beside U.
In fp16 dW is kept in fp32: magnified as it is, it would be larger than fp16 reaches, and as small
as it shall be, smaller.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.launch import token_chunks
from kernels.launch.derivatives import refuse_recorded_backward
from kernels.launch.dtypes import statistics_dtype

# What plain torch has in the place of an operator that makes its gradients in the forward.
PLAIN = "F.linear and kernels.cross_entropy in "
# Elements that the backward scales at a time: 16 MiB of fp32.
SLICE = 1 << 22
# The largest gradient of a logit that is kept in fp16: far from its end, 65504, so that a product
# with an output weight of up to 128 stays below that, and as far as can be from its other end.
FP16_LARGEST = 256.0


class KeptGradients(NamedTuple):
    """Results of a forward that are its gradients but for a factor, each empty if not needed.

    dhidden (M, N) as the hidden states; dweight_low, dweight_high (V, N) by `halves`, in
    `kept_dtype`; dbias (V,) in the wide type; magnified (), the power of two they are too large by.
    """

    dhidden: Tensor
    dweight_low: Tensor
    dweight_high: Tensor
    dbias: Tensor
    magnified: Tensor

    @classmethod
    def empty(
        cls, hidden: Tensor, weight: Tensor, needs: tuple[bool, bool, bool], dtype: torch.dtype
    ) -> "KeptGradients":
        """Tensors of these shapes with dW in `dtype`, for (dh, dW, db) that `needs` names."""
        wide, shape = statistics_dtype(hidden), torch.contiguous_format
        low, high = (part.stop - part.start for part in halves(weight.shape[0]))
        n = weight.shape[1]
        return cls(
            torch.empty_like(hidden, memory_format=shape) if needs[0] else hidden.new_empty(0),
            hidden.new_empty((low, n) if needs[1] else (0,), dtype=dtype),
            hidden.new_empty((high, n) if needs[1] else (0,), dtype=dtype),
            hidden.new_empty(weight.shape[0] if needs[2] else 0, dtype=wide),
            hidden.new_empty((), dtype=wide),
        )


def halves(classes: int) -> tuple[slice, slice]:
    """Two ranges of classes, the second on a multiple of 64 of them."""
    middle = min(classes, -(-classes // 128) * 64)
    return slice(0, middle), slice(middle, classes)


def kept_dtype(hidden: Tensor) -> torch.dtype:
    """Type that dW is kept in until the backward."""
    return hidden.dtype if hidden.dtype == torch.bfloat16 else statistics_dtype(hidden)


class GradientSums:
    """Gradients of hidden (M, N), weight (V, N) and bias, summed chunk by chunk of the tokens."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, needs: tuple[bool, bool, bool], magnified: Tensor
    ):
        self.hidden, self.weight, self.needs = hidden, weight, needs
        sums = KeptGradients.empty(hidden, weight, needs, statistics_dtype(hidden))
        for x in sums[1:4]:
            x.zero_()
        self.sums = sums._replace(magnified=magnified)

    def add(self, part: slice, dlogits: Tensor) -> None:
        """Add the tokens `part`, whose logits have the gradient dlogits (C, V)."""
        need_hidden, need_weight, need_bias = self.needs
        if need_hidden:
            torch.mm(dlogits, self.weight, out=self.sums.dhidden[part])
        if need_weight:
            for classes, dweight in zip(halves(self.weight.shape[0]), self.sums[1:3], strict=True):
                token_chunks.accumulate(dweight, dlogits[:, classes], self.hidden[part])
        if need_bias:
            self.sums.dbias.add_(dlogits.sum(0, dtype=self.sums.dbias.dtype))

    def kept(self) -> KeptGradients:
        """The gradients in the types that they are kept in. The sums are gone afterwards."""
        dtype, (dhidden, low, high, dbias, magnified) = kept_dtype(self.hidden), self.sums
        del self.sums  # so that each half is freed as soon as it is rounded
        low = low.to(dtype)
        high = high.to(dtype)
        return KeptGradients(dhidden, low, high, dbias, magnified)


def magnification(hidden: Tensor, g: Tensor, class_weight: Tensor | None) -> Tensor:
    """Power of two () by which the saved gradients are those of g times the losses.

    1 but for fp16 hidden states: a mean's gradient of a logit, p/M, is smaller than the smallest
    number of fp16 for most classes, and what is lost there no later loss scale brings back.
    """
    if hidden.dtype != torch.float16:
        return torch.ones_like(g)
    largest = g if class_weight is None else g * class_weight.abs().max()
    largest = largest.clamp(min=torch.finfo(g.dtype).tiny * 1024)
    mantissa, _ = torch.frexp(largest)  # in [1/2, 1); the quotient is a power of two, exactly
    return FP16_LARGEST * (mantissa / largest)


def scaled(parts: list[Tensor], factor: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of all `parts` (rows, N) times factor () in `dtype`, rounded once; never a wide
    copy."""
    out = empty_rows(parts, dtype)
    rows, filled = max(1, SLICE // max(1, out.shape[1])), 0
    for part in parts:
        for some in part.split(rows):
            out[filled : filled + some.shape[0]] = some.to(factor.dtype) * factor
            filled += some.shape[0]
    return out


def empty_rows(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Uninitialised (rows of all `parts`, N) in `dtype`."""
    return parts[0].new_empty((sum(x.shape[0] for x in parts), parts[0].shape[1]), dtype=dtype)


@torch.library.custom_op("lockgate::scaled_gradient", mutates_args=())
def scaled_gradient_op(
    low: Tensor, high: Tensor | None, factor: Tensor, dtype: torch.dtype
) -> Tensor:
    """The torch op of `scaled` for one part or two; vmap takes no list."""
    return scaled([low] if high is None else [low, high], factor, dtype)


@scaled_gradient_op.register_fake
def _(low, high, factor, dtype):
    return empty_rows([low] if high is None else [low, high], dtype)


def register_scaling(forward_op: Any, op: str, arguments: int, instead: str = PLAIN) -> None:
    """Register the autograd of `op`'s torch op of so many arguments, the first of them hidden,
    weight and bias, and of the results loss, `KeptGradients` and then constants. The backward
    scales the gradients out of place: a second one finds them as they were."""
    nothing = (None,) * (arguments - 3)

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        _, *constants = output
        ctx.save_for_backward(*constants[:5])
        ctx.mark_non_differentiable(*constants)
        ctx.set_materialize_grads(False)
        ctx.weight_dtype = inputs[1].dtype

    def backward(ctx: Any, dloss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if dloss is None:
            return None, None, None, *nothing
        refuse_recorded_backward(op, instead)
        kept = KeptGradients(*ctx.saved_tensors)
        factor, dh, dw, db = dloss / kept.magnified, None, None, None
        if ctx.needs_input_grad[0]:
            dh = scaled_gradient_op(kept.dhidden, None, factor, kept.dhidden.dtype)
        if ctx.needs_input_grad[1]:
            dw = scaled_gradient_op(kept.dweight_low, kept.dweight_high, factor, ctx.weight_dtype)
        if ctx.needs_input_grad[2]:
            db = (kept.dbias * factor).to(ctx.weight_dtype)
        return dh, dw, db, *nothing

    forward_op.register_autograd(backward, setup_context=save)
