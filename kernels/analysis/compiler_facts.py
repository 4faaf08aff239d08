"""Facts of a compiled kernel from its disassembly: registers, spills, widths of memory accesses.

CUDA binaries are read with the cuobjdump and nvdisasm that Triton ships, AMD's from the assembly
that it keeps.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import triton

from kernels.analysis.fake_driver import SHARED
from kernels.backend import KernelError

BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class CompilerFacts:
    """Resources and memory accesses of one compiled kernel.

    registers: per thread. spills: instructions that reach local memory (CUDA) or spilled vector
    registers (HIP). shared: bytes. loads, stores: global accesses by their width in bits.
    hot_loads, hot_stores: the same for the innermost code, the loops or, without one, all of it.
    clusters: instructions that synchronise a cluster. atomics: global atomics.
    """

    registers: int
    spills: int
    shared: int
    loads: dict[int, int] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)
    hot_loads: dict[int, int] = field(default_factory=dict)
    hot_stores: dict[int, int] = field(default_factory=dict)
    clusters: int = 0
    atomics: int = 0

    @property
    def narrow(self) -> int:
        """Accesses of less than 128 bits in the hot code."""
        widths = (*self.hot_loads.items(), *self.hot_stores.items())
        return sum(count for width, count in widths if width < 128)


_known: dict[str, CompilerFacts] = {}


def compiler_facts(kernel: Any) -> CompilerFacts:
    """The facts of one compiled kernel; disassembled once.

    Raises KernelError when the disassembler prints no registers, CalledProcessError when it fails.
    """
    key = kernel.metadata.hash
    if key not in _known:
        text = kernel.asm.get("amdgcn")
        _known[key] = (
            _hip_facts(kernel, text)
            if text
            else cubin_facts(kernel.asm["cubin"], kernel.metadata.shared)
        )
    return _known[key]


def cubin_facts(cubin: bytes, shared: int) -> CompilerFacts:
    """The facts of a CUDA binary; `shared` is not in it. Raises as `compiler_facts`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        sass = _tool("nvdisasm", "-c", file.name)
    registers = re.search(r"REG:(\d+)", usage)
    if registers is None:
        raise KernelError(f"cuobjdump printed no number of registers: {usage[:200]!r}")
    code, hot = instructions(sass)
    names = [name for name, _ in code]
    return CompilerFacts(
        registers=int(registers[1]),
        spills=sum(name.startswith(("STL", "LDL")) for name in names),
        shared=shared,
        loads=_widths("LDG", names),
        stores=_widths("STG", names),
        hot_loads=_widths("LDG", hot),
        hot_stores=_widths("STG", hot),
        clusters=sum(name.startswith("UCGABAR") for name in names),
        atomics=sum(name.startswith(("ATOM", "RED.")) for name in names),
    )


def _tool(name: str, *arguments: str) -> str:
    run = subprocess.run([BIN / name, *arguments], capture_output=True, text=True, check=True)
    return run.stdout


def instructions(sass: str) -> tuple[list[tuple[str, int]], list[str]]:
    """(every (name, line) of a disassembly, names inside loops or all when there is no loop)."""
    code: list[tuple[str, int]] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(sass.splitlines()):
        if label := re.match(r"\s*(\.L_\S+):", line):
            labels[label[1]] = number
        pattern = r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)"
        if op := re.match(pattern, line):
            code.append((op[1], number))
            back = re.search(r"`\((\.L_\w+)\)", line)
            # the last instruction is a branch to itself that pads the program
            if op[1].startswith("BRA") and back and labels.get(back[1], number) < number - 1:
                loops.append((labels[back[1]], number))
    inside = [name for name, at in code if any(a <= at <= b for a, b in loops)]
    reaches = any(name.startswith(("LDG", "STG")) for name in inside)
    return code, inside if reaches else [name for name, _ in code]


def _widths(kind: str, names: list[str]) -> dict[int, int]:
    found: Counter[int] = Counter()
    for name in names:
        if name.split(".")[0] == kind:
            bits = re.search(r"\.(?:[US](8|16)|(64|128|256))\b", name + ".")
            found[int(bits[1] or bits[2]) if bits else 32] += 1
    return dict(sorted(found.items(), reverse=True))


def _hip_facts(kernel: Any, text: str) -> CompilerFacts:
    def number(pattern: str) -> int:
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    def widths(kind: str) -> dict[int, int]:
        found: Counter[int] = Counter()
        size = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32, "ushort": 16,
                "short": 16, "ubyte": 8, "byte": 8}  # fmt: skip
        for word in re.findall(rf"\b(?:global|buffer)_{kind}_(\w+)", text):
            word = word.replace("short_d16_hi", "short").replace("short_d16", "short")
            found[size.get(word, 32)] += 1
        return dict(sorted(found.items(), reverse=True))

    return CompilerFacts(
        registers=number(r"\.vgpr_count:\s+(\d+)"),
        spills=number(r"\.vgpr_spill_count:\s+(\d+)"),
        shared=kernel.metadata.shared,
        loads=widths("load"),
        stores=widths("store"),
        hot_loads=widths("load"),
        hot_stores=widths("store"),
        atomics=len(re.findall(r"\bglobal_atomic", text)),
    )


@cache
def occupancy(registers: int, shared: int, warps: int, arch: str) -> int:
    """Thread blocks of a kernel that one multiprocessor holds at once."""
    if arch == "gfx942":
        return _waves_occupancy(registers, shared, warps)
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // (per_warp * warps)
    by_shared = (SHARED[arch] + 1024) // (shared + 1024)
    return min(by_registers, by_shared, 64 // warps, 32)


def _waves_occupancy(registers: int, shared: int, waves: int) -> int:
    """The same for a compute unit of CDNA 3: four SIMDs, each with 512 vector registers a lane in
    steps of 8 and at most 8 waves, as LLVM's AMDGPU backend has them for gfx90a and later."""
    per_simd = min(8, 512 // (-(-max(registers, 1) // 8) * 8))
    by_shared = SHARED["gfx942"] // shared if shared else 32
    return min(4 * per_simd // waves, by_shared, 32)
