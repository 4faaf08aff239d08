"""The operators as torch sees them: opcheck, fake tensors, torch.compile, checkpointing."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

import kernels
from kernels.ops import addnorm, gated, rmsnorm, rotation
from kernels.ops.loss import crossentropy, linear_fused, linear_jsd, linear_kl, linear_losses

LOSS = (-100, 0.1, 1e-3, 5.0)
FUSED = (True, True, True, True, True)  # mean, gradients of all three, on Triton


def t(*shape, grad=True):
    return torch.randn(shape, requires_grad=grad)


def samples():
    torch.manual_seed(0)
    targets = torch.randint(0, 33, (3,))
    cos, sin = torch.randn(2, 5, 8)
    q, k = t(2, 5, 3, 16), t(2, 5, 2, 16)
    padded = torch.randn(3, 40)[:, :33].requires_grad_()
    stat = t(3, grad=False)
    plain = t(3, 33, grad=False)
    teacher = t(3, 5, grad=False), t(33, 5, grad=False), None
    models = t(3, 8), t(33, 8), t(33), *teacher
    kept = torch.tensor([True, False, True])
    return {
        "rms_norm": (rmsnorm.rms_norm_op, (t(3, 8), t(8), 1e-6, 0.0, torch.float32)),
        "rms_norm of 1 + weight": (
            rmsnorm.rms_norm_op, (t(3, 8), t(8), 1e-6, 1.0, torch.float64)
        ),
        "rms_norm without weight": (
            rmsnorm.rms_norm_op, (t(3, 8), None, 1e-6, 0.0, torch.float32)
        ),
        "rms_norm_backward": (
            rmsnorm.rms_norm_backward_op,
            (t(3, 8, grad=False), t(3, 8, grad=False), t(8, grad=False), stat, None, 0.0),
        ),
        "add_rms_norm": (
            addnorm.add_rms_norm_op, (t(3, 8), t(3, 8), t(8), 1e-6, 0.0, torch.float32)
        ),
        "add_rms_norm of a wide stream": (
            addnorm.add_rms_norm_op,
            (t(3, 8), t(3, 8).detach().double().requires_grad_(), t(8), 1e-6, 1.0, torch.float32),
        ),
        "add_rms_norm without weight": (
            addnorm.add_rms_norm_op, (t(3, 8), t(3, 8), None, 1e-6, 0.0, torch.float32)
        ),
        "rope": (rotation.rope_op, (q, k, cos, sin, None, None, 1e-6, False)),
        "rope with QK-norm": (rotation.rope_op, (q, k, cos, sin, t(16), t(16), 1e-6, False)),
        "rope_norm_backward": (
            rotation.rope_norm_backward_op,
            (q.detach(), k.detach(), q.detach(), k.detach(), cos, sin, t(16, grad=False),
             t(16, grad=False), 1e-6),
        ),
        "swiglu": (gated.glu_op, (t(3, 7), t(3, 7), False)),
        "geglu": (gated.glu_op, (t(3, 7), t(3, 7), True)),
        "glu_backward": (gated.glu_backward_op, (*(t(3, 7, grad=False) for _ in range(3)), False)),
        "cross_entropy": (crossentropy.cross_entropy_op, (padded, targets, None, *LOSS, True)),
        "cross_entropy_backward": (
            crossentropy.cross_entropy_backward_op, (stat, plain, targets, stat, None, *LOSS)
        ),
        "linear_cross_entropy": (
            linear_fused.linear_cross_entropy_op,
            (t(3, 8), t(33, 8), None, targets, None, *LOSS, True, True, True, False, True, False),
        ),
        "linear_cross_entropy with a bias": (
            linear_fused.linear_cross_entropy_op,
            (t(3, 8), t(33, 8), t(33), targets, None, *LOSS, True, True, True, True, True, True),
        ),
        "linear_losses": (
            linear_losses.linear_losses_op,
            (t(3, 8), t(33, 8), t(33), targets, None, *LOSS, True, True),
        ),
        "linear_losses_backward": (
            linear_losses.linear_losses_backward_op,
            (stat, *(t(*shape, grad=False) for shape in ((3, 8), (33, 8), (33,))), targets, stat,
             None, *LOSS, True),
        ),
        "linear_kl": (linear_kl.linear_kl_op, (*models, kept, "forward", 2.0, 0.5, *FUSED)),
        "linear_jsd": (linear_jsd.linear_jsd_op, (*models, kept, "jsd", 1.0, 0.3, *FUSED)),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(samples()))
def test_opcheck(name):
    op, arguments = samples()[name]
    torch.library.opcheck(op, arguments)


def layer(x, stream, w, q_weight, cos, sin, targets, head, shift=True):
    """All operators in one function, as a model would chain them."""
    y, stream = kernels.add_rms_norm(x, stream, w)
    heads = y.view(*y.shape[:2], 2, -1)
    q, _ = kernels.rope(heads, heads, cos, sin, q_weight, q_weight)
    h = kernels.swiglu(q.flatten(2), stream) + kernels.geglu(y, stream)
    h = kernels.rms_norm(h, w)
    loss = kernels.linear_cross_entropy(h, head, targets, shift=shift)
    return loss + kernels.cross_entropy(h @ head.T, targets)


def layer_inputs(batch, tokens):
    torch.manual_seed(1)
    cos, sin = torch.randn(2, tokens, 4)
    targets = torch.randint(0, 33, (batch, tokens))
    return t(batch, tokens, 16), t(batch, tokens, 16), t(16), t(8), cos, sin, targets, t(33, 16)


# aot_eager traces what eager does, and the backward too
WIDE = [pytest.param(backend, marks=pytest.mark.full) for backend in ("eager", "inductor")]


@pytest.mark.parametrize("backend", ["aot_eager", *WIDE])
def test_compile_fullgraph_dynamic(backend, meter):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(layer, backend=backend, fullgraph=True, dynamic=True)
    for batch, tokens in ((2, 3), (3, 5)):
        inputs = layer_inputs(batch, tokens)
        leaves = [x for x in inputs if x.requires_grad]
        expected = torch.autograd.grad(layer(*inputs), leaves)
        before = sum(meter.programs.values())
        actual = torch.autograd.grad(compiled(*inputs), leaves)
        assert sum(meter.programs.values()) > before
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_fake_tensors_on_a_gpu_that_is_not_there(elsewhere):
    with FakeTensorMode(), torch.no_grad():
        inputs = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in layer_inputs(2, 3)]
        loss = layer(*inputs, shift=False)  # a CPU build of torch cannot slice them
        assert loss.shape == () and loss.dtype == torch.float32 and loss.device.type == "cuda"


def test_fake_gradients(elsewhere):
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(x.detach()) for x in layer_inputs(2, 3)]
        leaves = [x.requires_grad_() for x in inputs[:4]]
        for leaf, grad in zip(leaves, torch.autograd.grad(layer(*inputs), leaves), strict=True):
            assert grad.shape == leaf.shape and grad.dtype == leaf.dtype


def test_selective_checkpointing_saves_what_it_is_told(meter):
    inputs = layer_inputs(2, 3)
    leaves = [x for x in inputs if x.requires_grad]
    expected = torch.autograd.grad(layer(*inputs), leaves)
    saved = [torch.ops.lockgate.linear_cross_entropy.default]

    def policy(context, op, *_, **__):
        keep = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
        return keep[0] if op in saved else keep[1]

    meter.programs.clear()
    loss = checkpoint(
        layer, *inputs, use_reentrant=False,
        context_fn=lambda: create_selective_checkpoint_contexts(policy),
    )  # fmt: skip
    actual = torch.autograd.grad(loss, leaves)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)
    rows = 6
    assert meter.programs["linear_cross_entropy_kernel"] == rows  # once: it was saved
    assert meter.programs["cross_entropy_fwd_kernel"] == 2 * rows  # again: it was not
