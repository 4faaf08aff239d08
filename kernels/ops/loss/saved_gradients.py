"""Autograd of the losses whose forward makes the gradients of hidden states and output weight."""

from kernels.launch.derivatives import refuse_recorded_backward

# What plain torch has in the place of an operator that makes its gradients in the forward.
PLAIN = "F.linear and kernels.cross_entropy in "


def scaling_context(ctx, inputs, output):
    """Save the gradients that the forward made; they have none themselves."""
    _, dhidden, dweight = output
    ctx.save_for_backward(dhidden, dweight)
    ctx.mark_non_differentiable(dhidden, dweight)
    ctx.set_materialize_grads(False)
    ctx.weight_dtype, ctx.inputs = inputs[1].dtype, len(inputs)


def scaling_backward(ctx, dloss, *_):
    """Scale the saved gradients out of place: a second backward finds them as they were."""
    nothing = (None,) * (ctx.inputs - 2)
    if dloss is None:
        return None, None, *nothing
    refuse_recorded_backward("linear_cross_entropy", PLAIN)
    dhidden, dweight = ctx.saved_tensors
    dh = (dhidden * dloss).to(dhidden.dtype) if ctx.needs_input_grad[0] else None
    dw = (dweight * dloss).to(ctx.weight_dtype) if ctx.needs_input_grad[1] else None
    return dh, dw, *nothing
