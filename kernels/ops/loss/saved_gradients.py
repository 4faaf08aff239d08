"""Autograd of the losses whose forward makes the gradients of hidden states and output weight."""

import torch
from torch import Tensor

from kernels.launch.derivatives import refuse_recorded_backward

# What plain torch has in the place of an operator that makes its gradients in the forward.
PLAIN = "F.linear and kernels.cross_entropy in "
# Elements that the backward scales at a time: 64 MiB of fp32.
SLICE = 1 << 24
# The largest gradient of a logit that is kept in fp16: far from its end, 65504, so that a product
# with an output weight of up to 128 stays below that, and as far as can be from its other end.
FP16_LARGEST = 256.0


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


def scaled(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient (rows, N) times factor () in `dtype`, rounded once; never a wide copy."""
    out = torch.empty_like(gradient, dtype=dtype)
    rows = max(1, SLICE // max(1, gradient.shape[1]))
    for first in range(0, gradient.shape[0], rows):
        part = slice(first, first + rows)
        out[part] = gradient[part].to(factor.dtype) * factor
    return out


@torch.library.custom_op("lockgate::scaled_gradient", mutates_args=())
def scaled_gradient_op(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """The torch op of `scaled`."""
    return scaled(gradient, factor, dtype)


@scaled_gradient_op.register_fake
def _(gradient, factor, dtype):
    return torch.empty_like(gradient, dtype=dtype)


def scaling_context(ctx, inputs, output):
    """Save the gradients that the forward made; they have none themselves."""
    _, *kept = output
    ctx.save_for_backward(*kept)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)
    ctx.weight_dtype, ctx.inputs = inputs[1].dtype, len(inputs)


def scaling_backward(ctx, dloss, *_):
    """Scale the saved gradients out of place: a second backward finds them as they were."""
    nothing = (None,) * (ctx.inputs - 3)
    if dloss is None:
        return None, None, None, *nothing
    refuse_recorded_backward("linear_cross_entropy", PLAIN)
    dhidden, dweight, dbias, magnified = ctx.saved_tensors
    factor, dh, dw, db = dloss / magnified, None, None, None
    if ctx.needs_input_grad[0]:
        dh = scaled_gradient_op(dhidden, factor, dhidden.dtype)
    if ctx.needs_input_grad[1]:
        dw = scaled_gradient_op(dweight, factor, ctx.weight_dtype)
    if ctx.needs_input_grad[2]:
        db = (dbias * factor).to(ctx.weight_dtype)
    return dh, dw, db, *nothing
