"""One law for every operator, whatever autograd or torch asks of it: the answer is that of the
float64 specification, or a KernelError, and nothing else.

Drawn are the type, the layout, the options and the inputs that require gradients.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

import kernels
from kernels.ops.addnorm import add_rms_norm_ref
from kernels.ops.gated import geglu_ref, swiglu_ref
from kernels.ops.loss.crossentropy import cross_entropy_ref
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref
from kernels.ops.loss.linear_dpo import linear_dpo_ref
from kernels.ops.loss.linear_jsd import linear_jsd_ref
from kernels.ops.loss.linear_kl import linear_kl_ref
from kernels.ops.rmsnorm import rms_norm_ref
from kernels.ops.rotary import rope_ref
from tests.kernels.calls import Call, as_tuple
from tests.kernels.derivatives import jvp, second_derivative, tangents
from tests.kernels.interpret.test_properties import run_examples

# Roundings to a type that an answer may be from the specification's, of their largest element. A
# kernel has its options (eps, smoothing) in 32 bits, also where it sums in 64.
ROUNDINGS = 24
OPTION_EPS = 1e-8
TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def values(*shape: int) -> Tensor:
    """Normal numbers, none near 0: there the terms of a norm's gradient are much larger than it."""
    x = torch.randn(shape)
    return x + x.sign() / 2


def rotated(cos: Tensor, sin: Tensor, positions: Tensor | None, q: Tensor, k: Tensor, *weights):
    return kernels.rope(q, k, cos, sin, *weights, positions=positions)


