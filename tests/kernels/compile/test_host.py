"""The host path: one binary per (op, dtype, size), and never a look at the data."""

import pytest
import torch

import kernels
from kernels.analysis.cases import WORKLOADS
from kernels.analysis.fake_driver import FakeDriver, compiled_kernels
from kernels.analysis.tune import DTYPES, planned_rows
from kernels.launch import token_chunks
from kernels.launch.table import TABLE
from kernels.ops import rmsnorm, rotation
from kernels.ops.loss import crossentropy, linear_fused
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.linear_fused import fused_loss
from kernels.ops.loss.saved_gradients import scaled
from tests.kernels.peak import Peak


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_batch_smoothing_and_ignored_tokens_add_no_binary():
    losses = torch.float32
    kernels_seen = (
        rmsnorm.rms_norm_fwd_kernel, rmsnorm.rms_norm_bwd_kernel,
        crossentropy.cross_entropy_fwd_kernel, crossentropy.cross_entropy_bwd_kernel,
        linear_fused.linear_cross_entropy_kernel, rotation.rope_kernel,
    )  # fmt: skip
    with FakeDriver("sm_90") as gpu:
        before = {fn: len(compiled_kernels(fn, gpu)) for fn in kernels_seen}
        for rows, smoothing, ignored in (
            (1, 0.0, -100),
            (16, 0.1, 0),
            (17, 1.0, 1),
            (4096, 0.3, 7),
        ):
            x, w = meta(rows, 2048), meta(2048)
            rmsnorm.forward(x, w, 1e-6, 0.0, x.dtype)
            rmsnorm.backward(x, x, w, meta(rows, dtype=losses), None, 0.0)
            options = (None, ignored, smoothing, smoothing / 7, None)
            logits, targets = meta(rows, 50257), meta(rows, dtype=torch.int64)
            stat = meta(rows, dtype=losses)
            crossentropy.forward(logits, targets, *options)
            crossentropy.backward(stat, logits, targets, stat, *options)
            linear_fused.loss_and_gradient(
                token_chunks.buffer(x, rows, 32001), targets, None,
                Criterion(ignored, smoothing), meta(dtype=losses), stat,
            )  # fmt: skip
            for batch in (1, 2, 3):
                q, k = meta(batch, rows, 32, 128), meta(batch, rows, 8, 128)
                tables = meta(rows, 64), meta(rows, 64)
                rotation.forward(q, k, *tables, None, None, 1e-6, False)
        for fn in kernels_seen:
            assert len(compiled_kernels(fn, gpu)) - before[fn] <= 1, fn


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_the_number_of_rows_adds_no_binary(name):
    binaries: dict[str, set[str]] = {}
    with FakeDriver("sm_90") as gpu:
        for rows in (1, 2, 16, 17, 4096):
            WORKLOADS[name].run(rows, WORKLOADS[name].sizes[0], torch.bfloat16, "meta")
    for launched in gpu.launches:
        binaries.setdefault(launched.name, set()).add(launched.kernel.metadata.hash)
    assert binaries and all(len(distinct) == 1 for distinct in binaries.values()), binaries


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_nothing_waits_for_the_device(name):
    """A meta tensor has no data: any .item(), .cpu() or branch on a value would raise."""
    work = WORKLOADS[name]
    with FakeDriver("sm_90") as gpu:
        work.run(7, work.sizes[0], torch.bfloat16, "meta")
    assert gpu.launches and all(min(launched.grid) > 0 for launched in gpu.launches)


def test_a_grid_holds_any_number_of_sequences():
    """Its second and third dimension end at 65,535."""
    q, k, w = meta(70_000, 3, 32, 64), meta(70_000, 3, 8, 64), meta(64)
    tables = meta(3, 32), meta(3, 32)
    with FakeDriver("sm_90") as gpu:
        rotation.forward(q, k, *tables, None, None, 1e-6, False)
        rotation.backward(q, k, q, k, *tables, w, w, 1e-6)
    assert {launched.name for launched in gpu.launches} > {"rope_kernel", "rope_norm_bwd_kernel"}
    assert all(max(launched.grid[1:]) <= 65_535 for launched in gpu.launches)
    assert max(launched.grid[0] for launched in gpu.launches) >= 70_000


@pytest.mark.parametrize("v", [128_256, 262_208])
def test_peak_memory_at_the_largest_vocabularies(v):
    """Llama 3's and Gemma 3's, with 8192 tokens of 4096, forward and backward, with dh and all."""
    m, n, e = 8192, 4096, 2
    hidden, weight, targets = meta(m, n), meta(v, n), meta(m, dtype=torch.int64)
    with FakeDriver("sm_90") as gpu, torch.no_grad(), Peak([hidden, weight, targets]) as memory:
        loss, kept, *_ = fused_loss(
            hidden, weight, None, targets, None, Criterion(), True, (True, True, False), True
        )
        forward, factor = memory.peak, loss / kept.magnified
        memory.peak = memory.alive
        gradients = (
            scaled([kept.dhidden], factor, hidden.dtype),
            scaled([kept.dweight_low, kept.dweight_high], factor, weight.dtype),
        )
    assert gradients[1].shape == weight.shape and gpu.launches
    assert {launched.grid for launched in gpu.launches} == {(2048, 1, 1)}
    one = v * n * e
    assert 2.5 * one <= forward <= 2.6 * one
    assert 2 * one <= memory.peak <= 2.3 * one


@pytest.mark.parametrize("v", [1000, 32_000, 128_256, 151_936, 262_208, 1 << 20])
def test_chunks_are_of_2048_tokens_within_the_budget(v):
    found = token_chunks.account(8192, 4096, v, itemsize=2)
    assert found.buffer_bytes <= 1.25 * 2**30 + 128 * found.tokens
    assert found.tokens == 2048 or (v > 327_680 and found.buffer_bytes > 1.25 * 2**29)
    assert token_chunks.size(100, v, torch.device("cuda")) == 100


def test_the_table_is_whole_and_says_why():
    for rows, size in planned_rows():
        for arch in ("sm_80", "sm_90", "sm_100", "gfx942"):
            for dtype in DTYPES:
                row = TABLE[WORKLOADS[rows.workloads[0]].kernel, arch, dtype, size]
                assert row.why, row


def test_cpu_tensors_are_refused_with_advice():
    previous = kernels.use("triton")
    with pytest.raises(kernels.KernelError, match="use kernels=auto"):
        kernels.rms_norm(torch.randn(2, 8), torch.ones(8))
    kernels.use(previous)
