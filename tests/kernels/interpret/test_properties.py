"""Drawn shapes, layouts, scales and options: outputs and all gradients of every operator in bf16
keep the bound of operators.py beside torch's own bf16 code."""

from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kernels.interpret import operators
from tests.kernels.interpret.operators import LAYOUTS, bf16, compare, wide

# Examples of a test: the short run and, `full`, the wide one. A mean over examples needs them all.
WIDE = 30
examples = pytest.mark.parametrize("count", [8, pytest.param(WIDE, marks=pytest.mark.full)])


def run_examples(count, check):
    """Call `check` with `count` random generators, the same in every run.

    The meter of conftest.py spans all examples of a test, and compare() has one for each.
    """
    settings(
        max_examples=count, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate],  # a seed has nothing to shrink
        suppress_health_check=list(HealthCheck),
    )(given(seeds)(check))()  # fmt: skip


ELEMENTS = 1 << 16
seeds = st.randoms(use_true_random=True)
WIDTHS = [1, 2, 3, 127, 128, 129, 1000, 4095, 4096, 16384]
SCALES = [0.05, 1.0, 1.0, 8.0]


class Draw:
    """Shapes, layouts, numbers and options, all from one seed that hypothesis draws: its own draws
    of each would be degenerate (no rows, one class) most of the time."""

    def __init__(self, random):
        self.pick, self.between = random.choice, random.randint
        torch.manual_seed(random.getrandbits(32))

    def width(self):
        return self.pick([self.between(1, 2000), self.pick(WIDTHS)])

    def rows(self, n):
        """(m,) or (b, m), few enough for the interpreter; m is 0 or 1 more often than by chance."""
        most = max(1, min(40, ELEMENTS // n))
        m = self.pick([*range(7), self.between(1, most)])
        return self.pick([(m,), (2, m // 2)])

    def tensor(self, *shape):
        if len(shape) == 1:
            return self.pick([bf16(*shape), bf16(2 * shape[0])[::2], bf16(1).expand(shape)])
        return self.pick(LAYOUTS)(*shape, scale=self.pick(SCALES))

    def targets(self, *shape, classes, ignore_index):
        """At random, a few of them ignored, at times all."""
        targets = torch.randint(0, classes, shape)
        share = self.pick([0.0, 0.2, 0.2, 0.2, 0.2, 1.0])
        return targets.masked_fill(torch.rand(shape) < share, ignore_index)

    def options(self, classes):
        return {
            "ignore_index": self.pick([-100, -1, 0]),
            "label_smoothing": self.pick([0.0, 0.1]),
            "z_loss": self.pick([0.0, 1e-3]),
            "softcap": self.pick([None, 2.0, 30.0]),
            "class_weight": self.pick([None, (torch.rand(classes) + 0.5).bfloat16().float()]),
            "shift": self.pick([False, True]),
            "reduction": self.pick(["mean", "sum", "none"]),
        }

    def compared(self, case):
        """The bound, under upstream gradients of any layout. A scalar one is a power of two, as
        the losses scale gradients that are already rounded."""
        outs = case.spec(*wide(case.inputs))
        outs = outs if isinstance(outs, tuple) else (outs,)
        scalar = torch.tensor(self.pick([1.0, -0.5, 64.0]))
        return compare(case, [self.tensor(*o.shape) if o.dim() else scalar for o in outs])

    def balance(self, case):
        """For each result, the mean square error against fp64 from −1 (torch's is the larger) to 1.
        Where intermediates are stored in bf16, the errors of those are in both, and on a single
        input chance decides; over many it must not."""
        squares = [[(x.double() - e).square().sum() for x in (a, b)]
                   for a, b, e in self.compared(case)]  # fmt: skip
        return [((a - b) / (a + b)).nan_to_num(0.0).item() for a, b in squares]


@examples
def test_rms_norm(count):
    def check(random):
        draw = Draw(random)
        n = draw.width()
        draw.compared(operators.rms_norm(draw.tensor(*draw.rows(n), n), bf16(n)))

    run_examples(count, check)


def test_add_rms_norm():
    balances = []

    def check(random):
        draw = Draw(random)
        n = draw.width()
        rows = draw.rows(n)
        x, r = draw.tensor(*rows, n), draw.tensor(*rows, n)
        balances.append(draw.balance(operators.add_rms_norm(x, r, bf16(n))))

    run_examples(WIDE, check)
    assert (torch.tensor(balances).mean(0) < 1e-3).all()  # in a few elements a tie is as much


@examples
@pytest.mark.parametrize("gelu", [False, True])
def test_gated(gelu, count):
    def check(random):
        draw = Draw(random)
        n = draw.width()
        rows = draw.rows(n)
        draw.compared(operators.gated(gelu, draw.tensor(*rows, n), draw.tensor(*rows, n)))

    run_examples(count, check)


HEAD_SIZES = [2, 6, 10, 64, 96, 128, 254, 256]


@examples
@pytest.mark.parametrize("norm", [False, True])
def test_rope(norm, count):
    def check(random):
        draw = Draw(random)
        b, s, d = draw.between(0, 2), draw.between(0, 9), draw.pick(HEAD_SIZES)
        q, k = (draw.tensor(b, s, draw.between(1, most), d) for most in (9, 3))
        angles, dtype = torch.randn(s, d // 2) * 3, draw.pick([torch.float32, torch.bfloat16])
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        weights = (bf16(d), bf16(d)) if norm else ()
        draw.compared(operators.rope(q, k, cos, sin, *weights))

    run_examples(count, check)


@examples
def test_cross_entropy(count):
    def check(random):
        draw = Draw(random)
        v = draw.width()
        rows, options = draw.rows(v), draw.options(v)
        targets = draw.targets(*rows, classes=v, ignore_index=options["ignore_index"])
        draw.compared(operators.cross_entropy(draw.tensor(*rows, v), targets, **options))

    run_examples(count, check)


def test_linear_cross_entropy():
    balances = []

    def check(random):
        draw = Draw(random)
        v = draw.width()
        n, rows, options = draw.pick([1, 8, 32, 100, 257]), draw.rows(v), draw.options(v)
        targets = draw.targets(*rows, classes=v, ignore_index=options["ignore_index"])
        h, w = draw.tensor(*rows, n), draw.tensor(v, n)
        case = operators.linear_cross_entropy(h, w, targets, **options)
        chunk = draw.pick([3, 40])
        with mock.patch("kernels.launch.token_chunks.size", lambda *_: chunk):
            balances.append(draw.balance(case))

    run_examples(WIDE, check)
    assert (torch.tensor(balances).mean(0) < 0).all()
