"""The torch path: what trains on the CPU and what the kernels are held to."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.launch.config import table_arch
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref
from kernels.ops.loss.saved_gradients import magnification
from tests.kernels.calls import fp16_errors_of_far_classes
from tests.kernels.refusals import REFUSED, TOO_WIDE, mixed


@pytest.fixture(autouse=True)
def torch_path():
    torch.manual_seed(0)
    previous = kernels.use("torch")
    yield
    kernels.use(previous)


def test_importing_kernels_imports_no_triton():
    code = (
        "import sys, kernels; dir(kernels); sys.exit(any("
        "name == 'triton' or name.startswith(('kernels.ops', 'kernels.launch'))"
        " for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(kernels.KernelError, match="auto, triton, torch"):
        kernels.use("cuda")
    assert kernels.use("auto") == "torch" and kernels.current() == "auto"


def test_references_are_torchs():
    x, w = torch.randn(3, 5, 8), torch.randn(8)
    torch.testing.assert_close(kernels.rms_norm(x, w), F.rms_norm(x, (8,), w, 1e-6))
    y, stream = kernels.add_rms_norm(x, x, w)
    torch.testing.assert_close(stream, 2 * x)
    torch.testing.assert_close(y, F.rms_norm(2 * x, (8,), w, 1e-6))
    targets = torch.randint(0, 5, (3, 8))
    targets[0, 0] = -100
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
        expected = F.cross_entropy(x, targets, **options)
        logits = x.transpose(1, 2)
        torch.testing.assert_close(kernels.cross_entropy(logits, targets, **options), expected)


OPTIONS = [
    {}, {"reduction": "sum", "shift": True}, {"reduction": "none"},
    {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 5.0, "class_weight": torch.rand(40) + 0.5},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_linear_cross_entropy_by_chunks_is_the_whole(options, monkeypatch):
    monkeypatch.setattr("kernels.launch.token_chunks.CPU_LOGITS", 64 * 40)
    h, w = torch.randn(2, 90, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    targets = torch.randint(0, 40, (2, 90))
    targets[1, 3] = -100
    mine = kernels.linear_cross_entropy(h, w, targets, **options)
    whole = linear_cross_entropy_ref(h, w, targets, **options)
    torch.testing.assert_close(mine, whole)
    got = torch.autograd.grad(mine.sum(), (h, w))
    for a, b in zip(got, torch.autograd.grad(whole.sum(), (h, w)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("linear", [False, True])
def test_all_ignored_is_zero_with_zero_gradients(linear, reduction, shift, weighted):
    h, w = torch.randn(2, 4, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    targets = torch.full((2, 4), -100)
    if shift:
        targets[:, 0] = 3  # nobody predicts the first
    options = {
        "reduction": reduction, "shift": shift, "label_smoothing": 0.1, "z_loss": 0.1,
        "class_weight": torch.rand(40) if weighted else None,
    }  # fmt: skip
    if linear:
        loss = kernels.linear_cross_entropy(h, w, targets, **options)
    else:
        loss = kernels.cross_entropy(h @ w.T, targets, **options)
    assert not loss.any()
    for gradient in torch.autograd.grad(loss, (h, w), torch.randn_like(loss)):
        assert not gradient.any()


def test_autocast_computes_in_its_dtype_and_returns_fp32():
    h, w = torch.randn(9, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = kernels.linear_cross_entropy(h, w, torch.randint(0, 40, (9,)))
    loss.backward()
    assert loss.dtype == h.grad.dtype == w.grad.dtype == torch.float32


@pytest.mark.parametrize("mode", ["auto", "torch"])
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_does_not_fit_is_refused(name, mode):
    call, words = REFUSED[name]
    kernels.use(mode)
    with pytest.raises(kernels.KernelError, match=words):
        call()


@pytest.mark.parametrize("name", list(TOO_WIDE))
def test_what_no_kernel_takes_is_refused_before_there_is_a_gpu(name):
    call, words = TOO_WIDE[name]
    kernels.use("auto")
    with pytest.raises(kernels.KernelError, match=words):
        call()
    kernels.use("torch")
    call()


def test_operands_of_two_types_are_promoted():
    for name, (found, kinds) in mixed().items():
        assert tuple(y.dtype for y in found) == kinds, name
        assert all(y.isfinite().all() for y in found), name


def test_fp16_gradients_do_not_underflow_before_their_loss_scale():
    ours, torchs = fp16_errors_of_far_classes("torch")
    assert ours < 1.05 * torchs and torchs < 1e-3


@pytest.mark.parametrize("g", [1.0, 1 / 3, 1 / 4096, 1e-30])
@pytest.mark.parametrize("heaviest", [None, 0.0, 1e-3, 1000.0])
def test_fp16_gradients_are_magnified_by_a_power_of_two(g, heaviest):
    """To about 256 for a class of full weight; other types keep theirs."""
    weight = None if heaviest is None else torch.tensor([heaviest, heaviest / 7])
    scale = magnification(torch.ones(1).half(), torch.tensor(g), weight)
    assert torch.frexp(scale).mantissa == 0.5
    if heaviest != 0.0:
        assert 128 <= scale * g * (heaviest or 1.0) <= 256
    for dtype in (torch.bfloat16, torch.float32):
        assert magnification(torch.ones(1, dtype=dtype), torch.tensor(g), weight) == 1


@pytest.mark.parametrize(
    ("backend", "arch", "rows"),
    [
        ("cuda", 80, "sm_80"), ("cuda", 86, "sm_80"), ("cuda", 89, "sm_80"), ("cuda", 90, "sm_90"),
        ("cuda", 100, "sm_100"), ("cuda", 103, "sm_100"), ("hip", "gfx942", "gfx942"),
        ("cuda", 75, None), ("cuda", 110, None), ("cuda", 120, None), ("hip", "gfx90a", None),
        ("hip", "gfx950", None), ("hip", "gfx1100", None),
    ],
)  # fmt: skip
def test_an_architecture_takes_rows_of_its_own_kind_or_is_refused(backend, arch, rows):
    target = SimpleNamespace(backend=backend, arch=arch)
    if rows is not None:
        assert table_arch(target) == rows
        return
    with pytest.raises(kernels.KernelError, match=f"{arch} has no launch configs.*kernels=torch"):
        table_arch(target)
