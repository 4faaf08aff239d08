"""Arguments that no operator takes, each with words of the sentence that says so: one table for
both paths."""

from collections.abc import Callable

import torch

import kernels

t = torch.ones


def long(*shape):
    return torch.zeros(shape, dtype=torch.int64)


def wanted(*shape):
    return torch.ones(shape, requires_grad=True)


def turn(q, k, table, *weights, **options):
    return kernels.rope(q, k, table, table, *weights, **options)


def losses(arguments: dict, words: str) -> dict[str, tuple[Callable, str]]:
    """One bad argument of either loss."""
    label = " ".join(f"{name}={value}" for name, value in arguments.items())[:60]
    return {
        f"cross_entropy {label}": (
            lambda: kernels.cross_entropy(t(5, 8), long(5), **arguments), words
        ),
        f"linear_cross_entropy {label}": (
            lambda: kernels.linear_cross_entropy(t(5, 3), t(8, 3), long(5), **arguments), words
        ),
    }  # fmt: skip


def of_type(kind: torch.dtype) -> dict[str, tuple[Callable, str]]:
    """Every operator on a type that it does not compute in."""

    def x(*shape):
        return torch.zeros(shape).to(kind)

    calls = {
        "rms_norm": lambda: kernels.rms_norm(x(3, 8), t(8)),
        "rms_norm weight": lambda: kernels.rms_norm(t(3, 8), x(8)),
        "add_rms_norm": lambda: kernels.add_rms_norm(x(3, 8), x(3, 8), t(8)),
        "swiglu": lambda: kernels.swiglu(x(3, 8), x(3, 8)),
        "geglu": lambda: kernels.geglu(t(3, 8), x(3, 8)),
        "rope": lambda: turn(x(1, 3, 1, 8), x(1, 3, 1, 8), t(3, 4)),
        "rope tables": lambda: turn(t(1, 3, 1, 8), t(1, 3, 1, 8), x(3, 4)),
        "cross_entropy": lambda: kernels.cross_entropy(x(5, 8), long(5)),
        "linear_cross_entropy": lambda: kernels.linear_cross_entropy(x(5, 3), x(8, 3), long(5)),
        "class weights": lambda: kernels.cross_entropy(t(5, 8), long(5), class_weight=x(8)),
    }
    return {
        f"{kind} {name}": (call, "not one of bf16, fp16, fp32 and fp64")
        for name, call in calls.items()
    }


def divergences(arguments: dict, words: str) -> dict[str, tuple[Callable, str]]:
    """One bad argument of either divergence."""
    label = " ".join(f"{name}={value}" for name, value in arguments.items())[:60]
    good = {"teacher": t(5, 4), "teacher_weight": t(8, 4), **arguments}
    return {
        f"{name} {label}": (
            lambda name=name: getattr(kernels, name)(t(5, 3), t(8, 3), **good),
            words,
        )
        for name in ("linear_kl", "linear_jsd")
    }


def preferences(answers: int = 4, reference=None, **options):
    return kernels.linear_dpo(t(answers, 2, 3), t(8, 3), long(answers, 2), reference, **options)


