"""Each operator's launcher at a given size, on tensors of any device: what the tuner compiles, the
report prints and the bench times. Meta tensors do where nothing runs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kernels import addnorm, chunks, crossentropy, gated, linear_crossentropy, rmsnorm, rotary
from kernels.loss_row import class_table

HIDDEN = (1024, 2048, 4096, 8192, 16384, 32768)
FEED_FORWARD = (11008, 14336, 53248)
HEAD = (64, 128, 256)
VOCABULARY = (32000, 32001, 50257, 65536, 128256, 131072, 262144)


@dataclass(frozen=True)
class Workload:
    """One operator in one direction.

    sizes: the shipped sizes, what a size is: the length of a row (hidden, head or vocabulary).
    run: called with (rows, size, dtype, device), launches the operator's kernels once; a rotation
    takes batch= as well, a loss ignored= and smoothing=.
    minimum: bytes that must move for (rows, size, bytes of an element), as the operator's
    docstring states it, without the vectors that every row shares.
    narrow: accesses of less than 128 bits in the hot code, for each row of a tile, that only reach
    the row's scalars (rstd, target, loss), or the last columns of a tensor.
    variants: the same kernels with other options, which one setting has to suit as well.
    """

    kernel: str
    sizes: tuple[int, ...]
    run: Callable[..., object]
    minimum: Callable[[int, int, int], int]
    narrow: int = 0
    variants: tuple[Callable[..., object], ...] = ()


def tensor(dtype: torch.dtype, device: str, *shape: int) -> torch.Tensor:
    if device != "cpu":  # nothing is computed there, or the time is what matters
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.randn(shape).to(dtype)


def class_targets(m: int, v: int, device: str, ignored: int | None = None) -> torch.Tensor:
    """(m,) targets. With `ignored` the first so many are ignored, and all are real, on the CPU,
    even where nothing runs: a host that counts them then has something to count."""
    if ignored is None and device == "meta":
        return torch.empty(m, dtype=torch.int64, device=device)
    targets = torch.randint(0, v, (m,), device=device if device != "meta" else "cpu")
    targets[: ignored or 0] = -100
    return targets


def _rms_norm_fwd(m, n, dtype, device):
    x, w = tensor(dtype, device, m, n), tensor(dtype, device, n)
    return rmsnorm.forward(x, w, 1e-6)


def _rms_norm_bwd(m, n, dtype, device):
    x, dy, w = (tensor(dtype, device, *s) for s in ((m, n), (m, n), (n,)))
    rstd = tensor(torch.float32, device, m)
    return rmsnorm.backward(dy, x, w, rstd, None)


def _add_rms_norm_fwd(m, n, dtype, device):
    x, r, w = (tensor(dtype, device, *s) for s in ((m, n), (m, n), (n,)))
    return addnorm.forward(x, r, w, 1e-6)


def _add_rms_norm_bwd(m, n, dtype, device):
    x, dy, ds, w = (tensor(dtype, device, *s) for s in ((m, n), (m, n), (m, n), (n,)))
    return rmsnorm.backward(dy, x, w, tensor(torch.float32, device, m), ds)


Q_HEADS, K_HEADS = 32, 8


def rope_inputs(m, d, dtype, device, batch):
    q, k = (tensor(dtype, device, batch, m, heads, d) for heads in (Q_HEADS, K_HEADS))
    angles = tensor(torch.float32, device, m, d // 2)
    return q, k, angles.cos().to(dtype), angles.sin().to(dtype)


def _rope(m, d, dtype, device, batch=1):
    q, k, cos, sin = rope_inputs(m, d, dtype, device, batch)
    return rotary.forward(q, k, cos, sin, None, None, 1e-6, False)


def _rope_norm_fwd(m, d, dtype, device, batch=1):
    w = tensor(dtype, device, d)
    q, k, cos, sin = rope_inputs(m, d, dtype, device, batch)
    return rotary.forward(q, k, cos, sin, w, w, 1e-6, False)


def _rope_norm_bwd(m, d, dtype, device, batch=1):
    q, k, cos, sin = rope_inputs(m, d, dtype, device, batch)
    w = tensor(dtype, device, d)
    return rotary.backward(q.clone(), k.clone(), q, k, cos, sin, w, w, 1e-6)


def _glu_fwd(gelu):
    def run(m, n, dtype, device):
        gate, up = tensor(dtype, device, m, n), tensor(dtype, device, m, n)
        return gated.forward(gate, up, gelu)

    return run


def _glu_bwd(gelu):
    def run(m, n, dtype, device):
        dout, gate, up = (tensor(dtype, device, m, n) for _ in range(3))
        return gated.backward(dout, gate, up, gelu)

    return run


def class_weights(v, dtype, device, wanted):
    wide = torch.promote_types(dtype, torch.float32)
    return tensor(wide, device, v).abs() + 0.5 if wanted else None


def _cross_entropy_fwd(weighted=False, softcap=None):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = tensor(dtype, device, m, v)
        targets = class_targets(m, v, device, ignored)
        weight = class_weights(v, dtype, device, weighted)
        return crossentropy.forward(logits, targets, weight, -100, smoothing, 1e-4, softcap)

    return run


def _cross_entropy_bwd(weighted=False, softcap=None):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = tensor(dtype, device, m, v)
        targets = class_targets(m, v, device, ignored)
        weight = class_weights(v, dtype, device, weighted)
        lse, g = tensor(torch.float32, device, m), tensor(torch.float32, device, m)
        return crossentropy.backward(
            g, logits, targets, lse, weight, -100, smoothing, 1e-4, softcap
        )

    return run


def _linear_cross_entropy(weighted=False, softcap=None):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = chunks.buffer(tensor(dtype, device, 1, 1), m, v)
        losses = tensor(torch.float32, device, m)
        g = torch.ones((), device=device)
        criterion = linear_crossentropy.Criterion(-100, smoothing, 1e-4, softcap)
        classes = class_table(class_weights(v, dtype, device, weighted), logits)
        return linear_crossentropy.loss_and_gradient(
            logits, class_targets(m, v, device, ignored), classes, criterion, g, losses
        )

    return run


def _loss(kernel, launcher, minimum, narrow=0, weighted=(False, True)):
    """A loss with and without a softcap and, where asked for, class weights."""
    plain, *variants = (launcher(w, cap) for w in weighted for cap in (None, 30.0))
    return Workload(kernel, VOCABULARY, plain, minimum, narrow, tuple(variants))


def _rope_bytes(m, d, e):
    return 2 * m * (Q_HEADS + K_HEADS) * d * e


WORKLOADS = {
    "rms_norm_fwd": Workload(
        "rms_norm_fwd", HIDDEN, _rms_norm_fwd, lambda m, n, e: 2 * m * n * e + 4 * m, 1
    ),
    "rms_norm_bwd": Workload(
        "rms_norm_bwd", HIDDEN, _rms_norm_bwd, lambda m, n, e: 3 * m * n * e + 4 * m, 1
    ),
    "add_rms_norm_fwd": Workload(
        "add_rms_norm_fwd", HIDDEN, _add_rms_norm_fwd, lambda m, n, e: 4 * m * n * e + 4 * m, 1
    ),
    "add_rms_norm_bwd": Workload(
        "add_rms_norm_bwd", HIDDEN, _add_rms_norm_bwd, lambda m, n, e: 4 * m * n * e + 4 * m, 1
    ),
    "rope": Workload("rope", HEAD, _rope, _rope_bytes),
    "rope_norm_fwd": Workload("rope", HEAD, _rope_norm_fwd, _rope_bytes),
    "rope_norm_bwd": Workload(
        "rope_norm_bwd", HEAD, _rope_norm_bwd, lambda m, d, e: 3 * _rope_bytes(m, d, e) // 2
    ),
    "swiglu_fwd": Workload(
        "glu_fwd", FEED_FORWARD, _glu_fwd(False), lambda m, n, e: 3 * m * n * e, 3
    ),
    "swiglu_bwd": Workload(
        "glu_bwd", FEED_FORWARD, _glu_bwd(False), lambda m, n, e: 5 * m * n * e, 5
    ),
    "geglu_fwd": Workload(
        "glu_fwd", FEED_FORWARD, _glu_fwd(True), lambda m, n, e: 3 * m * n * e, 3
    ),
    "geglu_bwd": Workload(
        "glu_bwd", FEED_FORWARD, _glu_bwd(True), lambda m, n, e: 5 * m * n * e, 5
    ),
    "cross_entropy_fwd": _loss(
        "cross_entropy_fwd", _cross_entropy_fwd, lambda m, v, e: m * v * e + 16 * m
    ),
    "cross_entropy_bwd": _loss(
        "cross_entropy_bwd", _cross_entropy_bwd, lambda m, v, e: 2 * m * v * e + 16 * m
    ),
    "linear_cross_entropy": _loss(
        "linear_cross_entropy", _linear_cross_entropy,
        lambda m, v, e: 2 * m * (-(-v * e // 16) * 16) + 12 * m + 4, 3, (False,),
    ),
    "linear_cross_entropy_weighted": _loss(
        "linear_cross_entropy_streamed", _linear_cross_entropy,
        lambda m, v, e: 2 * m * (-(-v * e // 16) * 16) + 12 * m + 4, 0, (True,),
    ),
}  # fmt: skip