class Draw:
    """Small arguments of an operator, from one seed."""

    def __init__(self, random):
        self.random, self.pick = random, random.choice
        torch.manual_seed(random.getrandbits(32))
        self.dtype = self.pick(TYPES)

    def call(self, name: str) -> Call:
        n = self.pick([1, 5, 8, 17])
        m = self.pick([1, 3])
        if name in ("rms_norm", "add_rms_norm"):
            return self.norm(name, m, n)
        if name in ("swiglu", "geglu"):
            pair = {"swiglu": (kernels.swiglu, swiglu_ref), "geglu": (kernels.geglu, geglu_ref)}
            return Call(*pair[name], ((m, n), (m, n)))
        if name == "rope":
            return self.rotation(m, 2 * self.pick([1, 3, 4]))
        if name in ("linear_kl", "linear_jsd"):
            return self.divergence(name, m, n)
        return self.preference(n) if name == "linear_dpo" else self.loss(name, m, n)

    def norm(self, name: str, m: int, n: int) -> Call:
        weights = self.pick([(), ((n,),)])
        options = {"offset": self.pick([0.0, 1.0]) if weights else 0.0}
        pair = {
            "rms_norm": (kernels.rms_norm, rms_norm_ref),
            "add_rms_norm": (kernels.add_rms_norm, add_rms_norm_ref),
        }
        ours, spec = (partial(function, **options) for function in pair[name])
        branches = ((m, n),) * (2 if name == "add_rms_norm" else 1)
        return Call(ours, spec, (*branches, *weights))

    def rotation(self, tokens: int, d: int) -> Call:
        weights = self.pick([(), ((d,), (d,))])
        half, longer = self.pick([d // 2, 1]), self.pick([0, 3])
        rows = tokens + longer
        cos, sin = torch.rand(2, rows, half)
        of_each, later = torch.randint(0, rows, (2, tokens)), torch.arange(longer, rows)[None]
        positions = self.pick([None, of_each, later])

        def spec(q, k, *w):
            return rope_ref(q, k, cos.to(q.dtype), sin.to(q.dtype), *w, positions=positions)

        heads = (2, tokens, self.pick([1, 3]), d), (2, tokens, 1, d)
        ours = partial(rotated, cos, sin, positions)
        return Call(ours, spec, (*heads, *weights))

    def loss(self, name: str, m: int, v: int) -> Call:
        targets = torch.randint(0, v, (m,))
        targets[: self.pick([0, 1])] = -100
        options = {
            "label_smoothing": self.pick([0.0, 0.1, 1.0]), "z_loss": self.pick([0.0, 0.01]),
            "softcap": self.pick([None, 3.0]), "shift": self.pick([False, True]),
            "class_weight": self.pick([None, torch.rand(v) + 0.5, torch.rand(v).double() + 0.5]),
            "reduction": self.pick(["mean", "sum", "none"]),
        }  # fmt: skip
        if name == "cross_entropy":
            return Call(
                lambda x: kernels.cross_entropy(x, targets, **options),
                lambda x: cross_entropy_ref(x, targets, **options),
                ((m, v),),
            )
        bias = self.pick([(), ((v,),)])
        return Call(
            lambda h, w, b=None: kernels.linear_cross_entropy(h, w, targets, bias=b, **options),
            lambda h, w, b=None: linear_cross_entropy_ref(h, w, targets, bias=b, **options),
            ((m, 4), (v, 4), *bias),
        )

    def divergence(self, name: str, m: int, v: int) -> Call:
        teacher, layer = self.tensor((m, 3)), self.tensor((v, 3))
        options = {
            "temperature": self.pick([1.0, 2.0]), "reduction": self.pick(["mean", "sum"]),
            "kept": self.pick([None, torch.rand(m) < 0.7]),
        }  # fmt: skip
        if name == "linear_kl":
            options["reverse"] = self.pick([False, True])
            pair = kernels.linear_kl, linear_kl_ref
        else:
            options["beta"] = self.pick([0.0, 0.25, 0.5, 1.0])
            pair = kernels.linear_jsd, linear_jsd_ref
        shifts = self.pick([None, values(v)])

        def spec(h, w, b=None):
            bias = None if shifts is None else shifts.to(h.dtype)
            wide = teacher.to(h.dtype), layer.to(h.dtype)
            return pair[1](h, w, *wide, bias=b, teacher_bias=bias, **options)

        def ours(h, w, b=None):
            return pair[0](h, w, teacher, layer, bias=b, teacher_bias=shifts, **options)

        return Call(ours, spec, ((m, 4), (v, 4), *self.pick([(), ((v,),)])))

    def preference(self, v: int) -> Call:
        pairs, tokens = self.pick([1, 2]), self.pick([1, 3])
        targets = torch.randint(0, v, (2 * pairs, tokens))
        targets[0, 0] = self.pick([0, -100])
        reference = self.pick([None, -torch.rand(2 * pairs) * tokens])
        options = {
            "beta": self.pick([0.125, 1.0]), "label_smoothing": self.pick([0.0, 0.25]),
            "softcap": self.pick([None, 3.0]), "shift": self.pick([False, True]),
            "reduction": self.pick(["mean", "sum", "none"]),
        }  # fmt: skip
        return Call(
            lambda h, w, b=None: kernels.linear_dpo(h, w, targets, reference, bias=b, **options),
            lambda h, w, b=None: linear_dpo_ref(h, w, targets, reference, bias=b, **options),
            ((2 * pairs, tokens, 4), (v, 4), *self.pick([(), ((v,),)])),
        )

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """Contiguous, or a slice of what is larger, or of one row for all, or turned."""
        layout = self.pick(["contiguous", "sliced", "expanded", "transposed"])
        if layout == "sliced":
            return values(*shape[:-1], shape[-1] + 3).to(self.dtype)[..., 1 : shape[-1] + 1]
        if layout == "expanded":
            return values(1, *shape[1:]).to(self.dtype).expand(shape)
        if layout == "transposed" and len(shape) > 1:
            return values(*shape[:-2], shape[-1], shape[-2]).to(self.dtype).mT
        return values(*shape).to(self.dtype)

    def wanted(self, count: int) -> list[bool]:
        """The inputs that require gradients: at least one."""
        return self.pick([w for w in product([True, False], repeat=count) if any(w)])


def gradients(outs: tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of Σ out² of those inputs that require one."""
    leaves = [x for x in inputs if x.requires_grad]
    total = torch.stack([out.to(torch.float64).square().sum() for out in outs]).sum()
    return [*outs, *torch.autograd.grad(total, leaves)]


def backward(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    return gradients(as_tuple(function(*inputs)), inputs)


def without_gradients(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return list(as_tuple(function(*inputs)))


def second(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    factors = [torch.full_like(x, 0.75).requires_grad_() for x in inputs]
    return second_derivative(function, leaves, factors)


def forward_mode(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    return [*tangents(function, inputs), *jvp(function, inputs)]


def batched(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    """vmap over copies of the first input, and gradients through it."""
    first, *rest = inputs
    stacked = torch.stack([first, first / 2])
    mapped = torch.func.vmap(lambda x: as_tuple(function(x, *rest)))(stacked)
    return gradients(mapped, inputs)


def batched_gradients(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x for x in inputs if x.requires_grad]
    found = as_tuple(function(*inputs))
    outs = [out for out in found if out.requires_grad]
    douts = [torch.stack([torch.ones_like(out), out.detach() / 2]) for out in outs]
    return [*found, *torch.autograd.grad(outs, leaves, douts, is_grads_batched=True)]


def compiled(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    torch._dynamo.reset()
    whole = torch.compile(function, fullgraph=True, backend="aot_eager")
    return gradients(as_tuple(whole(*inputs)), inputs)


def under_autocast(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        outs = as_tuple(function(*inputs))
    return gradients(outs, inputs)


# What is asked, and whether an operator may refuse it.
ASKED = {
    backward: False, without_gradients: False, second: True, forward_mode: True, batched: False,
    batched_gradients: False, under_autocast: False, compiled: False,
}  # fmt: skip
PLAIN = {compiled: backward, under_autocast: backward}
OPERATORS = [
    "rms_norm", "add_rms_norm", "swiglu", "geglu", "rope", "cross_entropy", "linear_cross_entropy",
    "linear_kl", "linear_jsd", "linear_dpo",
]  # fmt: skip


def cases():
    """A few examples, one where each is compiled or launches no kernel of its own; the wide run is
    `full`, and so is all of linear_kl, which is linear_jsd at beta 0 and 1."""
    for asked, name in product(ASKED, OPERATORS):
        few, many = (1, 6) if asked is compiled else (3, 40)
        few = 1 if name in ("linear_jsd", "linear_dpo") else few
        marks = pytest.mark.full if name == "linear_kl" else ()
        yield pytest.param(asked, name, few, id=f"{asked.__name__}-{name}-{few}", marks=marks)
        yield pytest.param(
            asked, name, many, id=f"{asked.__name__}-{name}-{many}", marks=pytest.mark.full
        )


@pytest.mark.parametrize(("asked", "name", "count"), cases())
def test_the_specification_or_a_refusal_by_name(asked, name, count, elsewhere):
    def check(random):
        draw = Draw(random)
        call = draw.call(name)
        tensors = [draw.tensor(shape) for shape in call.shapes]
        wanted = draw.wanted(len(tensors))

        def leaves(dtype=None):
            pairs = zip(tensors, wanted, strict=True)
            return [x.to(dtype or x.dtype).detach().requires_grad_(w) for x, w in pairs]

        expected = PLAIN.get(asked, asked)(call.spec, leaves(torch.float64))
        try:
            actual = asked(call.ours, leaves())
        except kernels.KernelError as error:
            assert ASKED[asked], error
            assert name in str(error)
            return
        coarse = torch.bfloat16 if asked is under_autocast else draw.dtype
        allowed = ROUNDINGS * max(torch.finfo(coarse).eps, OPTION_EPS)
        # of all results: a gradient may be 0 where its terms cancel, as that of a rotation's length
        size = max(e.abs().max().item() for e in expected)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a.double(), e, rtol=0, atol=allowed * (size + 1e-2))

    run_examples(count, check)
