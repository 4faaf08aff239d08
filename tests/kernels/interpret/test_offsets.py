"""Offsets beyond 2^31 elements, on sparse files and memory that nobody touches: address space is
used, memory is not."""

import pytest
import torch

import kernels
from kernels.analysis.interpreter import Meter
from kernels.launch.config import LaunchConfig, launch_config, trial_configs
from kernels.ops import addnorm, gated, rmsnorm, rotation
from kernels.ops.loss import crossentropy
from tests.kernels.interpret.operators import bf16, results

FAR = (1 << 31) + 1024  # elements from one row to the next


@pytest.fixture
def sparse(tmp_path):
    """bf16 elements of a file that is a hole until it is written to."""
    names = map(str, range(100))

    def make(size):
        path = str(tmp_path / next(names))
        return torch.from_file(path, shared=True, size=size, dtype=torch.bfloat16)

    return make


def heads(x):
    return x.unflatten(-1, (4, 64)).unsqueeze(1)


COS, SIN = torch.ones(2, 1, 32).mul_(torch.tensor([0.6, 0.8])[:, None, None])
TARGETS = torch.tensor([7, 900])
# The operator, the width of each of its row inputs, the lengths of its weights.
ROWS = {
    "rms_norm": (kernels.rms_norm, [256], [256]),
    "add_rms_norm": (kernels.add_rms_norm, [256, 256], [256]),
    "swiglu": (kernels.swiglu, [300, 300], []),
    "geglu": (kernels.geglu, [300, 300], []),
    "cross_entropy": (
        lambda x: kernels.cross_entropy(x, TARGETS, softcap=9.0, reduction="none"), [1001], []
    ),
    "rope": (
        lambda q, k, *w: kernels.rope(heads(q), heads(k), COS, SIN, *w), [256, 256], []
    ),
    "rope with QK-norm": (
        lambda q, k, *w: kernels.rope(heads(q), heads(k), COS, SIN, *w), [256, 256], [64, 64]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ROWS))