REFUSED: dict[str, tuple[Callable, str]] = {
    **of_type(torch.int64), **of_type(torch.float8_e4m3fn), **of_type(torch.complex64),
    "a list": (lambda: kernels.rms_norm([1.0], t(1)), "x is list, not a tensor"),
    "a number": (lambda: kernels.rms_norm(torch.tensor(1.0), t(1)), "x is one number"),
    "a short weight": (lambda: kernels.rms_norm(t(3, 8), t(5)), r"weight is \[5\].* not \[8\]"),
    "an offset of nothing": (
        lambda: kernels.rms_norm(t(3, 8), None, offset=1.0), "offset=1.0 is added to a weight"
    ),
    "an offset that is no number": (
        lambda: kernels.add_rms_norm(t(3, 8), t(3, 8), t(8), offset="1"), "offset='1' must be"
    ),
    "a norm in whole numbers": (
        lambda: kernels.rms_norm(t(3, 8), t(8), dtype=torch.int32), "dtype=torch.int32 is not"
    ),
    "a short bias": (
        lambda: kernels.linear_cross_entropy(t(5, 4), t(8, 4), long(5), bias=t(7)),
        r"bias is \[7\] .* not \[8\]",
    ),
    "no epsilon": (lambda: kernels.rms_norm(t(3, 8), t(8), None), "eps=None must be a number"),
    "a negative epsilon": (
        lambda: kernels.add_rms_norm(t(3, 8), t(3, 8), t(8), -1e-6), "of at least 0"
    ),
    "a short residual": (lambda: kernels.add_rms_norm(t(3, 8), t(8), t(8)), r"residual is \[8\]"),
    "a narrow up": (lambda: kernels.swiglu(t(3, 8), t(3, 5)), r"swiglu: up is \[3, 5\]"),
    "no up": (lambda: kernels.geglu(t(3, 8), "up"), "geglu: up is str"),
    "tables of few positions": (
        lambda: turn(t(1, 5, 1, 8), t(1, 5, 1, 8), t(3, 4)), "cos has 3 rows, and there are 5"
    ),
    "no tables": (lambda: turn(t(1, 5, 1, 8), t(1, 5, 1, 8), t(5, 0)), "has 4 pairs"),
    "a position beyond the tables": (
        lambda: turn(t(1, 2, 1, 8), t(1, 2, 1, 8), t(5, 4), positions=long(1, 2) + 5),
        "position 5 is not a row of tables of 5 rows",
    ),
    "a position before the tables": (
        lambda: turn(t(1, 2, 1, 8), t(1, 2, 1, 8), t(5, 4), positions=long(1, 2) - 1),
        "position -1 is not a row",
    ),
    "positions of another batch": (
        lambda: turn(t(3, 2, 1, 8), t(3, 2, 1, 8), t(5, 4), positions=long(2, 2)),
        r"positions is \[2, 2\], not \[3, 2\] or \[1, 2\]",
    ),
    "positions in fractions": (
        lambda: turn(t(1, 2, 1, 8), t(1, 2, 1, 8), t(5, 4), positions=t(1, 2)),
        "positions is torch.float32, not a tensor of whole numbers",
    ),
    "tables of whole width": (lambda: turn(t(1, 5, 1, 8), t(1, 5, 1, 8), t(5, 8)), "cos is"),
    "tables that are learned": (
        lambda: turn(t(1, 5, 1, 8), t(1, 5, 1, 8), wanted(5, 4)), r"pass cos\.detach\(\)"
    ),
    "an odd head": (lambda: turn(t(1, 5, 1, 7), t(1, 5, 1, 7), t(5, 3)), "must be even"),
    "fewer keys": (lambda: turn(t(1, 5, 1, 8), t(1, 3, 1, 8), t(5, 4)), r"k is \[1, 3, 1, 8\]"),
    "heads of no batch": (lambda: turn(t(5, 1, 8), t(5, 1, 8), t(5, 4)), r"q is .* not \(B, S"),
    "one norm of two": (
        lambda: turn(t(1, 5, 1, 8), t(1, 5, 1, 8), t(5, 4), t(8)), "both q_weight and k_weight"
    ),
    "few targets": (lambda: kernels.cross_entropy(t(5, 8), long(3)), r"targets is \[3\]"),
    "narrow targets": (lambda: kernels.cross_entropy(t(5, 8), long(5).int()), "torch.int64"),
    "no targets": (lambda: kernels.cross_entropy(t(5, 8), None), "targets are NoneType"),
    "logits of nothing": (
        lambda: kernels.cross_entropy(torch.tensor(1.0), torch.tensor(1)), "logits is one number"
    ),
    "a flat head": (lambda: kernels.linear_cross_entropy(t(5, 3), t(3), long(5)), r"not \(V, N\)"),
    "a narrow head": (
        lambda: kernels.linear_cross_entropy(t(5, 3), t(8, 2), long(5)), r"weight is \[8, 2\]"
    ),
    "the name of a group": (
        lambda: kernels.linear_cross_entropy(t(5, 3), t(8, 3), long(5), group="world"),
        "group is str, not a process group",
    ),
    "the next of a single target": (
        lambda: kernels.linear_cross_entropy(t(3), t(8, 3), torch.tensor(1), shift=True),
        "needs a row of targets",
    ),
    "no classes": (lambda: kernels.cross_entropy(t(3, 0), long(3)), "no classes"),
    **losses({"class_weight": t(3)}, r"class_weight is \[3\].* not \[8\]"),
    **losses({"class_weight": wanted(8)}, r"class_weight requires a gradient.*\.detach\(\)"),
    **losses({"label_smoothing": -0.1}, "number from 0 to 1"),
    **losses({"label_smoothing": 1.5}, "number from 0 to 1"),
    **losses({"label_smoothing": float("nan")}, "number from 0 to 1"),
    **losses({"z_loss": -1e-4}, "of at least 0"),
    **losses({"softcap": 0.0}, "softcap=0"),
    **losses({"softcap": -1.0}, "of at least 0"),
    **losses({"ignore_index": None}, "ignore_index=None is not a target"),
    **losses({"reduction": "median"}, "choose mean, sum or none"),
    **divergences({"teacher": t(3, 4)}, r"teacher is \[3, 4\]"),
    **divergences({"teacher_weight": t(7, 4)}, r"teacher_weight is \[7, 4\].* not \[8, 4\]"),
    **divergences({"teacher": wanted(5, 4)}, r"pass teacher\.detach\(\)"),
    **divergences({"teacher_weight": wanted(8, 4)}, r"pass teacher_weight\.detach\(\)"),
    **divergences({"teacher_bias": t(7)}, r"teacher_bias is \[7\]"),
    **divergences({"kept": t(5)}, r"kept is .* not \[5\] torch.bool"),
    **divergences({"kept": [True] * 5}, "kept is list, not a tensor"),
    **divergences({"temperature": 0.0}, "temperature=0 leaves no distribution"),
    **divergences({"temperature": -1.0}, "of at least 0"),
    **divergences({"reduction": "none"}, "choose mean or sum"),
    "a beta beyond 1": (
        lambda: kernels.linear_jsd(t(5, 3), t(8, 3), t(5, 3), t(8, 3), beta=1.5), "from 0 to 1"
    ),
    "answers that are no pairs": (lambda: preferences(3), "3 answers are no pairs"),
    "a reference of few answers": (lambda: preferences(reference=t(2)), r"reference is \[2\]"),
    "a reference that is learned": (
        lambda: preferences(reference=wanted(4)), r"pass reference\.detach\(\)"
    ),
    "a negative beta": (lambda: preferences(beta=-0.1), "of at least 0"),
    "preferences mostly wrong": (lambda: preferences(label_smoothing=0.6), "from 0 to 0.5"),
    "answers without tokens": (
        lambda: kernels.sequence_log_prob(t(4, 3), t(8, 3), long(4)), r"not \(B, T, N\)"
    ),
}  # fmt: skip

