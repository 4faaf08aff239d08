"""quack's kernels as compiled: `python -m kernels.analysis.quack ARCH OP` writes a line of JSON for
each size, with the registers, spills and binaries of a row of the report.

quack (https://github.com/Dao-AILab/quack) is written in NVIDIA's CuTe DSL, whose architecture is
read from the environment when it is imported: the report runs this once for each architecture and
operator. It needs no GPU. The interpreter of Triton cannot run it, so its bytes are not counted.
Its compile functions have no public name; this is written for the version below.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kernels.analysis.cases import WORKLOADS
from kernels.analysis.compiler_facts import cubin_facts

NAME = "quack-kernels"
VERSION = "0.6"
ROWS = 4096
# The architectures as quack and as the CuTe DSL name them; quack has none of AMD's.
DISPATCH = {"sm_80": "80", "sm_90": "90", "sm_100": "100"}
TARGET = {"sm_80": "sm_80", "sm_90": "sm_90a", "sm_100": "sm_100a"}
OPS = (
    "rms_norm_fwd", "rms_norm_bwd", "add_rms_norm_fwd", "add_rms_norm_bwd", "cross_entropy_fwd",
    "cross_entropy_bwd", "linear_cross_entropy",
)  # fmt: skip
VARIED_ROWS = (1, 2, 16, 17, 1000, 4096)


def installed_quack() -> str | None:
    """Version of the installed quack, or None where there is none."""
    return version(NAME) if find_spec("quack") and find_spec("cutlass") else None


def quack_note(installed: str | None) -> str:
    """A sentence for the report: why quack is not beside, or what of it is not."""
    if installed is None:
        return f"quack is not beside: it is not installed here (pip install {NAME})."
    if not installed.startswith(VERSION):
        return f"quack is not beside: {installed} is installed, and {VERSION} is what can be read."
    return (
        f"quack {installed} is beside us on NVIDIA's architectures, in {len(OPS)} operators. It is "
        "no Triton, so its bytes cannot be counted in the interpreter."
    )


def quack_rows(op: str, arch: str) -> list[dict[str, Any]]:
    """The rows of one operator, made in a process of their own; none where quack has nothing."""
    installed = installed_quack()
    if not installed or not installed.startswith(VERSION) or op not in OPS or arch not in TARGET:
        return []
    start = {"library": NAME, "version": installed, "op": op, "arch": arch}
    with tempfile.TemporaryDirectory() as dump:
        done = subprocess.run(
            [sys.executable, "-m", __name__, arch, op],
            env={**os.environ, **_environment(arch, dump)}, capture_output=True, text=True,
        )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = [{**start, **json.loads(line)} for line in lines]
    for size in WORKLOADS[op].sizes[len(found) :]:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        found.append({**start, "size": size, "error": last[:200]})
    return found


def _environment(arch: str, dump: str) -> dict[str, str]:
    return {
        "CUDA_VISIBLE_DEVICES": "", "QUACK_ARCH": DISPATCH[arch], "CUTE_DSL_ARCH": TARGET[arch],
        "CUTE_DSL_KEEP": "cubin", "CUTE_DSL_DUMP_DIR": dump,
    }  # fmt: skip


def compilers() -> dict[str, tuple[Callable[[int], object], int]]:
    """By operator: a function that compiles it for rows of a size, and its binaries over
    `VARIED_ROWS`, which are the keys of quack's own cache."""
    norm = importlib.import_module("quack.rmsnorm")
    loss = importlib.import_module("quack.cross_entropy")
    cutlass = importlib.import_module("cutlass")
    half, index = cutlass.BFloat16, cutlass.Int64
    norm_fwd = norm._compile_rmsnorm_fwd.__wrapped__
    norm_bwd = norm._compile_rmsnorm_bwd.__wrapped__
    loss_fwd = loss.CrossEntropy.compile.__wrapped__
    loss_bwd = loss.CrossEntropyBackward.compile.__wrapped__
    hints = len({norm._bucket_T_hint(rows) for rows in VARIED_ROWS})

    def forward(n: int, stream: Any) -> object:
        """x, y, residual, weight, no bias, new residual; rstd is kept, no mean."""
        return norm_fwd(half, half, stream, half, None, stream, n, True, False, False, False)

    def backward(n: int, stream: Any) -> object:
        """x, dy, dx, weight, no gradient of a bias, that of the stream; partial sums of dw."""
        hint = norm._bucket_T_hint(ROWS)
        return norm_bwd(n, half, half, half, half, False, None, stream, True, T_hint=hint)

    def losses(n: int, gradient: bool) -> object:
        """Logits and targets; lse where there is no gradient in place."""
        return loss_fwd(half, index, None, n, not gradient, gradient, None, None)

    return {
        "rms_norm_fwd": (lambda n: forward(n, None), 1),
        "rms_norm_bwd": (lambda n: backward(n, None), hints),
        "add_rms_norm_fwd": (lambda n: forward(n, half), 1),
        "add_rms_norm_bwd": (lambda n: backward(n, half), hints),
        "cross_entropy_fwd": (lambda n: losses(n, False), 1),
        "cross_entropy_bwd": (lambda n: loss_bwd(half, index, n, None), 1),
        "linear_cross_entropy": (lambda n: losses(n, True), 1),
    }


def compiled_rows(op: str) -> Iterator[dict[str, Any]]:
    """A row for each size; `error` where it does not compile."""
    compile_size, binaries = compilers()[op]
    dump = Path(os.environ["CUTE_DSL_DUMP_DIR"])
    for size in WORKLOADS[op].sizes:
        try:
            compile_size(size)
            facts = [cubin_facts(path.read_bytes(), shared=0) for path in dump.rglob("*.cubin")]
            yield {
                "size": size,
                "registers": max(one.registers for one in facts),
                "spills": sum(one.spills for one in facts),
                "binaries": binaries,
            }
        except Exception as error:  # noqa: BLE001  whatever it was is the row
            yield {"size": size, "error": f"{type(error).__name__}: {_sentence(str(error))}"}
        for path in dump.rglob("*.cubin"):
            path.unlink()


def _sentence(text: str) -> str:
    """An error of the CuTe DSL on one line, without its colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:160]


if __name__ == "__main__":
    for row in compiled_rows(sys.argv[2]):
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
