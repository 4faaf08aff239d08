"""Peak memory of the fused linear cross entropy, measured storage by storage, is its formula."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.launch import token_chunks
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.linear_fused import fused_loss


class Peak(TorchDispatchMode):
    """Bytes of the storages born inside, alive at once, at most."""

    def __init__(self, inputs):
        super().__init__()
        self.known = {x.untyped_storage()._cdata for x in inputs}
        self.alive = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.see(x.untyped_storage())
        return out

    def see(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.gone, key, size)

    def gone(self, key, size):
        self.known.discard(key)
        self.alive -= size


@pytest.mark.parametrize("parts", [1, 4])
def test_peak_is_the_formula(parts, monkeypatch):
    m, n, v, e = 256, 64, 4001, 2
    monkeypatch.setattr("kernels.launch.token_chunks.CPU_LOGITS", m // parts * v)
    c = token_chunks.size(m, v, torch.device("cpu"))
    assert c == m // parts
    hidden = torch.randn(m, n).bfloat16()
    weight = torch.randn(v, n).bfloat16()
    targets = torch.randint(0, v, (m,))
    # The CPU widens the factors of dW, which a GPU multiplies as they are: not part of the op.
    monkeypatch.setattr("kernels.launch.token_chunks.accumulate", lambda *_: None)
    with torch.no_grad(), Peak([hidden, weight, targets]) as memory:
        loss, *kept = fused_loss(hidden, weight, targets, None, Criterion(), True, True, True, True)
    padded = -(-v // 64) * 64
    formula = c * padded * e + m * n * e + 4 * v * n + 4 * m
    scalars = 128 + 2 * m  # g, its power of two, the number of kept targets and their mask
    assert formula <= memory.peak <= formula + scalars
    assert memory.alive <= m * n * e + 4 * v * n + scalars, "more than the gradients is kept"
    assert loss.isfinite() and len(kept) == 3