# What a kernel is too narrow for; plain torch is not.
TOO_WIDE: dict[str, tuple[Callable, str]] = {
    "rms_norm": (lambda: kernels.rms_norm(t(1, 40000), t(40000)), "largest is 32768"),
    "add_rms_norm": (
        lambda: kernels.add_rms_norm(t(1, 40000), t(1, 40000), t(40000)), "largest is 32768"
    ),
    "rope": (lambda: turn(t(1, 2, 1, 512), t(1, 2, 1, 512), t(2, 256)), "largest is 256"),
}  # fmt: skip


def mixed() -> dict[str, tuple[tuple[torch.Tensor, ...], tuple[torch.dtype, ...]]]:
    """Results of operands of two types, as autocast makes them, and the types they have to have."""
    half, full = torch.bfloat16, torch.float32
    x, r, w = t(3, 8, dtype=half), t(3, 8), t(8)
    q, k = t(1, 3, 2, 8, dtype=half), t(1, 3, 1, 8)
    weighted = {"class_weight": t(8).double()}
    return {
        "a bf16 branch beside an fp32 residual": (kernels.add_rms_norm(x, r, w), (full, full)),
        "an fp32 branch beside a bf16 residual": (kernels.add_rms_norm(r, x, w), (full, full)),
        "swiglu": ((kernels.swiglu(x, r),), (full,)),
        "geglu": ((kernels.geglu(r, x),), (full,)),
        "rope": (turn(q, k, t(3, 4)), (half, full)),
        "fp64 class weights": ((kernels.cross_entropy(x, long(3), **weighted),), (full,)),
        "fp64 class weights of a head": (
            (kernels.linear_cross_entropy(x, t(8, 8), long(3), **weighted),), (full,)
        ),
    }  # fmt: skip