def test_rows_more_than_two_billion_elements_apart(name, sparse):
    """Inputs and upstream gradients; results are those of rows that are neighbours."""

    def far(x):
        rows = sparse(FAR + x[0].numel()).as_strided(x.shape, (FAR, *x.stride()[1:]))
        return rows.copy_(x)

    function, widths, lengths = ROWS[name]
    rows, weights = [bf16(2, n) for n in widths], [bf16(n) for n in lengths]
    outs = function(*rows, *weights)
    douts = [bf16(*o.shape) for o in (outs if isinstance(outs, tuple) else (outs,))]
    near = results(function, [*rows, *weights], douts)
    far_douts = [far(d) if d.dim() > 1 else d for d in douts]
    for a, b in zip(results(function, [*map(far, rows), *weights], far_douts), near, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("norm", [False, True])
def test_heads_more_than_two_billion_elements_apart(norm, sparse):
    """The first and the last; their strides are integers of 32 bits."""
    apart = (1 << 30) + 512

    def far(x):
        rows = sparse(2 * apart + 64).as_strided(x.shape, (0, 64, apart, 1))
        return rows.copy_(x)

    q, k, dq, dk = (bf16(1, 1, 3, 64) for _ in range(4))
    weights = (bf16(64), bf16(64)) if norm else ()
    cos, sin = COS[:1], SIN[:1]

    def turn(q, k, *w):
        return kernels.rope(q, k, cos, sin, *w)

    near = results(turn, [q, k, *weights], [dq, dk])
    for a, b in zip(
        results(turn, [far(q), far(k), *weights], [far(dq), far(dk)]), near, strict=True
    ):
        assert torch.equal(a, b)


@pytest.fixture
def last(meter):
    """Of each launch the last program alone runs: what it reads and writes lies beyond element
    2^31, and nobody touches what comes before."""
    with Meter(lambda places: places[-1:]) as last:
        yield last


N = 32768
M = (1 << 31) // N + 2


def tall(row):
    return row.expand(M, N)


def test_two_billion_normed_elements(last):
    x, r, w = bf16(1, N), bf16(1, N), bf16(N)
    for a, b in zip(
        rmsnorm.forward(tall(x), w, 1e-6, 0.0, x.dtype),
        rmsnorm.forward(x, w, 1e-6, 0.0, x.dtype),
        strict=True,
    ):
        assert torch.equal(a[-1:], b)
    for a, b in zip(
        addnorm.forward(tall(x), tall(r), w, 1e-6, 0.0, x.dtype),
        addnorm.forward(x, r, w, 1e-6, 0.0, x.dtype),
        strict=True,
    ):
        assert torch.equal(a[-1:], b)
    assert last.programs == {"rms_norm_fwd_kernel": 2, "add_rms_norm_fwd_kernel": 2}


@pytest.mark.parametrize("reads", [1, 2])
@pytest.mark.parametrize("along", [False, True])
def test_two_billion_gradients_of_a_norm(along, reads, last):
    # few rows in a program, for the interpreter's sake
    few = LaunchConfig(block=N // reads, programs=M // 8, reads=reads)
    x, dy, dstream, w = bf16(1, N), bf16(1, N), bf16(1, N), bf16(N)
    rstd = torch.full((M,), 0.75)
    with trial_configs({"rms_norm_bwd": few, "add_rms_norm_bwd": few}):
        near, _ = rmsnorm.backward(dy, x, w, rstd[:1], dstream if along else None, 0.0)
        far, _ = rmsnorm.backward(tall(dy), tall(x), w, rstd, tall(dstream) if along else None, 0.0)
    assert torch.equal(far[-1:], near)


@pytest.mark.parametrize("gelu", [False, True])
def test_two_billion_gated_elements(gelu, sparse, last):
    size = (1 << 31) + 100
    inputs = [sparse(size) for _ in range(3)]
    tails = [x[1 << 31 :].copy_(bf16(100)) for x in inputs]
    dout, gate, up = inputs
    assert torch.equal(gated.forward(gate, up, gelu)[1 << 31 :], gated.forward(*tails[1:], gelu))
    for a, b in zip(
        gated.backward(dout, gate, up, gelu), gated.backward(*tails, gelu), strict=True
    ):
        assert torch.equal(a[1 << 31 :], b)
    assert last.programs == {"glu_fwd_kernel": 2, "glu_bwd_kernel": 2}


@pytest.mark.parametrize("gelu", [False, True])
def test_two_billion_gated_elements_in_rows(gelu, last):
    near = [bf16(1, N) for _ in range(3)]
    dout, gate, up = map(tall, near)
    end = slice(-launch_config("glu_bwd", gate, N).block, None)  # the last program's columns
    mine = gated.forward(gate, up, gelu), *gated.backward(dout, gate, up, gelu)
    with Meter():
        exact = gated.forward(*near[1:], gelu), *gated.backward(*near, gelu)
    for a, b in zip(mine, exact, strict=True):
        assert torch.equal(a[-1, end], b[0, end])


def test_two_billion_logits(sparse, last):
    v = 65535
    m = (1 << 31) // v + 2
    logits, targets, g = sparse(m * v).view(m, v), torch.full((m,), 9), torch.ones(m)
    near = logits[-1:].copy_(bf16(1, v)).clone()
    options = None, -100, 0.1, 1e-4, 9.0
    losses, lse, _ = crossentropy.forward(logits, targets, *options)
    near_losses, near_lse, _ = crossentropy.forward(near, targets[:1], *options)
    # rows begin at other places between boundaries, so sums come in another order
    torch.testing.assert_close(losses[-1:], near_losses)
    torch.testing.assert_close(lse[-1:], near_lse)
    dlogits = crossentropy.backward(g, logits, targets, lse, *options)
    assert torch.equal(
        dlogits[-1:], crossentropy.backward(g[:1], near, targets[:1], lse[-1:], *options)
    )
    assert last.programs == {"cross_entropy_fwd_kernel": 2, "cross_entropy_bwd_kernel": 2}


@pytest.mark.parametrize("sequences", [1, 9364])
def test_two_billion_elements_of_heads(sequences, sparse, last):
    heads, d, rows = 7, 256, 128
    tokens = 9364 * rows // sequences
    assert sequences * tokens * heads * d > 1 << 31
    # programs of many tokens, to keep them and their partial sums few
    config = LaunchConfig(block=d // 2, rows=rows)
    near = [bf16(1, rows, h, d) for h in (heads, 1, heads, 1)]  # dq, dk, q, k of the last program
    far = [sparse(sequences * tokens * x[0, 0].numel()).view(-1, *x.shape[2:]) for x in near]
    for x, end in zip(far, near, strict=True):
        x[-rows:] = end[0]
    far = [x.view(sequences, tokens, *x.shape[1:]) for x in far]
    table = sparse(tokens * d // 2).view(tokens, d // 2)
    table[-rows:] = 0.75
    weights = bf16(d), bf16(d)
    with trial_configs({"rope": config, "rope_norm_bwd": config}):
        mine = (
            *rotation.forward(*far[2:], table, table, *weights, 1e-6, False),
            *rotation.backward(*far, table, table, *weights, 1e-6)[:2],
        )
        exact = (
            *rotation.forward(*near[2:], table[-rows:], table[-rows:], *weights, 1e-6, False),
            *rotation.backward(*near, table[-rows:], table[-rows:], *weights, 1e-6)[:2],
        )
    for a, b in zip(mine, exact, strict=True):
        assert torch.equal(a[-1, -rows:], b[0])
    assert last.programs["rope_kernel"] == last.programs["rope_norm_bwd_kernel"] == 2


def test_tables_of_two_billion_elements(sparse, last):
    """Positions so far on that their cos and sin lie beyond element 2^31."""
    d, rows = 256, 128
    tokens = (1 << 31) // (d // 2) + rows
    config = LaunchConfig(block=d // 2, rows=rows)
    near = bf16(1, rows, 1, d)
    q = sparse(tokens * d).view(1, tokens, 1, d)
    q[:, -rows:] = near
    cos, sin = sparse(tokens * d // 2).view(tokens, -1), sparse(tokens * d // 2).view(tokens, -1)
    cos[-rows:], sin[-rows:] = 0.75, bf16(rows, d // 2)
    with trial_configs({"rope": config}):
        mine = rotation.forward(q, q, cos, sin, None, None, 1e-6, False)
        exact = rotation.forward(near, near, cos[-rows:], sin[-rows:], None, None, 1e-6, False)
    assert torch.equal(mine[0][:, -rows:], exact[0]) and torch.equal(mine[1][:, -rows:], exact[1])


def test_more_sequences_than_the_second_dimension_of_a_grid(last):
    batch = 70_000  # 65,535 is the most there
    near = [bf16(1, 3, 2, 8) for _ in range(2)]
    q, k = (x.expand(batch, 3, 2, 8) for x in near)
    w = bf16(8)
    cos, sin = torch.rand(2, 3, 4)
    mine = rotation.forward(q, k, cos, sin, w, w, 1e-6, False)
    exact = rotation.forward(*near, cos, sin, w, w, 1e-6, False)
    assert torch.equal(mine[0][-1:], exact[0]) and torch.equal(mine[1][-1:], exact[1])
